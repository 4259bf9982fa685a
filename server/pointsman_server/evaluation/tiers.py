"""How often the judge finds the tier that somebody else found: by the written rubric, or by recorded outcomes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pointsman_server.domain.request import Tier
from pointsman_server.evaluation.figures import wilson_interval
from pointsman_server.evaluation.judging import TIER_NAMES, Judge, judge_text, tier_named
from pointsman_server.evaluation.problems import DataError
from pointsman_server.evaluation.robustness import Prompt, Robustness, measure_robustness

ENGLISH = "en"


@dataclass(frozen=True, slots=True)
class Labelled:
    """A request whose tier somebody decided by the rubric."""

    id: str
    tier: Tier
    text: str
    system: str
    lang: str
    traits: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Recall:
    """How many of the requests of a group got their tier; the interval holds 95 %."""

    group: str
    requests: int
    right: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Miss:
    """A request that got another tier than its label; no text."""

    id: str
    labelled: str
    judged: str
    score: float


Confusion = Mapping[str, Mapping[str, int]]
"""Label → judged tier → requests, all by the rubric's names."""


@dataclass(frozen=True, slots=True)
class TierReport:
    """What the judge makes of labelled requests."""

    requests: int
    right: float
    tiers: Sequence[Recall]
    confusion: Confusion
    languages: Sequence[Recall]
    traits: Sequence[Recall]
    robustness: Sequence[Robustness]
    misses: Sequence[Miss]


def read_labelled(file: Path) -> list[Labelled]:
    """One request a line as JSON: id, tier, text, and optionally system, lang, traits. Raises `DataError`."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text; name a file with one JSON object a line") from error
    labelled = [_labelled(file, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not labelled:
        raise DataError(f"{file}: there are no requests in it")
    return labelled


def _labelled(file: Path, number: int, line: str) -> Labelled:
    where = f"{file}, line {number}"
    try:
        row: dict[str, Any] = json.loads(line)
        tier = tier_named(row["tier"])
        found = Labelled(
            id=str(row["id"]),
            tier=tier or Tier.LIGHT,
            text=_string(row["text"]),
            system=_string(row.get("system") or ""),
            lang=_string(row.get("lang") or "unknown"),
            traits=tuple(map(_string, row.get("traits") or ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{where}: needs a JSON object with id, tier and text; system, lang, traits may follow"
        ) from error
    if tier is None:
        raise DataError(f"{where}: the tier is to be one of {', '.join(TIER_NAMES.values())}")
    return found


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def measure_tiers(judge: Judge, labelled: Sequence[Labelled]) -> TierReport:
    """Judges all requests and compares."""
    judged = [(request, judge_text(judge, request.text, request.system)) for request in labelled]
    verdicts = [(request, verdict.tier) for request, verdict in judged]
    return TierReport(
        requests=len(labelled),
        right=sum(request.tier is tier for request, tier in verdicts) / len(labelled),
        tiers=_recalls(verdicts, lambda request: (TIER_NAMES[request.tier],), order=tuple(TIER_NAMES.values())),
        confusion=confusion((TIER_NAMES[request.tier], tier) for request, tier in verdicts),
        languages=[
            *_recalls(verdicts, lambda request: ("English" if request.lang == ENGLISH else "not English",)),
            *_recalls(verdicts, lambda request: (request.lang,)),
        ],
        traits=_recalls(verdicts, lambda request: request.traits),
        robustness=measure_robustness(judge, [Prompt(request.text, request.system) for request in labelled]),
        misses=[
            Miss(request.id, TIER_NAMES[request.tier], TIER_NAMES[verdict.tier], verdict.score)
            for request, verdict in judged
            if request.tier is not verdict.tier
        ],
    )


def confusion(pairs: Iterable[tuple[str, Tier]]) -> Confusion:
    """Counts of (label, judged tier); labels that are no tier, such as `unsolved`, stand last."""
    counts = Counter((label, TIER_NAMES[tier]) for label, tier in pairs)
    known = {label for label, _ in counts}
    names = tuple(TIER_NAMES.values())
    labels = [name for name in names if name in known] + sorted(known - set(names))
    return {label: {name: counts[label, name] for name in names} for label in labels}


def _recalls(
    verdicts: Sequence[tuple[Labelled, Tier]],
    groups_of: Callable[[Labelled], Sequence[str]],
    order: Sequence[str] = (),
) -> list[Recall]:
    sizes: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for request, tier in verdicts:
        for group in groups_of(request):
            sizes[group] += 1
            right[group] += request.tier is tier
    names = [name for name in order if name in sizes] or [name for name, _ in sizes.most_common()]
    return [
        Recall(name, sizes[name], right[name], right[name] / sizes[name], *wilson_interval(right[name], sizes[name]))
        for name in names
    ]
