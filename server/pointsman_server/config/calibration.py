"""Reads the calibration file of a policy: what a tenant's own outcomes taught about the tiers."""

from __future__ import annotations

import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from pointsman_server.config.models import TIERS
from pointsman_server.config.problems import shown
from pointsman_server.config.section import Spot, UnacceptableError
from pointsman_server.config.yaml_tree import MAX_BYTES
from pointsman_server.decision.learned import judge_name
from pointsman_server.decision.quality import log_odds
from pointsman_server.domain.calibration import ANY_TASK, Calibrated, FallingMap
from pointsman_server.domain.catalog import Model, Snapshot
from pointsman_server.domain.plan import TaskType
from pointsman_server.domain.request import Tier

_TASKS = frozenset(task.value for task in TaskType)
_WRITE_ANEW = "Write it with `pointsman evaluate recalibrate OUTCOMES --out FILE`."

_Share = Annotated[float, Field(ge=0, le=1)]
_TierName = Literal["light", "standard", "advanced"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class _Map(_Part):
    task: str
    tier: _TierName
    points: Annotated[tuple[tuple[_Share, _Share], ...], Field(min_length=1)]

    @field_validator("points")
    @classmethod
    def _falls(cls, points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        if any(left >= right or above < below for (left, above), (right, below) in pairwise(points)):
            raise ValueError("scores are to rise, and probabilities never to")
        return points


class _Gain(_Part):
    task: str
    advice: Literal["route", "one_tier", "try_more"]
    tier: _TierName


class _File(_Part):
    format: Literal["pointsman-calibration/1"]
    judge: str
    maps: tuple[_Map, ...]
    gains: tuple[_Gain, ...]


@dataclass(frozen=True, slots=True)
class Calibration:
    """A calibration file: its text, and its maps by tier and task type."""

    text: str = ""
    maps: Mapping[Tier, Mapping[str, FallingMap]] | None = None


def read_calibration(spot: Spot, kept: str | None) -> Calibration:
    """The file that this value names, seen from the policy's folder; `kept` is its text where it was kept."""
    name = spot.text()
    text = _content(Path(spot.findings.file).parent / name, name) if kept is None else kept
    try:
        content = _File.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, fault["loc"])) or "the whole"
        raise UnacceptableError(f"names a file that is no calibration ({place}: {fault['msg']})", _WRITE_ANEW) from None
    _warn(spot, content)
    maps: dict[Tier, dict[str, FallingMap]] = {}
    for one in content.maps:
        maps.setdefault(TIERS[one.tier], {})[one.task] = FallingMap(one.points)
    return Calibration(text, maps)


def _content(path: Path, name: str) -> str:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise UnacceptableError(f"names no regular file: {shown(name)}", _WRITE_ANEW)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        message = f"names a file that does not exist: {shown(name)}"
        raise UnacceptableError(message, "Give its path from the policy's folder, or remove the key.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else ""
        message = f"names a file that cannot be read ({reason or type(error).__name__})"
        raise UnacceptableError(message, "Check the path and its permissions.") from None
    if len(data) > MAX_BYTES:
        raise UnacceptableError(f"names a file of more than {MAX_BYTES} bytes", _WRITE_ANEW)
    return data.decode(errors="replace")


def _warn(spot: Spot, content: _File) -> None:
    if content.judge != judge_name():
        spot.warn(
            "was learned from scores of another judge than this version's, so its maps may mislead",
            "Learn it anew from outcomes with `prompt`, or with the scores of this version.",
        )
    if not content.maps:
        spot.warn("holds no map, so nothing is calibrated", "Learn it from more outcomes: 20 of a tier at least.")
    for gain in content.gains:
        if gain.advice == "one_tier":
            _warn_of_no_gain(spot, gain)


def _warn_of_no_gain(spot: Spot, gain: _Gain) -> None:
    whose, rule = "all requests together", "name: one-tier"
    if gain.task != ANY_TASK:
        whose = f"requests of type {shown(gain.task)}"
    if gain.task in _TASKS:
        rule = f"name: one-tier-{gain.task}, when: {{tasks: [{gain.task}]}}"
    elif gain.task != ANY_TASK:  # a name of the tenant's own, which the router cannot see but by a label
        rule = "name: one-tier-labelled, when: {labels: {work: [its-name]}}"
    spot.warn(
        f"shows no gain of routing over a blind mix for {whose}; {gain.tier} is the cheapest tier that does alone",
        f"Send them there by a rule: `{{{rule}, tier: {gain.tier}, quality_bias: 0}}`.",
    )


def with_calibration(snapshot: Snapshot, calibration: Calibration) -> Snapshot:
    """The policy with what the maps say of its models."""
    if not calibration.maps:
        return snapshot
    models = {one.model.id: one.model for one in snapshot.answering.values() if not one.is_last_resort}
    known = {name: _calibrated(model, models.values(), calibration.maps) for name, model in models.items()}
    return replace(
        snapshot,
        deployments={
            name: replace(one, model=known.get(one.model.id, one.model)) for name, one in snapshot.deployments.items()
        },
    )


def _calibrated(model: Model, models: Iterable[Model], maps: Mapping[Tier, Mapping[str, FallingMap]]) -> Model:
    if model.tier not in maps:
        return model
    abilities = [log_odds(one.quality) for one in models if one.tier is model.tier]
    above_tier = log_odds(model.quality) - sum(abilities) / len(abilities)
    return replace(model, calibrated=Calibrated(maps[model.tier], above_tier))
