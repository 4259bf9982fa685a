from __future__ import annotations

from typing import Any

import pytest

from kit.catalog import call, candidate, deployment, plan, request, snapshot
from kit.scripted import CharacterCounter
from pointsman_server.domain.call import Attempt, AttemptOutcome, Completion, Decision
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import OpaquePart, Part, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.reply import FinishReason, Reply, Usage
from pointsman_server.domain.request import GenerationConfig
from pointsman_server.execution.settle import count_output_tokens, settle

WHOLE = Usage(input_tokens=40, output_tokens=10)
ONE = deployment("one")


def reply(usage: Usage = WHOLE, model: str = "one-1", parts: tuple[Part, ...] = (TextPart("Hello"),)) -> Reply:
    return Reply(parts, FinishReason.STOP, "stop", usage, (), "id", model)


def attempt(name: str = "one", fault: ProviderFault | None = None, cost: int = 0) -> Attempt:
    outcome = AttemptOutcome.SUCCEEDED if fault is None else AttemptOutcome.FAILED
    return Attempt(deployment(name), 1.0, None, outcome, Usage(), cost, fault)


def settled(answer: Reply, *before: Attempt, wanted: int | None = None, one: Any = ONE) -> Completion:
    asked = request(generation=GenerationConfig(max_output_tokens=wanted))
    decision = Decision("dec", plan([one]), 0.01)
    return settle(
        call(snapshot(one), request=asked),
        decision,
        candidate(one, max_output_tokens=500),
        answer,
        (*before, attempt()),
        CharacterCounter(),
    )


def codes(completion: Completion) -> list[str]:
    return [warning.code for warning in completion.warnings]


class TestUsage:
    def test_what_the_provider_reported_is_taken(self) -> None:
        done = settled(reply())
        assert (done.usage, done.estimated) == (WHOLE, False)
        assert done.cost_micro_usd == 60
        assert codes(done) == []

    @pytest.mark.parametrize(
        ("usage", "filled"),
        [
            (Usage(), Usage(100, output_tokens=5)),
            (Usage(input_tokens=7), Usage(7, output_tokens=5)),
            (Usage(output_tokens=9), Usage(100, output_tokens=9)),
        ],
    )
    def test_gaps_are_filled_priced_and_marked(self, usage: Usage, filled: Usage) -> None:
        done = settled(reply(usage))
        assert (done.usage, done.estimated) == (filled, True)
        assert done.cost_micro_usd == (filled.input_tokens or 0) + 2 * (filled.output_tokens or 0)
        assert codes(done) == ["usage_estimated"]

    def test_zero_is_a_count(self) -> None:
        done = settled(reply(Usage(0, output_tokens=0)))
        assert (done.usage, done.estimated, done.cost_micro_usd) == (Usage(0, output_tokens=0), False, 0)

    def test_what_is_impossible_is_said_to_be_so(self) -> None:
        done = settled(reply(Usage(input_tokens=40, implausible=True)))
        assert done.usage.output_tokens == 5
        assert done.estimated
        assert codes(done) == ["usage_implausible"]

    def test_other_counts_stay(self) -> None:
        done = settled(reply(Usage(40, cached_input_tokens=30, reasoning_tokens=2)))
        assert (done.usage.cached_input_tokens, done.usage.reasoning_tokens) == (30, 2)

    def test_everything_the_model_wrote_is_counted(self) -> None:
        parts = (TextPart("12"), ReasoningPart("345"), ToolCallPart("i", "6", "78"), OpaquePart("d", "k", "9"))
        assert count_output_tokens(reply(parts=parts), CharacterCounter()) == 9


class TestAccount:
    def test_the_last_attempt_carries_usage_and_cost(self) -> None:
        done = settled(reply())
        (last,) = done.attempts
        assert (last.usage, last.cost_micro_usd) == (WHOLE, 60)

    def test_what_failed_attempts_cost_is_paid_too(self) -> None:
        done = settled(reply(), attempt("zero", ProviderFault(FaultKind.TIMEOUT, "x"), cost=33))
        assert done.cost_micro_usd == 33 + 60
        assert [one.cost_micro_usd for one in done.attempts] == [33, 60]

    def test_the_rest_is_passed_on(self) -> None:
        done = settled(reply())
        assert (done.request_id, done.decision.id, done.answered_by.deployment) == ("req_test", "dec", ONE)
        assert done.reply.text == "Hello"


class TestWarnings:
    def test_a_simulated_answer(self) -> None:
        assert codes(settled(reply(), one=deployment("one", by={"simulated": True}))) == ["simulated"]

    @pytest.mark.parametrize(
        "said",
        ["", "one-1", "ONE-1", "one-1-2025-08-07", "models/one-1", "one"],
        ids=["nothing", "the same", "capitals", "dated", "with a path", "shorter"],
    )
    def test_the_configured_model(self, said: str) -> None:
        assert codes(settled(reply(model=said))) == []

    def test_a_configured_name_with_a_path(self) -> None:
        one = deployment("one", model_name="vendor/one-1")
        assert codes(settled(reply(model="one-1-0125"), one=one)) == []

    @pytest.mark.parametrize("said", ["two-1", "gone-1"])
    def test_another_model(self, said: str) -> None:
        assert codes(settled(reply(model=said))) == ["model_mismatch"]

    @pytest.mark.parametrize(("wanted", "said"), [(None, []), (500, []), (501, ["max_output_tokens_clamped"])])
    def test_a_longer_answer_than_possible(self, wanted: int | None, said: list[str]) -> None:
        done = settled(reply(), wanted=wanted)
        assert codes(done) == said
        assert all("500" in warning.message for warning in done.warnings)

    def test_a_fallback(self) -> None:
        done = settled(reply(), attempt("zero", ProviderFault(FaultKind.TIMEOUT, "x")), attempt("half", None))
        assert codes(done) == ["fallback"]
        assert done.warnings[0].message == "zero failed (timeout); one answered instead"
