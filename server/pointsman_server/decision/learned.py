"""What was learned beforehand and ships with the package, read once."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import orjson

from pointsman_server.decision.dial import Judged
from pointsman_server.decision.judge import Judge
from pointsman_server.domain.request import Tier

if TYPE_CHECKING:
    from pointsman_server.decision.second_look import SecondLook

DATA = "data/judge.json"
SECOND_LOOK_DATA = "data/second_look.json"


@cache
def learned() -> Mapping[str, Any]:
    """The parsed data file; its parts are described where they are read."""
    parsed: Mapping[str, Any] = orjson.loads(_content())
    return parsed


@cache
def judge_name() -> str:
    """Tells this judge from others, whose scores mean something else."""
    return f"learned:{hashlib.sha256(_content()).hexdigest()[:16]}"


def _content() -> bytes:
    return (files("pointsman_server") / DATA).read_bytes()


@cache
def calibration_set() -> Sequence[Judged]:
    """Requests that the judge had not seen, as it judged them."""
    return tuple(
        Judged(difficulty, discrimination, Tier(tier)) for difficulty, discrimination, tier in learned()["calibration"]
    )


@cache
def shipped_judge() -> Judge:
    """The judge that ships with the package."""
    return Judge.load(learned())


@cache
def shipped_second_look() -> SecondLook:
    """The second look that ships with the package; the encoder it reads with does not."""
    from pointsman_server.decision.second_look import SecondLook  # needs numpy, for which nobody else is to wait

    return SecondLook.load(orjson.loads((files("pointsman_server") / SECOND_LOOK_DATA).read_bytes()))
