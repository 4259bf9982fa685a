from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import deployment, price, request, snapshot
from kit.properties import examples
from pointsman_server.decision.scoring import EXPECTED_OUTPUT_TOKENS, LEAST_USEFUL_OUTPUT_TOKENS, Costing, cost_of, rank
from pointsman_server.domain.catalog import Deployment, Rates
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.plan import ExclusionReason, Rejection, TokenEstimate
from pointsman_server.domain.request import GenerationConfig, RoutingConstraints, Tier

TOKENS = TokenEstimate(1_000, exact=False, upper_bound=2_000)
PRICE = price(1_000_000, 10_000_000)  # a micro-USD for each input token, ten for each output token


def costed(
    one: Deployment | None = None, *, cap: int | None = None, wanted: int | None = None, **changes: Any
) -> Costing | Rejection:
    asked = request(
        generation=GenerationConfig(max_output_tokens=wanted), constraints=RoutingConstraints(max_cost_micro_usd=cap)
    )
    return cost_of(
        one or deployment("one", of={"price": PRICE, **changes}),
        asked,
        snapshot(default_max_output_tokens=600),
        TOKENS,
    )


def fits(found: Costing | Rejection) -> Costing:
    assert isinstance(found, Costing)
    return found


class TestCost:
    def test_expected_and_worst(self) -> None:
        one = fits(costed())
        assert one.max_output_tokens == 600
        assert one.expected_cost_micro_usd == 1_000 + 10 * EXPECTED_OUTPUT_TOKENS
        assert one.worst_cost_micro_usd == 2_000 + 10 * 600

    @pytest.mark.parametrize(
        ("wanted", "changes", "most"),
        [
            (None, {}, 600),
            (50, {}, 50),
            (50_000, {}, 4_000),
            (50, {"max_output_tokens": 20}, 20),
            (600, {"context_window_tokens": 1_300}, 300),
            (600, {"context_window_tokens": 1_001}, 1),
        ],
    )
    def test_the_answer_is_as_long_as_wanted_possible_and_left(
        self, wanted: int | None, changes: dict[str, Any], most: int
    ) -> None:
        one = fits(costed(wanted=wanted, **changes))
        assert one.max_output_tokens == most
        assert one.expected_cost_micro_usd == 1_000 + 10 * min(most, EXPECTED_OUTPUT_TOKENS)

    def test_a_cap_shortens_the_answer(self) -> None:
        one = fits(costed(cap=2_500))
        assert one.max_output_tokens == 50
        assert one.worst_cost_micro_usd == 2_500

    @pytest.mark.parametrize(("cap", "room"), [(2_160, 16), (2_159, 15), (2_000, 0), (1_999, 0), (0, 0)])
    def test_a_cap_that_leaves_no_useful_answer_excludes(self, cap: int, room: int) -> None:
        found = costed(cap=cap)
        if room >= LEAST_USEFUL_OUTPUT_TOKENS:
            assert fits(found).max_output_tokens == room
        else:
            assert isinstance(found, Rejection)
            assert found.reason is ExclusionReason.COST
            assert f"{cap} micro-USD of max_cost_micro_usd" in found.detail

    def test_a_short_answer_that_was_wanted_short_is_useful(self) -> None:
        assert fits(costed(cap=2_030, wanted=3)).max_output_tokens == 3
        assert isinstance(costed(cap=2_029, wanted=3), Rejection)

    def test_the_room_left_in_the_window_does_not_change_what_is_useful(self) -> None:
        for window in (1_005, 1_010, 100_000):
            assert isinstance(costed(cap=2_080, context_window_tokens=window), Rejection)

    def test_what_is_free_fits_any_cap(self) -> None:
        one = fits(costed(cap=0, price=price(0, 0)))
        assert (one.max_output_tokens, one.worst_cost_micro_usd) == (600, 0)

    def test_a_fee_counts(self) -> None:
        dear = price(0, 0, per_request_micro_usd=5)
        assert isinstance(costed(cap=4, price=dear), Rejection)
        assert fits(costed(cap=5, price=dear)).worst_cost_micro_usd == 5

    def test_the_step_of_the_most_input_possible_counts(self) -> None:
        steps = ((0, Rates(0, 0, 0, 0)), (1_500, Rates(0, 10_000_000, 0, 0)))
        one = fits(costed(cap=1_000, price=price(steps=steps)))
        assert one.max_output_tokens == 100
        assert (one.expected_cost_micro_usd, one.worst_cost_micro_usd) == (0, 1_000)


def listed(*names: str, tier: Tier = Tier.STANDARD) -> dict[str, Any]:
    return {"tier_chains": {tier: names}}


def place(name: str, tier: Tier = Tier.STANDARD, *, quality: float = 0.5, cost: int = 10) -> Costing:
    return Costing(deployment(name, of={"tier": tier, "quality": quality}), 100, cost, 2 * cost)


def order(*costings: Costing, bias: float | None = None, judged: Tier = Tier.STANDARD, **policy: Any) -> list[str]:
    asked = replace(request(), quality_bias=bias, tier=policy.pop("asked_tier", None))
    ranked = rank(list(costings), asked, snapshot(**policy), judged, HealthView())
    assert [one.score for one in ranked] == sorted((one.score for one in ranked), reverse=True)
    for one in ranked:
        assert one.score == pytest.approx(sum(part.value for part in one.score_parts), abs=1e-6)
    return [one.deployment.id for one in ranked]


class TestRank:
    def test_the_judged_tier_then_stronger_then_weaker(self) -> None:
        light, standard, advanced = place("l", Tier.LIGHT), place("s"), place("a", Tier.ADVANCED)
        assert order(light, standard, advanced) == ["s", "a", "l"]
        assert order(light, standard, advanced, judged=Tier.LIGHT) == ["l", "a", "s"]
        assert order(light, standard, advanced, judged=Tier.ADVANCED) == ["a", "l", "s"]

    def test_a_tier_asked_for_goes_before_the_judged_one(self) -> None:
        assert order(place("s"), place("a", Tier.ADVANCED), asked_tier=Tier.ADVANCED) == ["a", "s"]

    def test_price_decides_without_a_bias(self) -> None:
        good, cheap = place("good", quality=1.0, cost=20), place("cheap", quality=0.1, cost=10)
        assert order(good, cheap) == ["cheap", "good"]
        assert order(good, cheap, bias=1.0) == ["good", "cheap"]
        assert order(good, cheap, quality_bias=1.0) == ["good", "cheap"]
        assert order(good, cheap, bias=0.0, quality_bias=1.0) == ["cheap", "good"]

    def test_a_bias_between_trades_one_for_the_other(self) -> None:
        good, cheap = place("good", quality=0.9, cost=20), place("cheap", quality=0.5, cost=15)
        assert order(good, cheap, bias=0.3) == ["cheap", "good"]
        assert order(good, cheap, bias=0.5) == ["good", "cheap"]

    def test_a_chain_keeps_its_order_whatever_the_price(self) -> None:
        members = [place("a", cost=30), place("b", cost=20), place("c", Tier.LIGHT, cost=10)]
        assert order(*members, **listed("a", "c", "b")) == ["a", "c", "b"]

    def test_deployments_of_the_tier_that_are_not_listed_come_after_the_chain(self) -> None:
        chain = [place(name, quality=0.0, cost=100) for name in ("a", "b", "c", "d")]
        best = place("best", quality=1.0, cost=0)
        assert order(best, *chain, bias=1.0, **listed("a", "b", "c", "d")) == ["a", "b", "c", "d", "best"]

    def test_the_chain_of_another_tier_means_nothing(self) -> None:
        assert order(place("dear", cost=20), place("cheap"), **listed("dear", tier=Tier.LIGHT)) == ["cheap", "dear"]

    def test_ties_go_by_id(self) -> None:
        assert order(place("b"), place("c"), place("a")) == ["a", "b", "c"]

    def test_free_ones_alone(self) -> None:
        assert order(place("b", cost=0), place("a", cost=0)) == ["a", "b"]

    def test_the_parts_of_a_score_are_named(self) -> None:
        asked = replace(request(), quality_bias=0.5)
        first, second = rank(
            [place("a"), place("b", cost=20)], asked, snapshot(**listed("a")), Tier.STANDARD, HealthView()
        )
        assert [(part.name, part.value) for part in first.score_parts] == [("tier_fit", 2.0), ("chain_position", 2.0)]
        assert [(part.name, part.value) for part in second.score_parts] == [
            ("tier_fit", 2.0),
            ("quality", 0.125),
            ("price", -0.25),
        ]


NAMES = ("alder", "birch", "cedar", "elm", "fir")
places = st.builds(
    place,
    st.sampled_from(NAMES),
    st.sampled_from(Tier),
    quality=st.integers(0, 100).map(lambda percent: percent / 100),
    cost=st.integers(0, 100_000),
)
many = st.lists(places, min_size=1, max_size=5, unique_by=lambda one: one.deployment.id)
ROUNDING = 2e-6


class TestRankProperties:
    @examples(80)
    @given(many, st.floats(0, 1), st.sampled_from(Tier))
    def test_the_wanted_tier_then_stronger_then_weaker(self, found: list[Costing], bias: float, tier: Tier) -> None:
        by_id = {one.deployment.id: one.deployment.model.tier for one in found}
        bands = [
            0 if by_id[name] is tier else 1 if by_id[name] > tier else 2
            for name in order(*found, bias=bias, judged=tier)
        ]
        assert bands == sorted(bands)

    @examples(80)
    @given(many, st.sampled_from(Tier))
    def test_without_bias_price_orders_a_tier(self, found: list[Costing], tier: Tier) -> None:
        cost = {one.deployment.id: one.expected_cost_micro_usd for one in found}
        dearest = max(cost.values()) or 1
        for first, second in _neighbours(found, order(*found, bias=0.0, judged=tier)):
            assert cost[first] <= cost[second] + ROUNDING * dearest

    @examples(80)
    @given(many, st.sampled_from(Tier))
    def test_with_full_bias_quality_orders_a_tier(self, found: list[Costing], tier: Tier) -> None:
        quality = {one.deployment.id: one.deployment.model.quality for one in found}
        for first, second in _neighbours(found, order(*found, bias=1.0, judged=tier)):
            assert quality[first] >= quality[second]

    @examples(80)
    @given(many, st.floats(0, 1), st.permutations(NAMES), st.integers(1, 5))
    def test_chains_keep_their_order_and_come_first(
        self, found: list[Costing], bias: float, names: list[str], length: int
    ) -> None:
        chain = names[:length]
        ranked = order(*found, bias=bias, **listed(*chain))
        present = [name for name in chain if name in ranked]
        assert ranked[: len(present)] == present

    @examples(50)
    @given(many, st.floats(0, 1), st.sampled_from(Tier))
    def test_nobody_is_lost_and_nothing_but_the_score_changes(
        self, found: list[Costing], bias: float, tier: Tier
    ) -> None:
        ranked = rank(found, replace(request(), quality_bias=bias), snapshot(), tier, HealthView())
        kept = {
            one.deployment.id: (one.max_output_tokens, one.expected_cost_micro_usd, one.worst_cost_micro_usd)
            for one in ranked
        }
        assert kept == {one.deployment.id: tuple(one[1:]) for one in found}


def _neighbours(found: list[Costing], ranked: list[str]) -> list[tuple[str, str]]:
    """Neighbours of the same tier, in ranked order."""
    tiers = {one.deployment.id: one.deployment.model.tier for one in found}
    return [(first, second) for first, second in pairwise(ranked) if tiers[first] is tiers[second]]
