"""A recalibration as a whole, and the file it is kept in."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from pointsman_server.evaluation.gain import Gain, measure_gain
from pointsman_server.evaluation.outcomes import Outcome
from pointsman_server.evaluation.recalibration import (
    CrossValidation,
    TierMaps,
    cross_validate,
    fit_maps,
    maps_by_fold,
    scope_of,
)

FORMAT = "pointsman-calibration/1"


@dataclass(frozen=True, slots=True)
class ModelFigures:
    """What one model achieved; the cost is a mean, None where it is not known."""

    model: str
    tier: str
    outcomes: int
    quality: float
    cost_micro_usd: float | None


@dataclass(frozen=True, slots=True)
class Recalibration:
    """What was learned from a tenant's outcomes."""

    outcomes: int
    requests: int
    digest: str
    judge: str
    kept: float
    models: Sequence[ModelFigures]
    maps: TierMaps
    cross_validation: CrossValidation | None
    gains: Sequence[Gain]

    def to_plain(self) -> dict[str, Any]:
        """The content of the file; holds no prompt."""
        return {
            "format": FORMAT,
            "outcomes": self.outcomes,
            "requests": self.requests,
            "outcomes_sha256": self.digest,
            "judge": self.judge,
            "kept_quality": self.kept,
            "maps": [
                {"task": task, "tier": tier.name.lower(), "labels": found.labels, "points": found.falling.points}
                for (task, tier), found in sorted(self.maps.maps.items())
            ],
            "cross_validation": asdict(self.cross_validation) if self.cross_validation else None,
            "gains": [
                {**asdict(gain), "advice": gain.advice.value, "tier": gain.tier.name.lower()} for gain in self.gains
            ],
            "models": [asdict(model) for model in self.models],
        }

    def write(self, file: Path) -> None:
        """Writes it as JSON."""
        file.write_bytes(orjson.dumps(self.to_plain(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def recalibrate(outcomes: Sequence[Outcome], *, kept: float, judge: str) -> Recalibration:
    """Learns from outcomes; `kept` is the part of the best tier's quality that routing is to keep.

    `judge` names the judge that the scores are from: another judge's scores mean something else.
    """
    by_fold = maps_by_fold(outcomes)
    return Recalibration(
        outcomes=len(outcomes),
        requests=len({outcome.request for outcome in outcomes}),
        digest=_digest(outcomes),
        judge=judge,
        kept=kept,
        models=_models(outcomes),
        maps=fit_maps(outcomes, scope_of(outcomes)),
        cross_validation=cross_validate(outcomes, by_fold),
        gains=measure_gain(outcomes, by_fold, kept=kept),
    )


def _digest(outcomes: Sequence[Outcome]) -> str:
    return hashlib.sha256(orjson.dumps([asdict(outcome) for outcome in outcomes])).hexdigest()


def _models(outcomes: Sequence[Outcome]) -> list[ModelFigures]:
    found: dict[tuple[int, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        found[outcome.tier, outcome.model].append(outcome)
    return [
        ModelFigures(model, of_model[0].tier.name.lower(), len(of_model), _quality(of_model), _cost(of_model))
        for (_, model), of_model in sorted(found.items())
    ]


def _quality(outcomes: Sequence[Outcome]) -> float:
    return sum(outcome.outcome for outcome in outcomes) / len(outcomes)


def _cost(outcomes: Sequence[Outcome]) -> float | None:
    costs = [outcome.cost_micro_usd for outcome in outcomes if outcome.cost_micro_usd is not None]
    return sum(costs) / len(costs) if costs else None
