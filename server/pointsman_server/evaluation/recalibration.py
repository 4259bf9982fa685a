"""Maps from the complexity score to the probability of a good answer, learned from a tenant's own outcomes."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pointsman_server.domain.calibration import ANY_TASK, FallingMap
from pointsman_server.domain.request import Tier
from pointsman_server.evaluation.figures import expected_calibration_error
from pointsman_server.evaluation.isotonic import Sample, fit_leaning
from pointsman_server.evaluation.outcomes import Outcome
from pointsman_server.evaluation.response import ResponseModel, bent, fit_response

LEAST_LABELS_OF_TIER = 20
LEAST_LABELS_OF_TASK = 30
"""With fewer outcomes a tier, or a task type over all tiers, gets no maps of its own."""

FOLDS = 5


@dataclass(frozen=True, slots=True)
class TierMap:
    """The map of one task type on one tier, and how many outcomes it was fitted to."""

    labels: int
    falling: FallingMap


@dataclass(frozen=True, slots=True)
class TierMaps:
    """By task type and tier, finest first: a task type without a map takes the tier's map of all tasks."""

    maps: Mapping[tuple[str, Tier], TierMap]

    @property
    def tiers(self) -> tuple[Tier, ...]:
        """The tiers that can be predicted, weakest first."""
        return tuple(sorted(tier for task, tier in self.maps if task == ANY_TASK))

    def probability(self, task: str, tier: Tier, score: float) -> float:
        """How likely this tier answers well; the tier must be among `tiers`."""
        found = self.maps.get((task, tier)) or self.maps[ANY_TASK, tier]
        return found.falling.at(score)


@dataclass(frozen=True, slots=True)
class CrossValidation:
    """Errors on outcomes that were not fitted to: of the tier's mean quality bent by the score, and of the maps.

    Brier errors are mean squared distances; calibration errors are as defined for `evaluate routing`.
    """

    outcomes: int
    brier_before: float
    brier_after: float
    calibration_error_before: float
    calibration_error_after: float


Scope = tuple[frozenset[Tier], frozenset[str]]
"""The tiers and task types that have enough outcomes for maps of their own."""


def scope_of(outcomes: Iterable[Outcome]) -> Scope:
    """What can be learned about from these outcomes."""
    tiers: Counter[Tier] = Counter()
    tasks: Counter[str] = Counter()
    for outcome in outcomes:
        tiers[outcome.tier] += 1
        tasks[outcome.task] += 1
    enough = {task for task, labels in tasks.items() if labels >= LEAST_LABELS_OF_TASK} - {ANY_TASK}
    return frozenset(tier for tier, labels in tiers.items() if labels >= LEAST_LABELS_OF_TIER), frozenset(enough)


def fit_maps(outcomes: Sequence[Outcome], scope: Scope) -> TierMaps:
    """Fits a map for every tier in scope, over all tasks and for each task type in scope.

    Every map leans on one item response model of all outcomes, so that few outcomes bend it little.
    """
    tiers, tasks = scope
    model = fit_response(outcomes)
    maps = {}
    for task in (ANY_TASK, *tasks):
        of_task = [outcome for outcome in outcomes if task in (ANY_TASK, outcome.task)]
        for tier in tiers & set(model.strengths) if of_task else ():
            maps[task, tier] = _fit(of_task, tier, model)
    return TierMaps(maps)


def _fit(of_task: Sequence[Outcome], tier: Tier, model: ResponseModel) -> TierMap:
    samples = [Sample(outcome.score, outcome.outcome) for outcome in of_task if outcome.tier is tier]
    expected = [(outcome.score, model.probability(outcome.task, tier, outcome.score)) for outcome in of_task]
    return TierMap(len(samples), fit_leaning(samples, expected))


def fold_of(outcome: Outcome) -> int:
    """The fold of a request: all its outcomes share one."""
    return bucket_of(outcome, FOLDS)


def bucket_of(outcome: Outcome, buckets: int) -> int:
    """A bucket from the digest of the request's name, always the same."""
    return int.from_bytes(hashlib.sha256(outcome.request.encode()).digest()[:4], "big") % buckets


def maps_by_fold(outcomes: Sequence[Outcome]) -> list[TierMaps]:
    """For each fold the maps that were fitted to all others."""
    scope = scope_of(outcomes)
    folds = [fold_of(outcome) for outcome in outcomes]
    return [
        fit_maps([outcome for outcome, fold in zip(outcomes, folds, strict=True) if fold != left_out], scope)
        for left_out in range(FOLDS)
    ]


def cross_validate(outcomes: Sequence[Outcome], maps: Sequence[TierMaps]) -> CrossValidation | None:
    """How far off the maps are on requests they were not fitted to; None where no tier has enough outcomes."""
    means = [_tier_means(outcomes, left_out) for left_out in range(FOLDS)]
    before, after, true = [], [], []
    for outcome in outcomes:
        fold = fold_of(outcome)
        if outcome.tier in maps[fold].tiers:
            before.append(bent(means[fold][outcome.tier], outcome.score))
            after.append(maps[fold].probability(outcome.task, outcome.tier, outcome.score))
            true.append(outcome.outcome)
    if not true:
        return None
    return CrossValidation(
        outcomes=len(true),
        brier_before=_brier(before, true),
        brier_after=_brier(after, true),
        calibration_error_before=expected_calibration_error(before, true),
        calibration_error_after=expected_calibration_error(after, true),
    )


def _tier_means(outcomes: Sequence[Outcome], left_out: int) -> dict[Tier, float]:
    found: dict[Tier, list[float]] = defaultdict(list)
    for outcome in outcomes:
        if fold_of(outcome) != left_out:
            found[outcome.tier].append(outcome.outcome)
    return {tier: sum(values) / len(values) for tier, values in found.items()}


def _brier(stated: Sequence[float], true: Sequence[float]) -> float:
    return sum((left - right) ** 2 for left, right in zip(stated, true, strict=True)) / len(true)
