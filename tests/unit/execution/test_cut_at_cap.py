"""A provider that writes more than it may: where its stream ends, what the caller has, and what is booked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.accounts import decision
from kit.catalog import FEW_TOKENS, call, deployment, request, snapshot
from kit.dispatching import Dispatched, dispatch
from kit.properties import examples
from kit.scripted import END, PING, CharacterCounter, Hang, Step, Wait, answers, says, used
from pointsman_server.domain.call import AttemptOutcome, AttemptPurpose, Completion, FailoverMode, Relay
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.governance import Governance, TenantPolicy
from pointsman_server.domain.reply import Finished, FinishReason, ReasoningDelta, TextDelta, ToolCallDelta, fold
from pointsman_server.domain.request import Capability, GenerationConfig, RoutingConstraints
from pointsman_server.domain.resilience import HedgePolicy, Resilience, RetryPolicy
from pointsman_server.execution.allowance import MARGIN_TOKENS
from pointsman_server.execution.settle import settle

LIMIT = 1_000
"""What every candidate of these plans may write, in tokens; one is a character here."""

MOST = LIMIT + MARGIN_TOKENS
FOREVER: tuple[Step, ...] = (says("again and "),) * 500
CUT = ProviderFault(FaultKind.STREAM_CUT, "cut")
ONCE = {"resilience": Resilience(RetryPolicy(attempts_per_deployment=1))}


def stream(*steps: Step, of: Deployment | None = None, **changes: Any) -> Dispatched:
    return dispatch([(of or deployment("a"), steps)], stream=True, **changes)


def capped(micro_usd: int) -> dict[str, Any]:
    """Input is estimated at 100 tokens and costs 100 micro-USD, each token of output 2."""
    return {"request": request(constraints=RoutingConstraints(max_cost_micro_usd=micro_usd))}


def settled(done: Dispatched, *, policy: Mapping[str, Any] | None = None) -> Completion:
    one_call = call(snapshot(deployment("a"), **(policy or {})))
    return settle(one_call, decision(deployment("a")), done.record, CharacterCounter(), FEW_TOKENS)


def codes(done: Completion) -> list[str]:
    return [warning.code for warning in done.warnings]


class TestTheLimitInTokens:
    def test_the_answer_ends_there_as_one_that_was_cut_at_its_limit(self) -> None:
        done = stream(*FOREVER, Hang())
        assert done.record.reply is not None
        assert done.record.reply.finish_reason is FinishReason.LENGTH
        assert len(done.relayed) == MOST
        assert done.text == done.relayed
        assert done.seconds == 0.0

    def test_the_provider_is_hung_up_on_before_the_caller_has_read_it(self) -> None:
        done = stream(*FOREVER, Hang())
        assert done.adapters["a"].open_exchanges == 0
        assert done.outcomes == [AttemptOutcome.SUCCEEDED]
        assert done.out == {}

    def test_one_that_ends_within_the_margin_is_left_alone(self) -> None:
        done = stream(says("x" * MOST), used(100, MOST), END)
        assert (len(done.text), done.record.cut_at) == (MOST, None)
        assert done.record.reply is not None
        assert done.record.reply.finish_reason is FinishReason.STOP

    def test_reasoning_and_tool_calls_are_output(self) -> None:
        steps: list[Step] = [
            (ReasoningDelta("r", "h" * 500),),
            (ToolCallDelta("t", "id", "find", "1" * 600),),
            Hang(),
        ]
        done = stream(*steps)
        assert done.record.reply is not None
        reasoning, tool = done.record.reply.parts
        assert fold(delta for _, delta in done.deltas).parts == (reasoning, tool)
        assert len(tool.arguments_json) == MOST - 500 - len("find")  # type: ignore[union-attr]

    def test_pings_do_not_count(self) -> None:
        assert stream(PING, Wait(1.0), PING, *answers("Hello")).text == "Hello"

    def test_a_whole_answer_is_given_as_it_came(self) -> None:
        done = dispatch([(deployment("a"), (says("x" * 2_000), used(100, 2_000), END))])
        assert (len(done.text), done.record.cut_at) == (2_000, None)
        assert settled(done).cost_micro_usd == 100 + 2 * 2_000

    def test_so_is_that_of_a_model_that_does_not_stream(self) -> None:
        plain = deployment("a", of={"capabilities": frozenset(Capability) - {Capability.STREAMING}})
        assert len(stream(says("x" * 2_000), used(100, 2_000), END, of=plain).relayed) == 2_000

    def test_an_answer_that_had_to_be_json_is_not_mended(self) -> None:
        schema = GenerationConfig(response_schema={"type": "object"})
        done = stream(says('{"a": "'), *FOREVER, Hang(), request=request(generation=schema))
        assert (done.error, done.asked) == (None, ["a"])
        assert done.record.cut_at is not None

    def test_who_wins_a_race_is_cut_as_well(self) -> None:
        policy = {"resilience": Resilience(hedging=HedgePolicy(0.5, 1.0, 1))}
        both: list[tuple[Deployment, Sequence[Step]]] = [
            (deployment("a"), (Wait(5.0), *FOREVER)),
            (deployment("b"), (Wait(1.0), *FOREVER, Hang())),
        ]
        done = dispatch(both, stream=True, policy=policy)
        assert len(done.relayed) == MOST

    def test_one_that_goes_on_for_another_has_what_is_left(self) -> None:
        both = [(deployment("a"), (says("one two " * 100), CUT)), (deployment("b"), (*FOREVER, Hang()))]
        done = dispatch(both, stream=True, failover=FailoverMode.CONTINUE, policy=ONCE)
        assert done.record.attempts[-1].purpose is AttemptPurpose.CONTINUATION
        assert len(done.text) == 800 + (LIMIT - 800 // 4) + MARGIN_TOKENS
        assert done.record.cut_at is not None
        told = [delta for event in done.events if isinstance(event, Relay) for _, delta in event.deltas]
        assert "".join(delta.text for delta in told if isinstance(delta, TextDelta)) == done.text


class TestTheLimitInMoney:
    def test_what_the_call_may_cost_is_never_passed(self) -> None:
        done = stream(*FOREVER, Hang(), **capped(500))
        assert len(done.relayed) == 200

    def test_to_the_token(self) -> None:
        assert len(stream(*FOREVER, Hang(), **capped(503)).relayed) == 201

    def test_a_tenants_cap_counts_as_well(self) -> None:
        tenants = Governance({"t": TenantPolicy(max_cost_per_request_micro_usd=300)})
        done = stream(*FOREVER, Hang(), policy={"governance": tenants}, tenant="t", **capped(500))
        assert len(done.relayed) == 100

    def test_what_failed_attempts_cost_is_spent(self) -> None:
        both: list[tuple[Deployment, Sequence[Step]]] = [
            (deployment("a"), (used(100, 50), ProviderFault(FaultKind.UNAVAILABLE, "down"))),
            (deployment("b"), (*FOREVER, Hang())),
        ]
        done = dispatch(both, stream=True, policy=ONCE, **capped(500))
        assert len(done.relayed) == 100

    def test_an_answer_that_keeps_the_cap_is_whole(self) -> None:
        done = stream(says("x" * 200), used(100, 200), END, **capped(500))
        assert (len(done.text), done.record.cut_at) == (200, None)


_pieces: st.SearchStrategy[Step] = st.lists(
    st.one_of(
        st.builds(TextDelta, st.sampled_from([0, 1]), st.text(st.sampled_from("a \u6771\n"), max_size=90)),
        st.builds(ReasoningDelta, st.just("r"), st.text(max_size=40)),
        st.builds(ToolCallDelta, st.just("t"), st.just("id"), st.just("find"), st.text(max_size=40)),
    ),
    max_size=3,
)


@given(st.lists(_pieces, max_size=12), st.integers(100, 900))
@examples(60)
def test_what_is_told_is_the_answer_and_within_both_limits(steps: list[Step], cap_micro_usd: int) -> None:
    done = stream(says("x"), *steps, END, **capped(cap_micro_usd))
    assert done.record.reply is not None
    assert fold(delta for _, delta in done.deltas).parts == done.record.reply.parts
    told = [delta for _, delta in done.deltas]
    shown = sum(len(one.text) for one in told if isinstance(one, (TextDelta, ReasoningDelta)))
    shown += sum(len(one.name + one.arguments_json) for one in told if isinstance(one, ToolCallDelta))
    assert shown <= min(MOST, (cap_micro_usd - 100) // 2)
    ended = FinishReason.STOP if done.record.cut_at is None else FinishReason.LENGTH
    assert done.record.reply.finish_reason is ended


class TestTheAccount:
    def test_all_that_was_seen_is_counted_and_priced_and_marked(self) -> None:
        done = stream(says("x" * 1_010), says("y" * 40), Hang())
        (attempt,) = done.record.attempts
        assert (attempt.usage.output_tokens, attempt.estimated) == (1_050, True)
        completion = settled(done)
        assert (completion.usage.input_tokens, completion.usage.output_tokens) == (100, 1_050)
        assert (completion.cost_micro_usd, completion.estimated) == (100 + 2 * 1_050, True)
        assert codes(completion) == ["cut_at_cap"]

    def test_an_old_count_of_the_provider_does_not_lower_it(self) -> None:
        done = stream(used(90, 1), *FOREVER, Hang())
        (attempt,) = done.record.attempts
        assert (attempt.usage.input_tokens, attempt.usage.output_tokens) == (90, 1_020)
        assert attempt.estimated

    def test_a_higher_count_on_the_way_is_believed(self) -> None:
        done = stream(used(90, 3_000), *FOREVER, Hang())
        assert done.record.attempts[0].usage.output_tokens == 3_000

    def test_who_has_come_to_an_end_has_told_what_it_bills(self) -> None:
        whole: Step = (TextDelta(0, "x" * 1_100), *used(90, 1_080), Finished(FinishReason.STOP))
        done = stream(whole)
        (attempt,) = done.record.attempts
        assert (len(done.relayed), attempt.usage.output_tokens, attempt.estimated) == (MOST, 1_080, False)
        assert settled(done).cost_micro_usd == 90 + 2 * 1_080

    @pytest.mark.parametrize(
        ("changes", "limit"), [({}, "its max_output_tokens"), (capped(500), "what this call may cost")]
    )
    def test_the_caller_is_told_which_limit_it_was(self, changes: Mapping[str, Any], limit: str) -> None:
        (warning,) = settled(stream(*FOREVER, Hang(), **changes)).warnings
        assert limit in warning.message
