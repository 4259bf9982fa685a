"""The dial: how much cost weighs against quality, so that a stated share of the attainable quality is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from pointsman_server.decision.quality import quality_at
from pointsman_server.domain.request import Tier

STEPS = 20
"""The dial is solved at this many equal steps between 0 and 1 and interpolated between them."""

LEAST_WEIGHT, MOST_WEIGHT = 0.001, 0.999
"""Range of the weight of cost; quality has the rest. Neither is ever without weight, so that it parts equals."""

_HALVINGS = 20
_ROUNDING = 100_000


class Offer(NamedTuple):
    """A model as the dial sees it: its quality and tier, and its cost as a share of what the strongest costs."""

    quality: float
    cost_share: float
    tier: Tier


def cost_weight(weights: Sequence[float], quality_bias: float) -> float:
    """The weight of cost at this setting of the dial; without solved weights, falling linearly."""
    if not weights:
        return MOST_WEIGHT + (LEAST_WEIGHT - MOST_WEIGHT) * quality_bias
    place = quality_bias * (len(weights) - 1)
    below = min(int(place), len(weights) - 2)
    part = place - below
    return weights[below] * (1.0 - part) + weights[below + 1] * part


class Judged(NamedTuple):
    """A request of the calibration set as the dial sees it."""

    difficulty: float
    discrimination: float
    tier: Tier


def solve_weights(offers: Sequence[Offer], judged: Sequence[Judged]) -> tuple[float, ...]:
    """The weight of cost at each step of the dial, falling.

    `judged` is a calibration set. At 0 the cheapest model that is strong enough is chosen, at 1 the best, for any
    request; between them the weight is the highest with which the choices `max((1 - weight) * quality - weight *
    cost)` keep, on average, that share of the quality that lies between the two.
    """
    table = [_row(offers, request) for request in judged]
    least, most = _quality_kept(table, MOST_WEIGHT), _quality_kept(table, LEAST_WEIGHT)
    weights = [MOST_WEIGHT]
    for step in range(1, STEPS):
        wanted = least + (most - least) * step / STEPS
        weights.append(_highest_weight(table, wanted, weights[-1]))
    return (*weights, LEAST_WEIGHT)


_Row = Sequence[tuple[float, float]]


def _row(offers: Sequence[Offer], request: Judged) -> _Row:
    strong_enough = [offer for offer in offers if offer.tier >= request.tier] or offers
    difficulty, discrimination = request.difficulty, request.discrimination
    return [(quality_at(offer.quality, difficulty, discrimination), offer.cost_share) for offer in strong_enough]


def _highest_weight(table: Sequence[_Row], wanted: float, ceiling: float) -> float:
    if _quality_kept(table, ceiling) >= wanted:
        return ceiling
    low, high = LEAST_WEIGHT, ceiling
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _quality_kept(table, middle) >= wanted:
            low = middle
        else:
            high = middle
    return max(LEAST_WEIGHT, math.floor(low * _ROUNDING) / _ROUNDING)  # rounded up it would keep less than wanted


def _quality_kept(table: Sequence[_Row], weight: float) -> float:
    rest = 1.0 - weight
    return sum([max([(rest * quality - weight * cost, quality) for quality, cost in row])[1] for row in table])
