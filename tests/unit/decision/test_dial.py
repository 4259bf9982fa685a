from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.decision.dial import LEAST_WEIGHT, MOST_WEIGHT, STEPS, Judged, Offer, cost_weight, solve_weights
from pointsman_server.decision.quality import quality_at
from pointsman_server.domain.request import Tier

CHEAP, MIDDLE, BEST = Offer(0.4, 0.02, Tier.LIGHT), Offer(0.65, 0.2, Tier.STANDARD), Offer(0.9, 1.0, Tier.ADVANCED)
OFFERS = (CHEAP, MIDDLE, BEST)
JUDGED = [Judged(place / 10 - 3.0, 1.0, Tier(1 + place // 20)) for place in range(60)]
offers = st.lists(st.builds(Offer, st.floats(0, 1), st.floats(0, 1.5), st.sampled_from(Tier)), min_size=1, max_size=5)
calibration = st.lists(
    st.builds(Judged, st.floats(-5, 5), st.floats(0, 3), st.sampled_from(Tier)), min_size=1, max_size=8
)


def picks(found: Sequence[Offer], judged: Sequence[Judged], weight: float) -> list[tuple[Offer, float]]:
    """The choice for every request of the calibration set, in the plainest words."""
    chosen = []
    for difficulty, discrimination, tier in judged:
        strong = [one for one in found if one.tier >= tier] or list(found)
        qualities = [quality_at(one.quality, difficulty, discrimination) for one in strong]
        worth = [
            ((1 - weight) * quality - weight * one.cost_share, quality, one)
            for quality, one in zip(qualities, strong, strict=True)
        ]
        _, quality, best = max(worth)
        chosen.append((best, quality))
    return chosen


def kept(found: Sequence[Offer], judged: Sequence[Judged], weight: float) -> float:
    return sum(quality for _, quality in picks(found, judged, weight))


class TestWeightOfCost:
    def test_without_solved_weights_it_falls_linearly(self) -> None:
        assert cost_weight((), 0.0) == pytest.approx(MOST_WEIGHT)
        assert cost_weight((), 0.5) == pytest.approx((MOST_WEIGHT + LEAST_WEIGHT) / 2)
        assert cost_weight((), 1.0) == pytest.approx(LEAST_WEIGHT)

    @pytest.mark.parametrize(("bias", "weight"), [(0.0, 0.9), (0.25, 0.7), (0.5, 0.5), (0.75, 0.3), (1.0, 0.1)])
    def test_between_solved_weights_it_is_interpolated(self, bias: float, weight: float) -> None:
        assert cost_weight((0.9, 0.5, 0.1), bias) == pytest.approx(weight)

    @examples(150)
    @given(st.lists(st.floats(0.001, 0.999), min_size=2, max_size=21), st.floats(0, 1), st.floats(0, 1))
    def test_it_never_rises_with_the_dial(self, weights: list[float], one: float, other: float) -> None:
        weights.sort(reverse=True)
        assert cost_weight(weights, max(one, other)) <= cost_weight(weights, min(one, other)) + 1e-12


class TestSolved:
    WEIGHTS = solve_weights(OFFERS, JUDGED)

    def test_there_is_one_for_each_step(self) -> None:
        assert len(self.WEIGHTS) == STEPS + 1
        assert self.WEIGHTS[0] == MOST_WEIGHT

    def test_at_nought_the_cheapest_that_is_strong_enough_is_picked(self) -> None:
        found = [one for one, _ in picks(OFFERS, JUDGED, self.WEIGHTS[0])]
        assert found == [{Tier.LIGHT: CHEAP, Tier.STANDARD: MIDDLE, Tier.ADVANCED: BEST}[tier] for _, _, tier in JUDGED]

    def test_at_one_the_best_is_picked(self) -> None:
        assert {one for one, _ in picks(OFFERS, JUDGED, self.WEIGHTS[-1])} == {BEST}

    def test_between_them_the_stated_share_of_quality_is_kept_and_hardly_more_is_spent(self) -> None:
        least, most = (kept(OFFERS, JUDGED, weight) for weight in (MOST_WEIGHT, LEAST_WEIGHT))
        for step, weight in enumerate(self.WEIGHTS[:-1]):
            share = (kept(OFFERS, JUDGED, weight) - least) / (most - least)
            assert share >= step / STEPS - 1e-9
            assert weight == MOST_WEIGHT or kept(OFFERS, JUDGED, weight + 2e-5) - least < step / STEPS * (most - least)

    def test_where_nobody_is_strong_enough_all_are_compared(self) -> None:
        weights = solve_weights((CHEAP, Offer(0.6, 0.5, Tier.LIGHT)), [Judged(2.0, 1.0, Tier.ADVANCED)])
        assert weights[0] == MOST_WEIGHT > weights[-1]

    def test_one_offer_leaves_nothing_to_weigh(self) -> None:
        assert set(solve_weights((BEST,), JUDGED)[:-1]) == {MOST_WEIGHT}

    def test_at_one_quality_has_all_the_weight_it_can_even_if_less_did_for_the_calibration_set(self) -> None:
        alike = [Judged(0.0, 1.0, Tier.LIGHT)]
        weights = solve_weights(OFFERS, alike)
        assert weights[-1] == LEAST_WEIGHT < weights[-2]
        hard = Judged(6.0, 1.0, Tier.ADVANCED)
        assert [one for one, _ in picks(OFFERS, [hard], weights[-1])] == [BEST]

    @examples(100)
    @given(offers, calibration)
    def test_weights_fall_and_stay_within_their_range(self, found: list[Offer], judged: list[Judged]) -> None:
        weights = solve_weights(found, judged)
        assert all(LEAST_WEIGHT <= after <= before <= MOST_WEIGHT for before, after in pairwise(weights))

    @examples(100)
    @given(offers, calibration)
    def test_quality_kept_is_at_least_what_is_asked(self, found: list[Offer], judged: list[Judged]) -> None:
        weights = solve_weights(found, judged)
        least, most = (kept(found, judged, weight) for weight in (MOST_WEIGHT, LEAST_WEIGHT))
        for step, weight in enumerate(weights):
            assert kept(found, judged, weight) >= least + (most - least) * step / STEPS - 1e-9
