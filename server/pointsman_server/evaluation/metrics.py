"""Figures of a ranking: prompts ordered by how much they need the stronger of two models.

Arrays have one number per prompt. `ranking` is the router's score, highest first to the strong model; prompts of
equal score go in random order, and every figure here is the exact mean over those orders. Qualities are 0..1, costs
are in any one unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_TOLERANCE = 1e-12
"""Sums of floats may miss the value they stand for by this much."""


class Pair(NamedTuple):
    """What two models achieved and cost on the same prompts."""

    weak: Floats
    strong: Floats
    weak_cost: Floats
    strong_cost: Floats


class Curve(NamedTuple):
    """Quality and cost by the share of prompts that go to the strong model; straight between the points."""

    share: Floats
    quality: Floats
    cost: Floats


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval."""

    low: float
    high: float


def trade_off(ranking: Floats, pair: Pair) -> Curve:
    """The curve from all weak to all strong, with one point after each group of equal scores; means per prompt."""
    order = np.argsort(-ranking, kind="stable")
    ends = np.append(_starts(ranking[order])[1:], len(order))
    return Curve(
        share=np.concatenate(([0.0], ends / len(order))),
        quality=_running_mean(pair.weak, (pair.strong - pair.weak)[order], ends),
        cost=_running_mean(pair.weak_cost, (pair.strong_cost - pair.weak_cost)[order], ends),
    )


def _starts(ordered: Floats) -> NDArray[np.intp]:
    """Where each group of equal values begins."""
    return np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))


def _running_mean(base: Floats, gains: Floats, ends: NDArray[np.intp]) -> Floats:
    return np.asarray(base.mean() + np.concatenate(([0.0], np.cumsum(gains)[ends - 1] / len(gains))))


def apgr(ranking: Floats, weak: Floats, strong: Floats) -> float | None:
    """Area under the recovered share of the quality gap; random is 0.5. None if the strong model is not better.

    A prompt that is sent at rank r of n is served strongly on a part 1 - (r - 1/2) / n of the axis; so the area is
    the mean of those parts, weighed by what each prompt gains.
    """
    gains = strong - weak
    if gains.sum() <= _TOLERANCE:
        return None
    order = np.argsort(-ranking, kind="stable")
    starts = _starts(ranking[order])
    return _area(np.ones(len(order)), gains[order], starts)


def _area(weights: Floats, gains: Floats, starts: NDArray[np.intp]) -> float:
    """The area for prompts that occur `weights` times each, ordered, in groups of equal rank."""
    sizes = np.add.reduceat(weights, starts)
    middles = np.cumsum(sizes) - sizes / 2
    gained = np.add.reduceat(weights * gains, starts)
    return float((gained * (1 - middles / sizes.sum())).sum() / gained.sum())


def apgr_interval(
    ranking: Floats, weak: Floats, strong: Floats, *, resamples: int = 1_000, seed: int = 1
) -> Interval | None:
    """Bootstrap 95 % interval of `apgr` over the prompts; None where most resamples show no gap to recover."""
    order = np.argsort(-ranking, kind="stable")
    starts, gains, count = _starts(ranking[order]), (strong - weak)[order], len(order)
    dice = np.random.default_rng(seed)
    areas = []
    for _ in range(resamples):
        weights = np.bincount(dice.integers(count, size=count), minlength=count).astype(np.float64)
        if (weights * gains).sum() > _TOLERANCE:
            areas.append(_area(weights, gains, starts))
    if len(areas) <= resamples / 2:
        return None
    low, high = np.quantile(areas, (0.025, 0.975))
    return Interval(float(low), float(high))


def share_reaching(curve: Curve, quality: float) -> float:
    """The smallest share of prompts sent to the strong model at which the curve has this quality; 1 if it never has."""
    reached = np.flatnonzero(curve.quality >= quality - _TOLERANCE)
    if not len(reached):
        return 1.0
    at = int(reached[0])
    if at == 0:
        return 0.0
    before, after = curve.quality[at - 1], curve.quality[at]
    part = min(max((quality - before) / (after - before), 0.0), 1.0)
    return float(curve.share[at - 1] + part * (curve.share[at] - curve.share[at - 1]))


def cpt(curve: Curve, recovered: float) -> float | None:
    """The smallest share sent to the strong model that recovers this part of the quality gap; None without a gap."""
    weak, strong = curve.quality[0], curve.quality[-1]
    if strong - weak <= _TOLERANCE:
        return None
    return share_reaching(curve, float(weak + recovered * (strong - weak)))


def saved_at(curve: Curve, kept: float) -> float:
    """Cost saved against all strong, 0..1, where the curve first has the part `kept` of the strong model's quality."""
    share = share_reaching(curve, float(kept * curve.quality[-1]))
    return float(1 - np.interp(share, curve.share, curve.cost) / curve.cost[-1])
