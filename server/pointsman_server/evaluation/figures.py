"""Figures that need no numpy: ranks, intervals, calibration error, and the blind mix."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import correlation

_TOLERANCE = 1e-12
"""Sums of floats may miss the value they stand for by this much."""

_Z = 1.959964
"""Standard deviations either side of the mean that hold 95 % of a normal distribution."""


def mean_ranks(values: Sequence[float]) -> list[float]:
    """The rank of each value from 1, lowest first; equal values share the mean of their ranks."""
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0.0] * len(values)
    begin = 0
    while begin < len(order):
        end = begin
        while end < len(order) and values[order[end]] == values[order[begin]]:
            end += 1
        for place in order[begin:end]:
            ranks[place] = (begin + 1 + end) / 2
        begin = end
    return ranks


def rank_correlation(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Spearman's correlation, -1..1; None where one side is all the same."""
    if len(set(left)) < 2 or len(set(right)) < 2:
        return None
    return correlation(mean_ranks(left), mean_ranks(right))


def wilson_interval(hits: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share, by E. B. Wilson (1927); (0, 1) without trials."""
    if not trials:
        return 0.0, 1.0
    share, spread = hits / trials, _Z * _Z / trials
    middle = (share + spread / 2) / (1 + spread)
    half = _Z / (1 + spread) * math.sqrt(share * (1 - share) / trials + spread / (4 * trials))
    return max(0.0, middle - half), min(1.0, middle + half)


def expected_calibration_error(probabilities: Sequence[float], outcomes: Sequence[float], *, bins: int = 10) -> float:
    """Mean distance of stated probability and mean outcome over bins of equal width, weighed by their sizes."""
    distances = [0.0] * bins
    for probability, outcome in zip(probabilities, outcomes, strict=True):
        distances[min(int(probability * bins), bins - 1)] += probability - outcome
    return sum(map(abs, distances)) / len(outcomes)


def blind_mix_cost(qualities: Sequence[float], costs: Sequence[float], quality: float) -> float | None:
    """The lowest mean cost at which models chosen by lot, whatever the prompt, have this quality; None if none can.

    The cheapest lot needs at most two models: it lies on an edge of the convex hull of (cost, quality).
    """
    models = sorted(zip(qualities, costs, strict=True))
    enough = [cost for reached, cost in models if reached >= quality - _TOLERANCE]
    for low_quality, low_cost in models:
        for high_quality, high_cost in models:
            if low_quality < quality <= high_quality + _TOLERANCE and high_quality > low_quality:
                part = min((quality - low_quality) / (high_quality - low_quality), 1.0)
                enough.append(low_cost + part * (high_cost - low_cost))
    return min(enough, default=None)
