"""Whether choosing a tier by the score pays, measured on a tenant's own outcomes.

Only the outcome of the tier that answered is known, so what another choice would have brought is estimated: the map's
prediction, corrected by the errors it made where that tier did answer, each weighed by how rarely it answers requests
of such a score ("doubly robust", J. Robins and A. Rotnitzky, 1995). The maps never saw the outcomes they are used on.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from pointsman_server.domain.calibration import ANY_TASK
from pointsman_server.domain.request import Tier
from pointsman_server.evaluation.figures import blind_mix_cost
from pointsman_server.evaluation.outcomes import Outcome
from pointsman_server.evaluation.recalibration import TierMaps, bucket_of, fold_of

LEAST_LABELS = 60
"""With fewer outcomes a task type gets no advice of its own."""

LEAST_GAIN = 0.01
"""Routing is advised only where its gain is surely above this share of the bill."""

LEAST_SUPPORT = 0.9
"""Routing is advised only where this share of its choices was tried on requests of such a score."""

_BANDS = 5
_STRATUM = 50
_LEAST_TRIED = 5
_BUCKETS = 500
_RESAMPLES = 400
_STEPS = 60


class Advice(Enum):
    """What to do with requests of a task type."""

    ROUTE = "route"
    ONE_TIER = "one_tier"
    TRY_MORE = "try_more"
    """The outcomes do not tell: tiers were not tried on enough requests of every score."""


@dataclass(frozen=True, slots=True)
class Gain:
    """Routing against the best prompt-blind mix of the same quality, on one task type ("" for all).

    Qualities are mean outcomes, `saved` and `blind_saved` are against always the dearest tier, `gain` is their
    difference with its 90 % interval. `tier` is the cheapest single tier that keeps the wanted quality.
    """

    task: str
    labels: int
    quality: float
    best_quality: float
    saved: float
    blind_saved: float
    gain: float
    low: float
    high: float
    supported: float
    advice: Advice
    tier: Tier


_Stratum = tuple[str, int]
"""A task type and a band of scores."""


class _Row(NamedTuple):
    """Estimates for one outcome's request: of routing, and of always each tier."""

    task: str
    bucket: int
    quality: float
    cost: float
    supported: bool
    always: tuple[float, ...]


class _Sums(NamedTuple):
    """Rows added up."""

    rows: int
    quality: float
    cost: float
    always: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class _Setting:
    """What all rows are measured with."""

    tiers: tuple[Tier, ...]
    costs: tuple[float, ...]
    kept: float


def measure_gain(outcomes: Sequence[Outcome], maps: Sequence[TierMaps], *, kept: float) -> list[Gain]:
    """For all requests and for each task type with enough outcomes; `maps` are those by fold.

    Empty where nothing can be compared: outcomes of fewer than two tiers, or tiers without costs.
    """
    tiers = tuple(sorted(set.intersection(*(set(of_fold.tiers) for of_fold in maps))))
    known = [_mean_cost(outcomes, tier) for tier in tiers]
    costs = tuple(cost for cost in known if cost is not None)
    if len(tiers) < 2 or len(costs) < len(tiers) or not max(costs):
        return []
    setting = _Setting(tiers, costs, kept)
    usable = [outcome for outcome in outcomes if outcome.tier in tiers]
    rows = _rows(usable, maps, setting)
    sizes = Counter(row.task for row in rows if row.task != ANY_TASK)
    tasks = [task for task, size in sizes.most_common() if size >= LEAST_LABELS]
    return [_gain(ANY_TASK, rows, setting)] + [
        _gain(task, [row for row in rows if row.task == task], setting) for task in tasks
    ]


def _mean_cost(outcomes: Sequence[Outcome], tier: Tier) -> float | None:
    costs = [one.cost_micro_usd for one in outcomes if one.tier is tier and one.cost_micro_usd is not None]
    return sum(costs) / len(costs) if costs else None


def _rows(outcomes: Sequence[Outcome], maps: Sequence[TierMaps], setting: _Setting) -> list[_Row]:
    stated = [_stated(outcome, maps, setting) for outcome in outcomes]
    price = _price_of_quality(stated, setting)
    strata = _strata(outcomes)
    tried: Counter[tuple[_Stratum, Tier]] = Counter(zip(strata, (outcome.tier for outcome in outcomes), strict=True))
    sizes = Counter(strata)
    rows = []
    for outcome, probabilities, stratum in zip(outcomes, stated, strata, strict=True):
        chosen = _choose(probabilities, setting, price)
        place = setting.tiers.index(outcome.tier)
        error = (outcome.outcome - probabilities[place]) * sizes[stratum] / tried[stratum, outcome.tier]
        always = tuple(p + (error if at == place else 0.0) for at, p in enumerate(probabilities))
        supported = tried[stratum, setting.tiers[chosen]] >= _LEAST_TRIED
        bucket = bucket_of(outcome, _BUCKETS)
        rows.append(_Row(outcome.task, bucket, always[chosen], setting.costs[chosen], supported, always))
    return rows


def _stated(outcome: Outcome, maps: Sequence[TierMaps], setting: _Setting) -> tuple[float, ...]:
    unseen = maps[fold_of(outcome)]
    return tuple(unseen.probability(outcome.task, tier, outcome.score) for tier in setting.tiers)


def _strata(outcomes: Sequence[Outcome]) -> list[_Stratum]:
    """Groups of requests of one task type and like scores, each as large as `_STRATUM` or larger."""
    sizes = Counter(outcome.task for outcome in outcomes)
    tasks = [outcome.task if sizes[outcome.task] >= LEAST_LABELS else ANY_TASK for outcome in outcomes]
    scores: dict[str, list[float]] = defaultdict(list)
    for task, outcome in zip(tasks, outcomes, strict=True):
        scores[task].append(outcome.score)
    edges = {task: _edges(sorted(of_task)) for task, of_task in scores.items()}
    return [(task, bisect_right(edges[task], outcome.score)) for task, outcome in zip(tasks, outcomes, strict=True)]


def _edges(ordered: Sequence[float]) -> list[float]:
    bands = max(1, min(_BANDS, len(ordered) // _STRATUM))
    return [ordered[len(ordered) * band // bands] for band in range(1, bands)]


def _choose(probabilities: Sequence[float], setting: _Setting, price: float) -> int:
    worths = [p - price * cost for p, cost in zip(probabilities, setting.costs, strict=True)]
    return worths.index(max(worths))


def _price_of_quality(stated: Sequence[Sequence[float]], setting: _Setting) -> float:
    """The highest price of a micro-USD, in quality, at which the stated quality is still what is to be kept."""
    best = max(sum(column) for column in zip(*stated, strict=True))
    low, high = 0.0, 1e3 / max(setting.costs)
    for _ in range(_STEPS):
        price = (low + high) / 2
        reached = sum(probabilities[_choose(probabilities, setting, price)] for probabilities in stated)
        low, high = (price, high) if reached >= setting.kept * best else (low, price)
    return low


def _gain(task: str, rows: Sequence[_Row], setting: _Setting) -> Gain:
    whole = _sum(rows)
    saved, blind_saved = _savings(whole, setting)
    low, high = _interval(rows, setting)
    singles = [total / whole.rows for total in whole.always]
    supported = sum(row.supported for row in rows) / len(rows)
    return Gain(
        task=task,
        labels=len(rows),
        quality=whole.quality / whole.rows,
        best_quality=max(singles),
        saved=saved,
        blind_saved=blind_saved,
        gain=saved - blind_saved,
        low=low,
        high=high,
        supported=supported,
        advice=_advise(low, supported),
        tier=_one_tier(singles, setting),
    )


def _advise(low: float, supported: float) -> Advice:
    if supported < LEAST_SUPPORT:
        return Advice.TRY_MORE
    return Advice.ROUTE if low > LEAST_GAIN else Advice.ONE_TIER


def _one_tier(singles: Sequence[float], setting: _Setting) -> Tier:
    enough = [at for at, quality in enumerate(singles) if quality >= setting.kept * max(singles)]
    return setting.tiers[min(enough, key=setting.costs.__getitem__)]


def _sum(rows: Sequence[_Row]) -> _Sums:
    always = tuple(map(sum, zip(*(row.always for row in rows), strict=True)))
    return _Sums(len(rows), sum(row.quality for row in rows), sum(row.cost for row in rows), always)


def _savings(sums: _Sums, setting: _Setting) -> tuple[float, float]:
    """What routing saves, and what the best blind mix of its quality does; above all blind qualities, of the best."""
    dearest = max(setting.costs)
    singles = [total / sums.rows for total in sums.always]
    mixed = blind_mix_cost(singles, setting.costs, min(sums.quality / sums.rows, max(singles)))
    return 1 - sums.cost / sums.rows / dearest, 1 - (dearest if mixed is None else mixed) / dearest


def _interval(rows: Sequence[_Row], setting: _Setting) -> tuple[float, float]:
    """By resampling buckets of requests, so that a request's outcomes stay together and large files stay quick."""
    grouped: dict[int, list[_Row]] = defaultdict(list)
    for row in rows:
        grouped[row.bucket].append(row)
    sums = [_sum(of_bucket) for of_bucket in grouped.values()]
    dice = random.Random(1)  # noqa: S311 - resampling, not a secret
    gains = []
    for _ in range(_RESAMPLES):
        saved, blind_saved = _savings(_total(dice.choices(sums, k=len(sums))), setting)
        gains.append(saved - blind_saved)
    gains.sort()
    return gains[_RESAMPLES // 20], gains[-1 - _RESAMPLES // 20]


def _total(sums: Sequence[_Sums]) -> _Sums:
    rows, quality, cost, always = zip(*sums, strict=True)
    return _Sums(sum(rows), sum(quality), sum(cost), tuple(map(sum, zip(*always, strict=True))))
