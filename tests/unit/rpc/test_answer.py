from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import candidate, deployment, plan, rejection
from kit.properties import examples
from pointsman.v1 import answer_pb2, completion_pb2, decision_pb2
from pointsman_server.domain.call import (
    Attempt,
    AttemptOutcome,
    AttemptPurpose,
    Completed,
    Completion,
    Decided,
    Decision,
    FailedOver,
    FailoverMode,
    Relay,
    Warning,
)
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import ImagePart, OpaquePart, Part, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.plan import Complexity, ExclusionReason, Factor, TaskType, TokenEstimate
from pointsman_server.domain.reply import (
    Citation,
    ContentDelta,
    FinishReason,
    OpaqueDelta,
    ReasoningDelta,
    Reply,
    TextDelta,
    ToolCallDelta,
    Usage,
)
from pointsman_server.domain.request import Tier
from pointsman_server.rpc.answer import (
    attempt_to_proto,
    completion_to_proto,
    decision_to_proto,
    messages_of,
    part_to_proto,
    warning_to_proto,
)

ONE = deployment("one", of={"tier": Tier.ADVANCED, "quality": 0.75})
TWO = deployment("two", by={"simulated": True})
PLAN = plan(
    [],
    candidates=(
        candidate(
            ONE,
            score=2.5,
            score_parts=(Factor("tier_fit", 2.0), Factor("quality", 0.5)),
            expected_cost_micro_usd=11,
            worst_cost_micro_usd=22,
            expected_first_token_seconds=0.25,
        ),
        candidate(TWO, score=1.5),
    ),
    rejections=(rejection("three", ExclusionReason.REGION),),
    complexity=Complexity(0.4, Tier.STANDARD, (Factor("code", 0.25),), TaskType.CODE, (0.25, 0.5, 0.25), True),
    input_tokens=TokenEstimate(123, exact=True, upper_bound=200),
    policy_version="v7",
    applied_rules=("research", "thrifty"),
    quality_bias=0.75,
)
DECISION = Decision("dec_1", PLAN, 0.002, "greet@2")
REPLY = Reply(
    parts=(TextPart("Hello", "sealed"),),
    finish_reason=FinishReason.STOP,
    raw_finish_reason="end_turn",
    usage=Usage(),
    citations=(Citation("https://a", "A", "d", "q", 0, 5), Citation("https://b")),
    response_id="r",
    model="m",
)
ATTEMPT = Attempt(ONE, 1.5, 0.5, AttemptOutcome.SUCCEEDED, Usage(), 60)
COMPLETION = Completion(
    request_id="req_1",
    decision=DECISION,
    answered_by=PLAN.candidates[0],
    reply=REPLY,
    usage=Usage(
        input_tokens=40,
        cached_input_tokens=30,
        cache_write_input_tokens=5,
        output_tokens=10,
        reasoning_tokens=4,
    ),
    estimated=True,
    cost_micro_usd=60,
    attempts=(ATTEMPT,),
    warnings=(Warning("fallback", "told"),),
)


def of(**changes: Any) -> answer_pb2.CompleteResponse:
    return completion_to_proto(replace(COMPLETION, **changes))


class TestDecision:
    def test_everything_is_told(self) -> None:
        told = decision_to_proto(DECISION)
        assert (told.decision_id, told.policy_version) == ("dec_1", "v7")
        assert (told.input_tokens, told.exact) == (123, True)
        assert told.template == "greet@2"
        assert told.decision_latency.ToMilliseconds() == 2
        assert told.chosen == decision_pb2.ChosenDeployment(
            deployment="one", provider="one-provider", model="one-model", tier=completion_pb2.TIER_ADVANCED
        )
        assert (list(told.applied_rules), told.quality_bias) == (["research", "thrifty"], 0.75)
        assert told.complexity == decision_pb2.Complexity(
            score=0.4,
            tier=completion_pb2.TIER_STANDARD,
            factors=[decision_pb2.Factor(name="code", value=0.25)],
            task=decision_pb2.TASK_TYPE_CODE,
            tier_probabilities=[
                decision_pb2.TierProbability(tier=completion_pb2.TIER_LIGHT, probability=0.25),
                decision_pb2.TierProbability(tier=completion_pb2.TIER_STANDARD, probability=0.5),
                decision_pb2.TierProbability(tier=completion_pb2.TIER_ADVANCED, probability=0.25),
            ],
            needs_fresh_facts=True,
        )
        assert list(told.excluded) == [
            decision_pb2.ExcludedDeployment(
                deployment="three",
                reason=decision_pb2.EXCLUSION_REASON_REGION,
                detail=PLAN.rejections[0].detail,
            )
        ]

    def test_the_ranking(self) -> None:
        first, second = decision_to_proto(DECISION).ranked
        assert (first.deployment, first.provider, first.model) == ("one", "one-provider", "one-model")
        assert (first.tier, first.score, first.expected_quality) == (completion_pb2.TIER_ADVANCED, 2.5, 0.75)
        assert [(part.name, part.value) for part in first.score_parts] == [("tier_fit", 2.0), ("quality", 0.5)]
        assert (first.expected_cost_micro_usd, first.worst_cost_micro_usd) == (11, 22)
        assert first.expected_first_token.ToMilliseconds() == 250
        assert second.provider == "simulated"


class TestCompletion:
    def test_everything_is_told(self) -> None:
        told = of()
        assert told.request_id == "req_1"
        assert told.message == completion_pb2.Message(
            role=completion_pb2.ROLE_ASSISTANT, parts=[completion_pb2.Part(text="Hello", signature="sealed")]
        )
        assert told.finish_reason == answer_pb2.FINISH_REASON_STOP
        assert told.usage == answer_pb2.Usage(
            input_tokens=40,
            cached_input_tokens=30,
            cache_write_input_tokens=5,
            output_tokens=10,
            reasoning_tokens=4,
            cost_micro_usd=60,
            estimated=True,
        )
        assert told.decision == decision_to_proto(DECISION)
        assert list(told.attempts) == [attempt_to_proto(ATTEMPT)]
        assert list(told.warnings) == [answer_pb2.Warning(code="fallback", message="told")]
        assert told.cache == answer_pb2.CACHE_OUTCOME_BYPASS
        assert not told.HasField("confidence")

    def test_citations_with_and_without_a_place(self) -> None:
        placed, unplaced = of().citations
        assert placed == answer_pb2.Citation(
            url="https://a", title="A", document_id="d", quoted_text="q", start_index=0, end_index=5
        )
        assert unplaced.url == "https://b"
        assert not unplaced.HasField("start_index")
        assert not unplaced.HasField("end_index")

    @pytest.mark.parametrize(("start", "end"), [(-1, -1), (3, -1), (-1, 3), (5, 3), (0, 2**31), (2**40, 2**41)])
    def test_a_place_that_cannot_be_is_none(self, start: int, end: int) -> None:
        (told,) = of(
            reply=replace(REPLY, citations=(Citation("https://a", start_index=start, end_index=end),))
        ).citations
        assert told == answer_pb2.Citation(url="https://a")

    def test_counts_that_nobody_knows_are_zero(self) -> None:
        told = of(usage=Usage()).usage
        assert (told.input_tokens, told.output_tokens) == (0, 0)


class TestAttempt:
    def test_one_that_succeeded(self) -> None:
        told = attempt_to_proto(ATTEMPT)
        assert (told.deployment, told.provider, told.model) == ("one", "one-provider", "one-model")
        assert (told.latency.ToMilliseconds(), told.first_token_latency.ToMilliseconds()) == (1_500, 500)
        assert (told.outcome, told.error) == (
            answer_pb2.ATTEMPT_OUTCOME_SUCCEEDED,
            answer_pb2.ATTEMPT_ERROR_UNSPECIFIED,
        )
        assert (told.cost_micro_usd, told.error_detail) == (60, "")

    def test_one_that_failed_before_its_first_content(self) -> None:
        fault = ProviderFault(FaultKind.TIMEOUT, "too late")
        told = attempt_to_proto(replace(ATTEMPT, first_token_seconds=None, fault=fault, deployment=TWO))
        assert not told.HasField("first_token_latency")
        assert (told.provider, told.error, told.error_detail) == (
            "simulated",
            answer_pb2.ATTEMPT_ERROR_TIMEOUT,
            "too late",
        )


class TestEnums:
    """Every value of the domain has the contract's value of the same name, and none of the contract is left over."""

    @pytest.mark.parametrize("reason", FinishReason)
    def test_finish_reasons(self, reason: FinishReason) -> None:
        told = of(reply=replace(REPLY, finish_reason=reason)).finish_reason
        assert answer_pb2.FinishReason.Name(told) == f"FINISH_REASON_{reason.name}"

    @pytest.mark.parametrize("kind", FaultKind)
    def test_faults(self, kind: FaultKind) -> None:
        told = attempt_to_proto(replace(ATTEMPT, fault=ProviderFault(kind, "x"))).error
        assert answer_pb2.AttemptError.Name(told) == f"ATTEMPT_ERROR_{kind.name}"

    @pytest.mark.parametrize("outcome", AttemptOutcome)
    def test_outcomes(self, outcome: AttemptOutcome) -> None:
        told = attempt_to_proto(replace(ATTEMPT, outcome=outcome)).outcome
        assert answer_pb2.AttemptOutcome.Name(told) == f"ATTEMPT_OUTCOME_{outcome.name}"

    @pytest.mark.parametrize("reason", ExclusionReason)
    def test_exclusions(self, reason: ExclusionReason) -> None:
        decision = replace(DECISION, plan=replace(PLAN, rejections=(rejection("x", reason),)))
        told = decision_to_proto(decision).excluded[0].reason
        assert decision_pb2.ExclusionReason.Name(told) == f"EXCLUSION_REASON_{reason.name}"

    @pytest.mark.parametrize("tier", Tier)
    def test_tiers(self, tier: Tier) -> None:
        decision = replace(DECISION, plan=replace(PLAN, complexity=Complexity(0.1, tier, ())))
        assert completion_pb2.Tier.Name(decision_to_proto(decision).complexity.tier) == f"TIER_{tier.name}"

    @pytest.mark.parametrize("mode", FailoverMode)
    def test_failover_modes(self, mode: FailoverMode) -> None:
        (told,) = messages_of(FailedOver("a", "b", mode, 7))
        assert told.failover == answer_pb2.Failover(
            from_deployment="a",
            to_deployment="b",
            mode=answer_pb2.StreamFailover.Value(f"STREAM_FAILOVER_{mode.name}"),
            characters_kept=7,
        )

    @pytest.mark.parametrize(
        ("names", "prefix", "domain", "not_ours"),
        [
            (answer_pb2.FinishReason.keys(), "FINISH_REASON_", FinishReason, set()),
            (answer_pb2.AttemptError.keys(), "ATTEMPT_ERROR_", FaultKind, set()),
            (answer_pb2.AttemptOutcome.keys(), "ATTEMPT_OUTCOME_", AttemptOutcome, set()),
            (decision_pb2.ExclusionReason.keys(), "EXCLUSION_REASON_", ExclusionReason, set()),
            (answer_pb2.StreamFailover.keys(), "STREAM_FAILOVER_", FailoverMode, set()),
            (answer_pb2.AttemptPurpose.keys(), "ATTEMPT_PURPOSE_", AttemptPurpose, set()),
        ],
    )
    def test_nothing_of_the_contract_is_left_over(
        self, names: list[str], prefix: str, domain: Any, not_ours: set[str]
    ) -> None:
        known = {name.removeprefix(prefix) for name in names} - {"UNSPECIFIED"}
        assert known - not_ours == {one.name for one in domain}


PARTS: list[tuple[Part, completion_pb2.Part]] = [
    (TextPart("t", "s"), completion_pb2.Part(text="t", signature="s")),
    (
        ReasoningPart("", "s", redacted=True),
        completion_pb2.Part(reasoning=completion_pb2.Reasoning(redacted=True), signature="s"),
    ),
    (
        ToolCallPart("i", "f", "{", "s"),
        completion_pb2.Part(tool_call=completion_pb2.ToolCall(id="i", name="f", arguments_json="{"), signature="s"),
    ),
    (OpaquePart("d", "k", "{}"), completion_pb2.Part(opaque=completion_pb2.Opaque(dialect="d", kind="k", json="{}"))),
]
DELTAS: list[tuple[ContentDelta, answer_pb2.Delta]] = [
    (TextDelta(0, "t", "s"), answer_pb2.Delta(text="t", part_index=3, signature="s")),
    (
        ReasoningDelta(0, "t", "s", redacted=True),
        answer_pb2.Delta(reasoning=completion_pb2.Reasoning(text="t", redacted=True), part_index=3, signature="s"),
    ),
    (
        ToolCallDelta("x", "i", "f", "{", "s"),
        answer_pb2.Delta(
            tool_call=answer_pb2.ToolCallDelta(id="i", name="f", arguments_json="{"), part_index=3, signature="s"
        ),
    ),
    (
        OpaqueDelta(0, "d", "k", "{}"),
        answer_pb2.Delta(opaque=completion_pb2.Opaque(dialect="d", kind="k", json="{}"), part_index=3),
    ),
]


class TestParts:
    @pytest.mark.parametrize(("part", "told"), PARTS)
    def test_each_kind(self, part: Part, told: completion_pb2.Part) -> None:
        assert part_to_proto(part) == told

    def test_models_do_not_answer_with_images(self) -> None:
        with pytest.raises(TypeError, match="ImagePart"):
            part_to_proto(ImagePart(b"", "image/png"))


class TestEvents:
    def test_the_decision(self) -> None:
        (told,) = messages_of(Decided(DECISION))
        assert told == answer_pb2.StreamCompleteResponse(decision=decision_to_proto(DECISION))

    def test_a_decision_is_converted_once_and_another_anew(self) -> None:
        assert decision_to_proto(DECISION) is decision_to_proto(DECISION)
        assert decision_to_proto(replace(DECISION, id="other")).decision_id == "other"

    @pytest.mark.parametrize(("delta", "told"), DELTAS)
    def test_each_kind_of_piece(self, delta: ContentDelta, told: answer_pb2.Delta) -> None:
        assert messages_of(Relay(((3, delta),))) == [answer_pb2.StreamCompleteResponse(delta=told)]

    def test_each_piece_is_a_message(self) -> None:
        told = messages_of(Relay(((0, TextDelta(0, "a")), (1, TextDelta(1, "b")))))
        assert [(one.delta.part_index, one.delta.text) for one in told] == [(0, "a"), (1, "b")]

    def test_an_empty_piece_still_says_what_it_is(self) -> None:
        (told,) = messages_of(Relay(((0, TextDelta(0, "", "s")),)))
        assert told.delta.WhichOneof("content") == "text"

    def test_warnings_come_before_the_whole_answer(self) -> None:
        warning, completed = messages_of(Completed(COMPLETION))
        assert warning.warning == warning_to_proto(COMPLETION.warnings[0])
        assert completed.completed == completion_to_proto(COMPLETION)


@examples(150)
@given(st.floats(-10.0, 1e9))
def test_durations_are_told_to_the_nanosecond_and_are_never_negative(seconds: float) -> None:
    told = attempt_to_proto(replace(ATTEMPT, latency_seconds=seconds)).latency
    assert told.ToNanoseconds() / 1e9 == pytest.approx(max(0.0, seconds), abs=2e-9, rel=1e-9)
    assert 0 <= told.nanos < 1_000_000_000
