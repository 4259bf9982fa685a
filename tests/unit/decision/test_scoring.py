from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import EVERYTHING, circumstances, deployment, judged, price, snapshot
from kit.properties import examples
from pointsman_server.decision.rules import Wishes
from pointsman_server.decision.scoring import (
    AFFINITY_SHARE,
    CHAIN_STEP,
    EXPECTED_OUTPUT_TOKENS,
    LEAST_USEFUL_OUTPUT_TOKENS,
    MOST_COST_SHARE,
    RULE_STEP,
    SEARCH_STEP,
    TIER_STEP,
    Costing,
    cost_of,
    rank,
)
from pointsman_server.domain.catalog import Deployment, Rates
from pointsman_server.domain.experience import Experience, Verdicts
from pointsman_server.domain.health import PRIOR_ANSWERS, HealthView, Observed
from pointsman_server.domain.plan import Candidate, ExclusionReason, Rejection, TokenEstimate
from pointsman_server.domain.request import Capability, RoutingConstraints, Tier

TOKENS = TokenEstimate(1_000, exact=False, upper_bound=2_000)
PRICE = price(1_000_000, 10_000_000)  # a micro-USD for each input token, ten for each output token
EXPECTED = EXPECTED_OUTPUT_TOKENS[Tier.STANDARD]


def costed(
    one: Deployment | None = None,
    *,
    cap: int | None = None,
    wanted: int | None = None,
    tier: Tier = Tier.STANDARD,
    **changes: Any,
) -> Costing | Rejection:
    asked = circumstances(
        tokens=TOKENS, max_output_tokens=wanted, constraints=RoutingConstraints(max_cost_micro_usd=cap)
    )
    found = one or deployment("one", of={"price": PRICE, **changes})
    return cost_of(found, asked, snapshot(default_max_output_tokens=600), tier)


def fits(found: Costing | Rejection) -> Costing:
    assert isinstance(found, Costing)
    return found


class TestCost:
    def test_expected_and_worst(self) -> None:
        one = fits(costed())
        assert one.max_output_tokens == 600
        assert one.expected_cost_micro_usd == 1_000 + 10 * EXPECTED
        assert one.worst_cost_micro_usd == 2_000 + 10 * 600

    @pytest.mark.parametrize("tier", Tier)
    def test_the_expected_answer_is_as_long_as_the_tier_is_hard(self, tier: Tier) -> None:
        one = fits(costed(tier=tier, wanted=4_000))
        assert one.expected_cost_micro_usd == 1_000 + 10 * EXPECTED_OUTPUT_TOKENS[tier]

    @pytest.mark.parametrize(
        ("wanted", "changes", "most"),
        [
            (None, {}, 600),
            (50, {}, 50),
            (50_000, {}, 4_000),
            (50, {"max_output_tokens": 20}, 20),
        ],
    )
    def test_the_answer_is_as_long_as_wanted_and_possible(
        self, wanted: int | None, changes: dict[str, Any], most: int
    ) -> None:
        one = fits(costed(wanted=wanted, **changes))
        assert one.max_output_tokens == most
        assert one.expected_cost_micro_usd == 1_000 + 10 * min(most, EXPECTED)

    @pytest.mark.parametrize(("window", "left"), [(1_300, 300), (1_001, 1)])
    def test_the_room_that_is_left_bounds_the_answer_and_does_not_make_it_look_cheap(
        self, window: int, left: int
    ) -> None:
        one = fits(costed(wanted=600, context_window_tokens=window))
        assert (one.max_output_tokens, one.worst_cost_micro_usd) == (left, 2_000 + 10 * left)
        assert one.expected_cost_micro_usd == 1_000 + 10 * EXPECTED

    def test_a_cap_shortens_the_answer_and_does_not_make_it_look_cheap(self) -> None:
        one = fits(costed(cap=2_500))
        assert one.max_output_tokens == 50
        assert one.worst_cost_micro_usd == 2_500
        assert one.expected_cost_micro_usd == 1_000 + 10 * EXPECTED

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


MEASURE = deployment("measure", of={"quality": 1.0, "price": price(0, 0, per_request_micro_usd=1_000)})
"""The strongest of every policy here: with what it costs, a cost in micro-USD is in thousandths of the measure."""


def place(name: str, tier: Tier = Tier.STANDARD, *, quality: float = 0.5, cost: int = 100, **changes: Any) -> Costing:
    return Costing(deployment(name, of={"tier": tier, "quality": quality, **changes}), 100, cost, 2 * cost)


def ranked(
    *costings: Costing,
    bias: float = 0.5,
    tier: Tier = Tier.STANDARD,
    wishes: dict[str, Any] | None = None,
    under: dict[str, Any] | None = None,
    **policy: Any,
) -> tuple[Candidate, ...]:
    """`wishes` and `under` change what is wanted and the circumstances."""
    found = rank(
        list(costings),
        circumstances(**{"complexity": judged(Tier.STANDARD), **(under or {})}),
        Wishes(tier=tier, quality_bias=bias, **(wishes or {})),
        snapshot(MEASURE, *(one.deployment for one in costings), **policy),
    )
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    for one in found:
        assert one.score == pytest.approx(sum(part.value for part in one.score_parts))
    return found


def order(*costings: Costing, **asked: Any) -> list[str]:
    return [one.deployment.id for one in ranked(*costings, **asked)]


def parts(one: Candidate) -> dict[str, Any]:
    return {part.name: pytest.approx(part.value) for part in one.score_parts}


def chain(*names: str, tier: Tier = Tier.STANDARD) -> dict[str, Any]:
    return {"tier_chains": {tier: names}}


class TestTier:
    def test_the_tier_is_a_floor(self) -> None:
        light, standard, advanced = place("l", Tier.LIGHT), place("s"), place("a", Tier.ADVANCED)
        assert order(light, standard, advanced) == ["a", "s", "l"]
        assert order(light, standard, advanced, tier=Tier.LIGHT) == ["a", "l", "s"]
        assert order(light, standard, advanced, tier=Tier.ADVANCED) == ["a", "s", "l"]

    @pytest.mark.parametrize("bias", [0.0, 0.5, 1.0])
    def test_neither_price_nor_quality_makes_a_weaker_tier_good(self, bias: float) -> None:
        free_and_good = place("l", Tier.LIGHT, quality=0.99, cost=0)
        assert order(free_and_good, place("a", Tier.ADVANCED, quality=0.01, cost=99_999), bias=bias) == ["a", "l"]

    def test_a_stronger_one_that_is_cheaper_is_taken(self) -> None:
        assert order(place("s", cost=200), place("a", Tier.ADVANCED, cost=100), bias=0.0) == ["a", "s"]


class TestDial:
    def test_at_its_ends_price_or_quality_decides(self) -> None:
        good, cheap = place("good", quality=0.9, cost=200), place("cheap", quality=0.4, cost=100)
        assert order(good, cheap, bias=0.0) == ["cheap", "good"]
        assert order(good, cheap, bias=1.0) == ["good", "cheap"]

    def test_between_them_one_is_traded_for_the_other(self) -> None:
        # Half a quality more for 0.6 of the measure more: worth it as long as cost weighs less than 5/11.
        good, cheap = place("good", quality=0.9, cost=700), place("cheap", quality=0.4, cost=100)
        assert order(good, cheap, cost_weights=(0.5, 0.4), bias=0.0) == ["cheap", "good"]
        assert order(good, cheap, cost_weights=(0.5, 0.4), bias=1.0) == ["good", "cheap"]

    def test_equals_go_by_id(self) -> None:
        assert order(place("b"), place("c"), place("a")) == ["a", "b", "c"]
        assert order(place("b", cost=0), place("a", cost=0)) == ["a", "b"]

    def test_the_parts_of_a_score_are_named(self) -> None:
        (one,) = ranked(place("a", cost=300, quality=0.8), bias=0.25, cost_weights=(0.8, 0.0))
        assert parts(one) == {"quality": 0.4 * 0.8, "cost": -0.6 * 0.3, "first_token": -0.6 * 0.02 * 1.0}

    def test_a_policy_of_free_models_can_be_measured(self) -> None:
        free = Costing(deployment("a", of={"price": price(0, 0)}), 100, 0, 0)
        (one,) = rank([free], circumstances(), Wishes(Tier.LIGHT, 0.0), snapshot(free.deployment))
        assert parts(one)["cost"] == 0.0


class TestCircumstances:
    def test_the_slower_of_equals_comes_last(self) -> None:
        slow = HealthView(observed={"a": Observed(1_000.0, 6.0, 9.0, 1_000.0, 0.0)})
        assert order(place("a"), place("b"), under={"health": slow}) == ["b", "a"]
        assert order(place("a"), place("b"), under={"health": slow}, first_token_weight=0.0) == ["a", "b"]

    def test_the_expected_latency_is_told(self) -> None:
        seen = HealthView(observed={"a": Observed(PRIOR_ANSWERS, 0.5, 0.9, PRIOR_ANSWERS, 0.0)})
        (one,) = ranked(place("a"), under={"health": seen})
        assert one.expected_first_token_seconds == 0.75

    def test_the_one_that_fails_often_comes_last(self) -> None:
        failing = HealthView(observed={"a": Observed(50.0, 1.0, 1.0, 100.0, 50.0)})
        found = ranked(place("a"), place("b"), under={"health": failing})
        assert [one.deployment.id for one in found] == ["b", "a"]
        assert [set(parts(one)) - {"quality", "cost", "first_token"} for one in found] == [set(), {"errors"}]

    def test_verdicts_count(self) -> None:
        bad = Experience({"a-model": Verdicts(0.0, 40.0)})
        found = ranked(place("a"), place("b"), under={"experience": bad})
        assert [one.deployment.id for one in found] == ["b", "a"]
        assert found[1].expected_quality == pytest.approx(0.5 / 3)


class TestAffinity:
    def test_the_last_turns_deployment_wins_among_near_equals(self) -> None:
        assert order(place("a"), place("b"), under={"session": "b"}) == ["b", "a"]
        assert order(place("a", cost=100), place("b", cost=140), under={"session": "b"}, bias=0.0) == ["b", "a"]
        assert order(place("a", cost=100), place("b", cost=160), under={"session": "b"}, bias=0.0) == ["a", "b"]

    def test_what_its_provider_has_cached_is_cheaper(self) -> None:
        rates = Rates(input=1_000_000, output=0, cached_input=250_000, cache_write_input=1_000_000)
        one = place("a", cost=100, price=price(steps=((0, rates),)))
        (found,) = ranked(one, bias=0.0, under={"session": "a", "tokens": TokenEstimate(80, True, 100)})
        weight = 0.999
        assert parts(found)["cost"] == -weight * 0.04  # 80 tokens at three quarters less
        assert parts(found)["affinity"] == weight * AFFINITY_SHARE

    def test_it_does_not_outweigh_a_tier(self) -> None:
        under = {"session": "l"}
        assert order(place("l", Tier.LIGHT), place("s", cost=2_000), under=under) == ["s", "l"]

    def test_one_that_is_not_there_changes_nothing(self) -> None:
        assert ranked(place("a"), under={"session": "gone"}) == ranked(place("a"))


class TestSteps:
    def test_a_chain_keeps_its_order_whatever_price_and_tier(self) -> None:
        members = [place("a", cost=300), place("b", cost=200), place("c", Tier.LIGHT, cost=100)]
        assert order(*members, **chain("a", "c", "b")) == ["a", "c", "b"]

    def test_those_that_are_not_listed_come_after_the_chain(self) -> None:
        links = [place(name, Tier.LIGHT, quality=0.01, cost=9_999) for name in ("a", "b", "c", "d")]
        best = place("best", quality=0.99, cost=0)
        assert order(best, *links, bias=1.0, **chain("a", "b", "c", "d")) == ["a", "b", "c", "d", "best"]

    def test_the_chain_of_another_tier_means_nothing(self) -> None:
        assert order(place("dear", cost=200), place("cheap"), bias=0.0, **chain("dear", tier=Tier.LIGHT)) == [
            "cheap",
            "dear",
        ]

    def test_who_can_search_comes_first_when_that_is_wanted(self) -> None:
        blind = place("a", capabilities=EVERYTHING - {Capability.WEB_SEARCH})
        searching = place("b", Tier.LIGHT, quality=0.01, cost=9_999)
        assert order(blind, searching, **chain("a")) == ["a", "b"]
        assert order(blind, searching, wishes={"prefers_search": True}, **chain("a")) == ["b", "a"]

    def test_what_rules_prefer_comes_before_everything_in_their_order(self) -> None:
        costings = [place("a"), place("b", Tier.LIGHT, cost=9_999, capabilities=frozenset()), place("c"), place("d")]
        wishes = {"prefers_search": True, "preferred": ("c", "b")}
        assert order(*costings, wishes=wishes, **chain("a", "d")) == ["c", "b", "a", "d"]

    def test_every_step_is_named_with_its_size(self) -> None:
        one = place("a", Tier.LIGHT)
        wishes = {"prefers_search": True, "preferred": ("x", "a")}
        (found,) = ranked(one, tier=Tier.ADVANCED, wishes=wishes, **chain("x", "y", "a", tier=Tier.ADVANCED))
        assert {name: value for name, value in parts(found).items() if name in STEPS} == {
            "tier_below": 2 * TIER_STEP,
            "chain_position": CHAIN_STEP,
            "fresh_facts": SEARCH_STEP,
            "rule_preference": RULE_STEP,
        }


STEPS = ("tier_below", "chain_position", "fresh_facts", "rule_preference")
NAMES = ("alder", "birch", "cedar", "elm", "fir")
places = st.builds(
    place,
    st.sampled_from(NAMES),
    st.sampled_from(Tier),
    quality=st.integers(0, 99).map(lambda percent: percent / 100),
    cost=st.integers(0, 100_000),
    capabilities=st.sampled_from((EVERYTHING, frozenset())),
)
many = st.lists(places, min_size=1, max_size=5, unique_by=lambda one: one.deployment.id)
some_names = st.lists(st.sampled_from(NAMES), max_size=5, unique=True).map(tuple)
seen = st.builds(
    Observed,
    st.floats(0, 1e6),
    st.floats(0, 200),
    st.just(0.0),
    attempts=st.just(1e6),
    failures=st.floats(0, 1e6),
)
anything = st.fixed_dictionaries(
    {
        "health": st.dictionaries(st.sampled_from(NAMES), seen, max_size=3).map(lambda them: HealthView(observed=them)),
        "session": st.sampled_from(("", *NAMES)),
        "complexity": st.builds(
            judged, st.sampled_from(Tier), difficulty=st.floats(-5, 5), discrimination=st.floats(0, 3)
        ),
        "experience": st.dictionaries(st.sampled_from([f"{name}-model" for name in NAMES]), st.floats(0, 40)).map(
            lambda them: Experience({name: Verdicts(total, 40.0) for name, total in them.items()})
        ),
    }
)


class TestProperties:
    @examples(150)
    @given(many, anything, some_names, some_names, st.booleans(), st.floats(0, 1), st.sampled_from(Tier))
    def test_each_step_is_too_large_for_all_below_it_to_make_good(
        self,
        costings: list[Costing],
        under: dict[str, Any],
        links: tuple[str, ...],
        preferred: tuple[str, ...],
        search: bool,
        bias: float,
        tier: Tier,
    ) -> None:
        wishes = {"preferred": preferred, "prefers_search": search}

        def rung(one: Candidate) -> tuple[int, bool, int, int]:
            model, name = one.deployment.model, one.deployment.id
            return (
                len(preferred) - preferred.index(name) if name in preferred else 0,
                search and Capability.WEB_SEARCH in model.capabilities,
                len(links) - links.index(name) if name in links else 0,
                min(0, model.tier - tier),
            )

        rungs = [
            rung(one)
            for one in ranked(*costings, bias=bias, tier=tier, wishes=wishes, under=under, **chain(*links, tier=tier))
        ]
        assert rungs == sorted(rungs, reverse=True)

    @examples(100)
    @given(many, anything, st.floats(0, 1), st.floats(0, 1))
    def test_what_is_no_step_is_smaller_than_the_smallest_step(
        self, costings: list[Costing], under: dict[str, Any], bias: float, weight: float
    ) -> None:
        for one in ranked(*costings, bias=bias, under=under, first_token_weight=weight):
            rest = sum(part.value for part in one.score_parts if part.name not in STEPS)
            assert -2 * MOST_COST_SHARE - 1.0 <= rest <= 1.0 + AFFINITY_SHARE
            assert 2 * MOST_COST_SHARE + 2.0 + AFFINITY_SHARE < -TIER_STEP

    @examples(80)
    @given(many)
    def test_at_nought_price_orders_a_tier(self, costings: list[Costing]) -> None:
        shares = {one.deployment.id: min(one.expected_cost_micro_usd / 1_000, MOST_COST_SHARE) for one in costings}
        for first, second in _neighbours(ranked(*costings, bias=0.0, first_token_weight=0.0)):
            assert shares[first.deployment.id] <= shares[second.deployment.id] + 0.002

    @examples(80)
    @given(many)
    def test_at_one_quality_orders_a_tier(self, costings: list[Costing]) -> None:
        for first, second in _neighbours(ranked(*costings, bias=1.0)):
            assert first.expected_quality >= second.expected_quality - 0.003

    @examples(50)
    @given(many, st.floats(0, 1), st.sampled_from(Tier))
    def test_nobody_is_lost_and_nothing_but_the_score_is_added(
        self, costings: list[Costing], bias: float, tier: Tier
    ) -> None:
        kept = {
            one.deployment.id: (one.max_output_tokens, one.expected_cost_micro_usd, one.worst_cost_micro_usd)
            for one in ranked(*costings, bias=bias, tier=tier)
        }
        assert kept == {one.deployment.id: tuple(one[1:4]) for one in costings}


def _neighbours(found: tuple[Candidate, ...]) -> list[tuple[Candidate, Candidate]]:
    """Neighbours on the same side of the tier floor."""
    floor = Tier.STANDARD
    return [
        (first, second)
        for first, second in pairwise(found)
        if min(first.deployment.model.tier, floor) is min(second.deployment.model.tier, floor)
    ]
