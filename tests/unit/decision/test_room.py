from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import circumstances, deployment, snapshot
from kit.properties import examples
from pointsman_server.decision.engine import decide
from pointsman_server.decision.room import NOTHING_LEFT_OUT, SAFETY, most_input_tokens, room_for, shared_room
from pointsman_server.decision.tokens import core_of, tokens_for
from pointsman_server.domain.catalog import Deployment, Dialect
from pointsman_server.domain.errors import ContextOverflow, NoEligibleDeployment
from pointsman_server.domain.plan import ExclusionReason, RoutePlan, TokenEstimate
from pointsman_server.domain.request import RoutingConstraints, Tier
from pointsman_server.domain.tokenizer import CORRECTIONS, Tokenizer


def with_window(tokens: int, name: str = "", **of: Any) -> Deployment:
    fields = {"context_window_tokens": tokens, "max_output_tokens": 500, **of}
    return deployment(name or f"d{tokens}", of=fields)


def long_input(tokens: int, documents: int = 0, history: int = 0) -> TokenEstimate:
    return TokenEstimate(tokens, True, tokens + 16, documents, history)


def planned(*deployments: Deployment, tokens: TokenEstimate, **policy: Any) -> RoutePlan:
    return decide(circumstances(tokens=tokens, max_output_tokens=500), snapshot(*deployments, **policy))


def order(plan: RoutePlan) -> list[str]:
    return [one.deployment.id for one in plan.candidates]


class TestRoom:
    def test_where_nothing_may_be_left_out_nothing_is(self) -> None:
        assert room_for(with_window(1_000), long_input(900), 500) == (long_input(900), NOTHING_LEFT_OUT)

    def test_what_fits_with_its_answer_is_sent_whole(self) -> None:
        tokens, room = room_for(with_window(10_000), long_input(9_500, documents=9_000), 500)
        assert tokens.tokens == 9_500
        assert room.takes_all
        assert room.most_tokens == 9_500

    def test_beyond_that_something_is_left_out(self) -> None:
        tokens, room = room_for(with_window(10_000), long_input(9_501, documents=9_000), 500)
        assert tokens.tokens == 9_500
        assert not room.takes_all
        assert room.left_out_share == pytest.approx(1 / 9_000)
        assert not room.loses_history

    def test_the_answer_never_takes_more_than_a_quarter_from_the_input(self) -> None:
        assert most_input_tokens(with_window(1_000), 500) == 750
        assert most_input_tokens(with_window(10_000), 4_000) == 9_500
        assert most_input_tokens(with_window(10_000), 100) == 9_900

    def test_guessed_tokens_are_given_less_room(self) -> None:
        factor = CORRECTIONS[Tokenizer.CLAUDE].factor
        assert most_input_tokens(with_window(10_000, tokenizer=Tokenizer.CLAUDE), 500) == int(9_500 / factor / SAFETY)

    def test_a_knowledge_base_has_no_window(self) -> None:
        local = replace(with_window(1_000), provider=replace(with_window(1).provider, dialect=Dialect.LOCAL_KNOWLEDGE))
        assert room_for(local, long_input(9_000, documents=8_900), 500)[1] is NOTHING_LEFT_OUT

    @pytest.mark.parametrize(
        ("room", "documents", "history", "shares"),
        [
            (100, 200, 200, (50, 50)),
            (100, 20, 200, (20, 80)),
            (100, 200, 20, (80, 20)),
            (0, 10, 10, (0, 0)),
            (100, 30, 30, (30, 30)),
        ],
    )
    def test_documents_and_history_share_what_is_left(
        self, room: int, documents: int, history: int, shares: tuple[int, int]
    ) -> None:
        assert shared_room(room, documents, history) == shares

    @examples(100)
    @given(
        st.integers(0, 5_000),
        st.integers(0, 5_000),
        st.integers(1, 3_000),
        st.integers(200, 12_000),
        st.sampled_from(Tokenizer),
        st.integers(1, 5_000),
    )
    def test_what_is_sent_fits_and_never_is_less_than_the_core(
        self, documents: int, history: int, core: int, window: int, tokenizer: Tokenizer, wanted: int
    ) -> None:
        one = with_window(window, tokenizer=tokenizer)
        whole = long_input(core + documents + history, documents, history)
        sent, room = room_for(one, whole, wanted)
        least, most = tokens_for(one, core_of(whole)), tokens_for(one, whole)
        assert least.tokens <= sent.tokens <= most.tokens
        assert sent.tokens <= sent.upper_bound <= most.upper_bound
        if room.takes_all:
            assert sent == most
        else:
            assert sent.tokens <= max(window - min(wanted, window // 4, 500) + 1, least.tokens)
            assert 0 < room.left_out_share <= 1


class TestDecision:
    def test_a_deployment_that_fits_only_a_part_may_answer(self) -> None:
        (only,) = planned(with_window(10_000), tokens=long_input(90_000, documents=89_000)).candidates
        assert only.room_tokens == 9_500
        assert not only.takes_all
        assert only.max_output_tokens == 500
        assert only.expected_cost_micro_usd < 90_000

    def test_it_comes_after_all_that_take_the_whole_whoever_is_preferred(self) -> None:
        small, large = with_window(10_000, "small", quality=0.9), with_window(100_000, "large", quality=0.1)
        chains = {Tier.STANDARD: ("small", "large")}
        tokens = long_input(50_000, documents=49_000)
        plan = planned(small, large, tokens=tokens, tier_chains=chains)
        assert order(plan) == ["large", "small"]
        assert order(planned(small, large, tokens=long_input(5_000), tier_chains=chains)) == ["small", "large"]
        parts = dict(plan.candidates[1].score_parts)
        assert parts["left_out"] < -1_000_000
        assert "left_out" not in dict(plan.candidates[0].score_parts)

    def test_documents_are_lost_rather_than_turns(self) -> None:
        small, medium = with_window(8_000, "small", quality=0.9), with_window(50_000, "medium", quality=0.1)
        tokens = long_input(100_000, documents=90_000, history=9_000)
        assert order(planned(small, medium, tokens=tokens)) == ["medium", "small"]

    def test_of_two_that_lose_as_much_the_better_comes_first(self) -> None:
        tokens = long_input(100_000, documents=90_000)
        good, bad = with_window(20_000, "good", quality=0.9), with_window(20_000, "bad", quality=0.1)
        assert order(planned(bad, good, tokens=tokens, quality_bias=1.0)) == ["good", "bad"]
        smaller = with_window(15_000, "smaller", quality=1.0)
        assert order(planned(smaller, bad, tokens=tokens, quality_bias=1.0)) == ["bad", "smaller"]

    def test_what_may_not_be_left_out_has_to_fit(self) -> None:
        with pytest.raises(ContextOverflow) as refused:
            planned(with_window(1_000), with_window(2_000), tokens=long_input(9_000, documents=6_000))
        assert (refused.value.input_tokens, refused.value.largest_window_tokens) == (3_000, 2_000)
        plan = planned(with_window(1_000), with_window(5_000), tokens=long_input(9_000, documents=6_000))
        (out,) = plan.rejections
        assert out.reason is ExclusionReason.CONTEXT_WINDOW
        assert "may not be left out" in out.detail
        assert order(plan) == ["d5000"]

    def test_a_cost_cap_is_kept_by_what_is_sent(self) -> None:
        tokens, cap = long_input(90_000, documents=89_000), RoutingConstraints(max_cost_micro_usd=12_000)
        asked = circumstances(tokens=tokens, constraints=cap, max_output_tokens=500)
        (only,) = decide(asked, snapshot(with_window(10_000))).candidates
        assert only.worst_cost_micro_usd <= 12_000
        with pytest.raises(NoEligibleDeployment):
            decide(asked, snapshot(with_window(100_000)))
