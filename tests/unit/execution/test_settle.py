from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit.catalog import call, candidate, deployment, plan, request, snapshot
from kit.scripted import CharacterCounter
from pointsman_server.domain.call import Attempt, AttemptOutcome, AttemptPurpose, Completion, Decision
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import OpaquePart, Part, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.plan import TokenEstimate
from pointsman_server.domain.reply import FinishReason, Reply, Usage
from pointsman_server.domain.request import GenerationConfig
from pointsman_server.execution.dispatch_record import DispatchRecord
from pointsman_server.execution.settle import count_output_tokens, estimate_cancelled, settle

WHOLE = Usage(input_tokens=40, output_tokens=10)
NOTHING = Usage()
ONE = deployment("one")
TIMEOUT = ProviderFault(FaultKind.TIMEOUT, "x")


def reply(usage: Usage = WHOLE, model: str = "one-1", parts: tuple[Part, ...] = (TextPart("Hello"),)) -> Reply:
    return Reply(parts, FinishReason.STOP, "stop", usage, (), "id", model)


def attempt(
    name: str = "one",
    fault: ProviderFault | None = None,
    cost: int = 0,
    purpose: AttemptPurpose = AttemptPurpose.FIRST,
    outcome: AttemptOutcome | None = None,
    usage: Usage = NOTHING,
) -> Attempt:
    ended = outcome or (AttemptOutcome.SUCCEEDED if fault is None else AttemptOutcome.FAILED)
    return Attempt(ONE if name == "one" else deployment(name), 1.0, None, ended, usage, cost, fault, purpose)


def settled(
    answer: Reply,
    *before: Attempt,
    wanted: int | None = None,
    one: Any = ONE,
    purpose: AttemptPurpose = AttemptPurpose.FIRST,
    whole: Reply | None = None,
    kept_from: tuple[Attempt, ...] = (),
    schema_checked: bool = True,
    schema: dict[str, Any] | None = None,
) -> Completion:
    generation = GenerationConfig(max_output_tokens=wanted, response_schema=schema)
    route = plan([one])
    record = DispatchRecord(
        attempts=[*before, replace(attempt(purpose=purpose), deployment=one)],
        answered_by=candidate(one, max_output_tokens=500),
        reply=whole or answer,
        own=answer,
        kept_from=list(kept_from),
        schema_checked=schema_checked,
    )
    one_call = call(snapshot(one), request=request(generation=generation))
    return settle(one_call, Decision("dec", route, 0.01), record, CharacterCounter(), route.input_tokens)


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
        done = settled(reply(), attempt("zero", TIMEOUT), attempt("half", TIMEOUT))
        assert codes(done) == ["fallback"]
        assert done.warnings[0].message == "zero failed (timeout); one answered instead"

    def test_a_retry(self) -> None:
        done = settled(reply(), attempt("one", TIMEOUT))
        assert codes(done) == ["retried"]
        assert done.warnings[0].message == "one failed (timeout); answered when asked again"

    def test_a_hedge(self) -> None:
        slow = attempt("zero", outcome=AttemptOutcome.CANCELLED)
        done = settled(reply(), slow, purpose=AttemptPurpose.HEDGE)
        assert codes(done) == ["hedged"]
        assert done.warnings[0].message == "zero was slow to begin; one was asked as well and answered first"

    def test_a_hedge_that_lost_is_nothing_to_warn_about(self) -> None:
        lost = attempt("zero", outcome=AttemptOutcome.CANCELLED, purpose=AttemptPurpose.HEDGE)
        assert codes(settled(reply(), lost)) == []

    def test_a_repair(self) -> None:
        wrong = attempt("one", ProviderFault(FaultKind.ANSWER_INVALID, "x"))
        assert codes(settled(reply(), wrong, purpose=AttemptPurpose.REPAIR)) == ["repaired"]

    def test_a_continuation(self) -> None:
        cut = attempt("zero", ProviderFault(FaultKind.STREAM_CUT, "x"))
        done = settled(reply(), cut, purpose=AttemptPurpose.CONTINUATION, kept_from=(cut,))
        assert codes(done) == ["usage_estimated", "continued"][1:]
        assert done.warnings[0].message == "zero broke off; one went on from there"

    def test_a_schema_that_could_not_be_applied(self) -> None:
        assert codes(settled(reply(), schema_checked=False)) == ["schema_not_checked"]

    def test_an_answer_with_a_schema_that_was_cut(self) -> None:
        cut = replace(reply(), finish_reason=FinishReason.LENGTH)
        assert codes(settled(cut, schema={"type": "object"})) == ["schema_not_checked"]


class TestContinued:
    def test_the_usage_is_that_of_all_parts(self) -> None:
        cut = attempt("zero", ProviderFault(FaultKind.STREAM_CUT, "x"), cost=70, usage=Usage(50, output_tokens=10))
        whole = reply(parts=(TextPart("Hello, world"),))
        done = settled(reply(), cut, whole=whole, purpose=AttemptPurpose.CONTINUATION, kept_from=(cut,))
        assert (done.usage, done.estimated) == (Usage(90, output_tokens=20), False)
        assert (done.reply.text, done.cost_micro_usd) == ("Hello, world", 70 + 60)

    def test_it_is_an_estimate_where_the_first_gave_no_counts(self) -> None:
        cut = attempt("zero", ProviderFault(FaultKind.STREAM_CUT, "x"))
        done = settled(reply(), cut, purpose=AttemptPurpose.CONTINUATION, kept_from=(cut,))
        assert (done.usage, done.estimated) == (WHOLE, True)


class TestCancelled:
    SEEN = reply(NOTHING, parts=(TextPart("12345"),))
    COUNTED = TokenEstimate(40, exact=True, upper_bound=50)

    def test_what_was_seen_is_counted_and_priced(self) -> None:
        hung_up = estimate_cancelled(attempt(), self.SEEN, self.COUNTED, CharacterCounter())
        assert (hung_up.usage, hung_up.cost_micro_usd) == (Usage(40, output_tokens=5), 50)

    def test_what_the_provider_reported_goes_before(self) -> None:
        reported = attempt(usage=WHOLE, cost=60)
        assert estimate_cancelled(reported, self.SEEN, self.COUNTED, CharacterCounter()) is reported

    def test_nobody_waits_for_the_tokenizer(self) -> None:
        counter = CharacterCounter(is_ready=False)
        hung_up = estimate_cancelled(attempt(), self.SEEN, self.COUNTED, counter)
        assert hung_up.usage == Usage(40, output_tokens=2)
