"""Streams that another deployment goes on with, and answers that are mended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kit.catalog import EVERYTHING, deployment, request
from kit.dispatching import Dispatched, dispatch
from kit.scripted import END, Hang, Step, answers, says, used
from pointsman_server.domain.call import AttemptPurpose, FailedOver, FailoverMode
from pointsman_server.domain.catalog import Timeouts
from pointsman_server.domain.errors import AnswerInvalid, StreamInterrupted
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import Role
from pointsman_server.domain.reply import (
    Citation,
    CitationFound,
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
)
from pointsman_server.domain.request import Capability, GenerationConfig
from pointsman_server.domain.resilience import Resilience, RetryPolicy

DOWN = ProviderFault(FaultKind.UNAVAILABLE, "down")
INVALID = ProviderFault(FaultKind.INVALID_REQUEST, "invalid")
FIRST, CONTINUATION, REPAIR = AttemptPurpose.FIRST, AttemptPurpose.CONTINUATION, AttemptPurpose.REPAIR
ONCE = {"resilience": Resilience(RetryPolicy(attempts_per_deployment=1))}
BY_INSTRUCTION = EVERYTHING - {Capability.PREFILL}
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def run(scripts: Mapping[str, tuple[Step, ...]], can: frozenset[Capability] = EVERYTHING, **options: Any) -> Dispatched:
    timeouts = Timeouts(first_token_seconds=10.0, idle_seconds=4.0, total_seconds=60.0)
    named = [(deployment(name, of={"capabilities": can}, timeouts=timeouts), steps) for name, steps in scripts.items()]
    return dispatch(named, **{"policy": ONCE, **options})


def continued(scripts: Mapping[str, tuple[Step, ...]], **options: Any) -> Dispatched:
    return run(scripts, stream=True, failover=FailoverMode.CONTINUE, **options)


def purposes(ran: Dispatched) -> list[AttemptPurpose]:
    return [attempt.purpose for attempt in ran.record.attempts]


def told(ran: Dispatched) -> str:
    """The text as a reader has it who takes every event at its word."""
    text = ""
    for event in ran.events:
        if isinstance(event, FailedOver):
            text = text[: event.characters_kept]
        else:
            text += "".join(delta.text for _, delta in event.deltas if isinstance(delta, TextDelta))
    return text


class TestContinue:
    def test_the_next_goes_on_from_the_text_so_far(self) -> None:
        ran = continued({"a": (says("One two "), says("three"), DOWN), "b": (says(" four"), says(" five."), END)})
        assert ran.text == told(ran) == "One two three four five."
        assert ran.events[2] == FailedOver("a", "b", FailoverMode.CONTINUE, 13)
        assert purposes(ran) == [FIRST, CONTINUATION]

    def test_a_model_that_takes_a_prefill_gets_one(self) -> None:
        ran = continued({"a": (says("One two"), DOWN), "b": answers(" three")})
        *_, last = ran.adapters["b"].calls[0].messages
        assert (last.role, last.text) == (Role.ASSISTANT, "One two")

    def test_another_is_asked_in_words_and_its_repetition_is_taken_out(self) -> None:
        began = "The quick brown fox jumps over the lazy dog"
        ran = continued({"a": (says(began), DOWN), "b": answers(f"{began} and runs away.")}, can=BY_INSTRUCTION)
        assert ran.text == told(ran) == f"{began} and runs away."
        *_, before, last = ran.adapters["b"].calls[0].messages
        assert (before.role, before.text, last.role) == (Role.ASSISTANT, began, Role.USER)

    def test_the_words_are_the_policys(self) -> None:
        resilience = Resilience(RetryPolicy(attempts_per_deployment=1), continuation_prompt="Weiter, bitte.")
        ran = continued(
            {"a": (says("Eins "), DOWN), "b": answers("zwei")}, can=BY_INSTRUCTION, policy={"resilience": resilience}
        )
        assert ran.adapters["b"].calls[0].messages[-1].text == "Weiter, bitte."

    def test_what_is_still_held_back_at_the_end_comes_out(self) -> None:
        ran = continued({"a": (says("a b c"), DOWN), "b": (says(" "), END)}, can=BY_INSTRUCTION)
        assert ran.text == told(ran) == "a b c "

    def test_it_goes_on_more_than_once(self) -> None:
        ran = continued({"a": (says("A"), DOWN), "b": (says("B"), DOWN), "c": answers("C")})
        assert ran.text == told(ran) == "ABC"
        assert [(one.from_deployment_id, one.to_deployment_id, one.characters_kept) for one in ran.failovers] == [
            ("a", "b", 1),
            ("b", "c", 2),
        ]
        assert ran.adapters["c"].calls[0].messages[-1].text == "AB"

    def test_one_that_fails_before_it_speaks_is_passed_over_unseen(self) -> None:
        ran = continued({"a": (says("A"), DOWN), "b": (DOWN,), "c": answers("C")})
        assert ran.text == "AC"
        assert [(one.from_deployment_id, one.to_deployment_id) for one in ran.failovers] == [("a", "c")]

    def test_silence_in_the_middle_is_a_failure_like_any_other(self) -> None:
        ran = continued({"a": (says("A"), Hang()), "b": answers("B")})
        assert (ran.text, ran.seconds) == ("AB", 4.0)

    def test_with_nobody_left_the_text_stands_and_the_stream_is_interrupted(self) -> None:
        ran = continued({"a": (says("One"), DOWN), "b": (says("Two"), DOWN)})
        assert isinstance(ran.error, StreamInterrupted)
        assert told(ran) == "OneTwo"
        assert ran.error.output_tokens == 6

    def test_a_request_that_the_next_finds_invalid_ends_it(self) -> None:
        ran = continued({"a": (says("One"), DOWN), "b": (INVALID,), "c": answers("C")})
        assert isinstance(ran.error, StreamInterrupted)
        assert ran.asked == ["a", "b"]

    @pytest.mark.parametrize("can", [EVERYTHING, BY_INSTRUCTION], ids=["prefill", "instruction"])
    def test_when_nothing_was_missing_but_the_end_the_next_may_say_nothing(self, can: frozenset[Capability]) -> None:
        ran = continued({"a": (says("All of it."), DOWN), "b": (used(100, 0), END)}, can=can)
        assert ran.text == told(ran) == "All of it."
        assert ran.failovers == [FailedOver("a", "b", FailoverMode.CONTINUE, 10)]
        assert ran.record.reply is not None
        assert ran.record.reply.finish_reason is FinishReason.STOP

    def test_before_the_first_piece_it_is_a_plain_fallback(self) -> None:
        ran = continued({"a": (DOWN,), "b": answers("B")})
        assert (ran.text, ran.failovers, purposes(ran)[1]) == ("B", [], AttemptPurpose.FALLBACK)

    def test_what_the_new_model_thinks_is_left_out(self) -> None:
        thinks = (ReasoningDelta("r", "hm"), TextDelta(0, " B"))
        ran = continued({"a": ((ReasoningDelta("r", "let me see"), TextDelta("t", "A")), DOWN), "b": (thinks, END)})
        assert ran.record.reply is not None
        assert [type(part).__name__ for part in ran.record.reply.parts] == ["ReasoningPart", "TextPart"]
        assert ran.text == told(ran) == "A B"

    def test_sources_of_both_are_kept(self) -> None:
        one, other = Citation(url="https://one.test", start_index=0, end_index=1), Citation(url="https://two.test")
        begins, goes_on = (TextDelta(0, "A"), CitationFound(one)), (TextDelta(0, "B"), CitationFound(other))
        ran = continued({"a": (begins, DOWN), "b": (goes_on, END)})
        assert ran.record.reply is not None
        assert ran.record.reply.citations == (one, other)

    @pytest.mark.parametrize(
        "piece",
        [
            (ToolCallDelta("t", "id", "f", '{"a"'),),
            (TextDelta(0, "I look it up. "), ToolCallDelta("t", "id", "f", "")),
            (ReasoningDelta("r", "hm", signature="s"), TextDelta(0, "A")),
        ],
        ids=["tool call", "text and tool call", "signed reasoning"],
    )
    def test_what_is_not_plain_prose_is_not_gone_on_with(self, piece: Step) -> None:
        ran = continued({"a": (piece, DOWN), "b": answers("B")})
        assert isinstance(ran.error, StreamInterrupted)
        assert ran.asked == ["a"]

    @pytest.mark.parametrize(
        "piece", [(TextDelta(0, "  \n"),), (ReasoningDelta("r", "hm"),)], ids=["blank", "reasoning"]
    )
    def test_where_nothing_was_said_yet_the_next_begins_anew(self, piece: Step) -> None:
        ran = continued({"a": (piece, DOWN), "b": answers("B")})
        assert ran.failovers == [FailedOver("a", "b", FailoverMode.CONTINUE, 0)]
        assert (ran.text, told(ran), ran.record.kept_from) == ("B", "B", [])

    def test_what_came_after_the_text_is_dropped_as_callers_drop_it(self) -> None:
        began = (ReasoningDelta("r", "hm"), TextDelta("t", "A"), ReasoningDelta("s", "and now"))
        ran = continued({"a": (began, DOWN), "b": answers("B")})
        assert ran.record.reply is not None
        assert [type(part).__name__ for part in ran.record.reply.parts] == ["ReasoningPart", "TextPart"]
        assert ran.text == told(ran) == "AB"

    def test_nor_an_answer_with_a_schema(self) -> None:
        asked = request(generation=GenerationConfig(response_schema=SCHEMA))
        ran = continued({"a": (says('{"n":'), DOWN), "b": answers("1}")}, request=asked)
        assert isinstance(ran.error, StreamInterrupted)

    def test_usage_is_that_of_both_and_each_attempt_pays_for_itself(self) -> None:
        ran = continued({"a": (says("A"), used(100, 7), DOWN), "b": (says("B"), used(110, 9), END)})
        assert [one.cost_micro_usd for one in ran.record.attempts] == [114, 128]
        assert [one.usage.output_tokens for one in ran.record.kept_from] == [7]
        assert ran.record.own is not None
        assert ran.record.own.usage.output_tokens == 9


class TestRepair:
    ASKED = request(generation=GenerationConfig(response_schema=SCHEMA))

    def test_an_answer_that_fits_is_taken(self) -> None:
        ran = run({"a": answers('{"n": 1}')}, request=self.ASKED)
        assert (ran.text, purposes(ran)) == ('{"n": 1}', [FIRST])

    def test_one_in_a_code_fence_is_taken_out_of_it(self) -> None:
        ran = run({"a": answers('```json\n{"n": 1}\n```')}, request=self.ASKED)
        assert (ran.text, purposes(ran)) == ('{"n": 1}', [FIRST])

    def test_one_that_does_not_fit_is_mended_once(self) -> None:
        ran = run({"a": answers('{"n": "one"}')}, then={"a": answers('{"n": 1}')}, request=self.ASKED)
        assert (ran.text, purposes(ran)) == ('{"n": 1}', [FIRST, REPAIR])
        assert ran.record.attempts[0].fault is not None
        assert ran.record.attempts[0].fault.kind is FaultKind.ANSWER_INVALID

    def test_the_model_is_told_what_is_wrong(self) -> None:
        ran = run({"a": answers('{"n": "one"}')}, request=self.ASKED)
        first, repair = ran.adapters["a"].calls
        assert repair.messages[: len(first.messages)] == first.messages
        assert repair.messages[-2].text == '{"n": "one"}'
        assert "/n" in repair.messages[-1].text
        assert repair.generation == first.generation

    def test_the_error_has_the_answer_for_the_caller_and_not_in_its_message(self) -> None:
        ran = run({"a": answers('{"n": "secret"}')}, request=self.ASKED)
        assert isinstance(ran.error, AnswerInvalid)
        assert ran.error.text == '{"n": "secret"}'
        assert ran.error.violations
        assert "secret" not in str(ran.error)
        assert ran.error.cost_micro_usd == ran.record.cost_micro_usd == 400

    def test_a_repair_that_fails_is_not_tried_elsewhere(self) -> None:
        ran = run({"a": answers("no JSON"), "b": answers('{"n": 1}')}, request=self.ASKED)
        assert isinstance(ran.error, AnswerInvalid)
        assert ran.asked == ["a", "a"]

    def test_it_is_no_mark_against_the_deployment(self) -> None:
        ran = run({"a": answers("no JSON")}, request=self.ASKED)
        assert ran.out == {}

    def test_a_streamed_answer_cannot_be_mended(self) -> None:
        ran = run({"a": answers('{"n": "one"}'), "b": answers('{"n": 1}')}, stream=True, request=self.ASKED)
        assert isinstance(ran.error, AnswerInvalid)
        assert purposes(ran) == [FIRST]

    def test_a_streamed_answer_in_a_code_fence_is_not_json_alone(self) -> None:
        ran = run({"a": answers('```json\n{"n": 1}\n```')}, stream=True, request=self.ASKED)
        assert isinstance(ran.error, AnswerInvalid)
        assert "code fence" in ran.error.violations[0]

    def test_the_text_keeps_its_place_among_the_parts(self) -> None:
        fenced = (
            ReasoningDelta("r", "hm"),
            TextDelta(0, '```json\n{"n": 1}\n```'),
            CitationFound(Citation(url="u", start_index=0, end_index=3)),
        )
        ran = run({"a": (fenced, END)}, request=self.ASKED)
        assert ran.record.reply is not None
        assert [type(part).__name__ for part in ran.record.reply.parts] == ["ReasoningPart", "TextPart"]
        assert (ran.text, ran.record.reply.citations) == ('{"n": 1}', (Citation(url="u"),))

    def test_a_streamed_answer_that_fits_is_an_answer(self) -> None:
        ran = run({"a": (says('{"n"'), says(": 1}"), END)}, stream=True, request=self.ASKED)
        assert ran.text == told(ran) == '{"n": 1}'

    @pytest.mark.parametrize("reason", [FinishReason.LENGTH, FinishReason.CONTENT_FILTER, FinishReason.REFUSAL])
    def test_an_answer_that_was_cut_or_refused_says_so_itself(self, reason: FinishReason) -> None:
        ran = run({"a": (says('{"n": '), (Finished(reason),))}, request=self.ASKED)
        assert ran.record.reply is not None
        assert ran.record.reply.finish_reason is reason

    def test_without_a_schema_nothing_is_checked(self) -> None:
        assert run({"a": answers("no JSON")}).text == "no JSON"
