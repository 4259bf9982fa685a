from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from kit.accounts import SECRET, attempt, cancelled, completion, decision, failed
from kit.catalog import call, deployment, plan, rejection, request, snapshot
from pointsman_server.adapters.telemetry.tracing import CallSpan, Tracing
from pointsman_server.domain.call import AttemptPurpose
from pointsman_server.domain.catalog import Dialect, EmbeddingTraits
from pointsman_server.domain.errors import AttemptsFailed, FieldProblem, InvalidRequest
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.plan import ExclusionReason
from pointsman_server.domain.ports import Operation
from pointsman_server.domain.reply import Usage

A = deployment("a", by={"dialect": Dialect.ANTHROPIC_MESSAGES})
B = deployment("b", by={"dialect": Dialect.COHERE_CHAT})
POLICY = snapshot(A, B)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Traces:
    """A tracer whose spans the test can read."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(self.provider.get_tracer("test"))

    def begin(self, operation: Operation = Operation.COMPLETE, **changes: Any) -> CallSpan:
        """A call begins."""
        return self.tracing.call(call(POLICY, **changes), operation)

    @property
    def spans(self) -> list[ReadableSpan]:
        """Those that ended, in this order."""
        return list(self._exporter.get_finished_spans())

    def named(self, name: str) -> ReadableSpan:
        """The only one with this name."""
        (found,) = [span for span in self.spans if span.name == name]
        return found


@pytest.fixture
def traces() -> Iterator[Traces]:
    made = Traces()
    yield made
    made.provider.shutdown()


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    span_id: int = span.context.span_id
    return span_id


def test_a_call_that_goes_well(traces: Traces) -> None:
    watch = traces.begin()
    watch.decided(decision(A, B))
    usage = Usage(
        input_tokens=9, cached_input_tokens=5, cache_write_input_tokens=2, output_tokens=3, reasoning_tokens=1
    )
    account = attempt(A, usage=usage, first_token_seconds=0.25)
    watch.attempt(A, AttemptPurpose.FIRST).ended(account)
    watch.first_content()
    watch.completed(completion(account, model="a-1-20260101"))
    of_call, of_decision = traces.named("pointsman.complete"), traces.named("pointsman.decide")
    of_attempt = traces.named("chat a-1")
    assert told(of_call) == {
        "model_selected": "a-model",
        "decision_latency": 0.002,
        "fallback_occurred": False,
        "pointsman.request_id": "req_test",
        "pointsman.policy_version": "v1",
        "pointsman.decision.id": "dec_1",
        "pointsman.decision.followed": False,
        "pointsman.task": "chat",
        "pointsman.tier": "standard",
        "pointsman.deployment": "a",
        "pointsman.provider": "a-provider",
        "pointsman.model": "a-model",
        "pointsman.outcome": "succeeded",
        "pointsman.attempts": 1,
        "pointsman.cost_micro_usd": 15,
        "pointsman.cache": "bypass",
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "a-1",
        "gen_ai.response.model": "a-1-20260101",
        "gen_ai.response.finish_reasons": ("stop",),
    }
    assert told(of_attempt) == {
        "pointsman.attempt.purpose": "first",
        "pointsman.attempt.number": 1,
        "pointsman.deployment": "a",
        "pointsman.provider": "a-provider",
        "pointsman.model": "a-model",
        "pointsman.outcome": "succeeded",
        "pointsman.cost_micro_usd": 15,
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "a-1",
        "gen_ai.response.model": "a-1-20260101",
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.time_to_first_chunk": 0.25,
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 5,
        "gen_ai.usage.cache_creation.input_tokens": 2,
        "gen_ai.usage.reasoning.output_tokens": 1,
    }
    assert (of_call.kind, of_attempt.kind) == (SpanKind.INTERNAL, SpanKind.CLIENT)
    assert of_call.status.status_code is of_attempt.status.status_code is StatusCode.UNSET
    assert {parent_of(of_decision), parent_of(of_attempt)} == {id_of(of_call)}
    assert of_call.parent is None


def test_the_decision_has_a_span_as_long_as_it_took_within_the_call(traces: Traces) -> None:
    watch = traces.begin(Operation.ROUTE)
    chosen = plan([A], rejections=(rejection("b", ExclusionReason.BREAKER_OPEN),))
    watch.decided(decision(A, plan=chosen, latency_seconds=5.0))
    of_call, of_decision = traces.named("pointsman.route"), traces.named("pointsman.decide")
    assert told(of_decision) == {
        "pointsman.decision.candidates": ("a",),
        "pointsman.decision.rejections": ("b: breaker_open",),
    }
    assert of_decision.start_time == of_call.start_time
    assert of_decision.end_time is not None
    assert of_call.end_time is not None
    assert of_decision.end_time <= of_call.end_time


def test_route_ends_with_its_decision(traces: Traces) -> None:
    watch = traces.begin(Operation.ROUTE)
    watch.decided(decision(A))
    watch.failed(GeneratorExit())
    assert told(traces.named("pointsman.route"))["model_selected"] == "a-model"
    assert "error.type" not in told(traces.named("pointsman.route"))


def test_a_template_is_told_by_its_name_and_version(traces: Traces) -> None:
    traces.begin(Operation.ROUTE).decided(decision(A, template="greet@2"))
    assert told(traces.named("pointsman.route"))["pointsman.template"] == "greet@2"


def test_a_followed_decision_says_so_and_is_not_shown_twice(traces: Traces) -> None:
    watch = traces.begin(decision_id="dec_1")
    watch.decided(decision(A))
    watch.completed(completion(attempt(A)))
    assert [span.name for span in traces.spans] == ["pointsman.complete"]
    assert told(traces.spans[0])["pointsman.decision.followed"] is True
    assert told(traces.spans[0])["decision_latency"] == 0.002


def test_a_fallback_shows_why_each_attempt_failed_and_what_came_next(traces: Traces) -> None:
    watch = traces.begin(Operation.STREAM_COMPLETE)
    watch.decided(decision(A, B))
    watch.attempt(A, AttemptPurpose.FIRST).ended(failed(A))
    timed_out = failed(A, fault=ProviderFault(FaultKind.TIMEOUT, "no content within the time allowed"))
    watch.attempt(A, AttemptPurpose.RETRY).ended(timed_out)
    last = attempt(B)
    watch.attempt(B, AttemptPurpose.FALLBACK).ended(last)
    watch.completed(completion(failed(A), timed_out, last))
    shown = [
        (
            span.name,
            told(span)["pointsman.attempt.number"],
            told(span)["pointsman.attempt.purpose"],
            told(span).get("pointsman.attempt.because"),
            told(span).get("error.type"),
            told(span).get("http.response.status_code"),
            span.status.description,
        )
        for span in traces.spans
        if span.name.startswith("chat")
    ]
    assert shown == [
        ("chat a-1", 1, "first", None, "overloaded", 503, "the provider is busy"),
        ("chat a-1", 2, "retry", "overloaded", "timeout", None, "no content within the time allowed"),
        ("chat b-1", 3, "fallback", "timeout", None, None, None),
    ]
    of_call = told(traces.named("pointsman.stream_complete"))
    assert (of_call["model_selected"], of_call["fallback_occurred"]) == ("b-model", True)
    assert of_call["gen_ai.provider.name"] == "cohere"


def test_counts_filled_in_later_stand_on_the_attempt(traces: Traces) -> None:
    watch = traces.begin()
    watch.attempt(A, AttemptPurpose.FIRST).ended(attempt(A, usage=Usage(input_tokens=9)))
    watch.completed(completion(attempt(A, usage=Usage(input_tokens=9, output_tokens=4))))
    assert told(traces.named("chat a-1"))["gen_ai.usage.output_tokens"] == 4


def test_an_answer_that_is_made_anew_and_a_hedge_that_ends_late(traces: Traces) -> None:
    watch = traces.begin()
    watch.attempt(A, AttemptPurpose.FIRST).ended(attempt(A))
    late = watch.attempt(B, AttemptPurpose.HEDGE)
    watch.attempt(A, AttemptPurpose.REPAIR).ended(attempt(A))
    watch.completed(completion(attempt(A), attempt(A)))
    late.ended(attempt(B))
    purposes = [told(span)["pointsman.attempt.purpose"] for span in traces.spans if span.name.startswith("chat")]
    assert purposes == ["first", "repair", "hedge"]


def test_a_call_that_fails_tells_the_kind_of_error_and_nothing_of_its_text(traces: Traces) -> None:
    watch = traces.begin()
    watch.decided(decision(A))
    watch.attempt(A, AttemptPurpose.FIRST).ended(attempt(A))
    watch.failed(InvalidRequest((FieldProblem("completion", SECRET),)))
    of_call = traces.named("pointsman.complete")
    assert told(of_call)["error.type"] == "InvalidRequest"
    assert told(of_call)["pointsman.outcome"] == "failed"
    assert (of_call.status.status_code, of_call.status.description) == (StatusCode.ERROR, None)
    assert traces.named("chat a-1").end_time is not None


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit()])
def test_a_caller_who_leaves_is_no_error(traces: Traces, error: BaseException) -> None:
    watch = traces.begin()
    watch.decided(decision(A))
    watch.attempt(A, AttemptPurpose.FIRST).ended(cancelled(A))
    watch.failed(error)
    for name in ("pointsman.complete", "chat a-1"):
        span = traces.named(name)
        assert told(span)["error.type"] == told(span)["pointsman.outcome"] == "cancelled"
        assert span.status.status_code is StatusCode.UNSET


def test_only_the_first_end_counts(traces: Traces) -> None:
    watch = traces.begin()
    watch.failed(AttemptsFailed(()))
    watch.completed(completion(attempt(A)))
    watch.failed(GeneratorExit())
    assert told(traces.named("pointsman.complete"))["error.type"] == "AttemptsFailed"


class TestTheTrace:
    def test_is_the_callers(self, traces: Traces) -> None:
        watch = traces.begin(headers={"traceparent": TRACEPARENT})
        headers = watch.attempt(A, AttemptPurpose.FIRST).headers
        watch.failed(AttemptsFailed(()))
        (span,) = traces.spans
        assert span.context is not None
        assert f"{span.context.trace_id:032x}" == TRACEPARENT[3:35]
        assert f"{parent_of(span):016x}" == TRACEPARENT[36:52]
        assert headers["traceparent"].startswith(TRACEPARENT[:36])
        assert headers["traceparent"] != TRACEPARENT

    def test_is_that_of_the_span_around_the_call(self, traces: Traces) -> None:
        with traces.provider.get_tracer("test").start_as_current_span("around") as around:
            watch = traces.begin(headers={"traceparent": TRACEPARENT})
            watch.failed(AttemptsFailed(()))
        assert parent_of(traces.named("pointsman.complete")) == around.get_span_context().span_id

    def test_goes_on_to_the_provider_with_the_attempts_own_span(self, traces: Traces) -> None:
        watch = traces.begin(headers={"traceparent": TRACEPARENT, "tracestate": "vendor=1"})
        running = watch.attempt(A, AttemptPurpose.FIRST)
        headers = running.headers
        running.ended(failed(A))
        of_attempt = traces.named("chat a-1")
        assert headers == {
            "traceparent": f"00-{TRACEPARENT[3:35]}-{id_of(of_attempt):016x}-01",
            "tracestate": "vendor=1",
        }

    def test_is_named_to_the_provider_when_nobody_samples_it(self) -> None:
        traces = Traces(ParentBased(ALWAYS_OFF))
        watch = traces.begin()
        watch.decided(decision(A))
        running = watch.attempt(A, AttemptPurpose.FIRST)
        flags = running.headers["traceparent"].rpartition("-")[2]
        assert not int(flags, 16) & 1  # not sampled
        running.ended(attempt(A))
        watch.completed(completion(attempt(A)))
        watch.failed(GeneratorExit())
        assert traces.spans == []

    def test_is_not_left_in_the_callers_context(self, traces: Traces) -> None:
        watch = traces.begin()
        watch.attempt(A, AttemptPurpose.FIRST)
        assert trace.get_current_span() is trace.INVALID_SPAN


def test_vectors_are_told_as_what_they_are(traces: Traces) -> None:
    place = deployment("v", of={"embedding": EmbeddingTraits(3)})
    watch = traces.begin(Operation.EMBED)
    watch.decided(decision(place))
    account = attempt(place, usage=Usage(input_tokens=9, output_tokens=0))
    watch.attempt(place, AttemptPurpose.FIRST).ended(account)
    watch.completed(completion(account))
    of_call, of_attempt = told(traces.named("pointsman.embed")), told(traces.named("embeddings v-1"))
    assert of_call["gen_ai.operation.name"] == of_attempt["gen_ai.operation.name"] == "embeddings"
    assert of_attempt["gen_ai.usage.input_tokens"] == 9
    assert of_call["pointsman.decision.id"] == "dec_1"
    assert not of_call.keys() & {"pointsman.task", "pointsman.tier"}


def test_a_simulated_provider_goes_by_no_other_name(traces: Traces) -> None:
    simulated = deployment("a", by={"simulated": True})
    traces.begin().attempt(simulated, AttemptPurpose.FIRST).ended(failed(simulated))
    attributes = told(traces.named("chat a-1"))
    assert attributes["gen_ai.provider.name"] == attributes["pointsman.provider"] == "simulated"


@pytest.mark.parametrize("model", [f"{SECRET} {SECRET}", "", "x" * 129, "a\nb"])
def test_a_name_of_a_model_that_is_none_stays_out(traces: Traces, model: str) -> None:
    watch = traces.begin()
    watch.attempt(A, AttemptPurpose.FIRST).ended(attempt(A))
    watch.completed(completion(attempt(A), model=model))
    assert all("gen_ai.response.model" not in told(span) for span in traces.spans)


def test_no_text_of_anybody_is_told(traces: Traces) -> None:
    asked = request(f"prompt {SECRET}", labels={"team": SECRET}, session_id=SECRET)
    watch = traces.begin(request=asked, tenant=SECRET)
    watch.decided(decision(A))
    watch.attempt(A, AttemptPurpose.FIRST).ended(attempt(A))
    watch.completed(completion(attempt(A)))
    assert len(traces.spans) == 3
    assert SECRET not in "".join(span.to_json() for span in traces.spans)


def test_what_is_no_part_of_a_call_makes_no_spans(traces: Traces) -> None:
    traces.tracing.breaker_changed("a", BreakerState.CLOSED, BreakerState.OPEN)
    traces.tracing.retried(Operation.COMPLETE, 1)
    traces.tracing.hedged(won=True)
    traces.tracing.shed("calls")
    traces.tracing.guard_hit("sensitive", "EMAIL", "mask")
    assert traces.spans == []


def test_of_several_that_answered_the_one_that_was_given_shows_the_answer(traces: Traces) -> None:
    """A cross-check answers later than the answer that is compared with it."""
    watch = traces.begin()
    watch.decided(decision(A, B))
    first, checked = attempt(A, usage=Usage()), attempt(B, purpose=AttemptPurpose.CROSS_CHECK)
    watch.attempt(A, AttemptPurpose.FIRST).ended(first)
    watch.attempt(B, AttemptPurpose.CROSS_CHECK).ended(checked)
    watch.completed(completion(checked, attempt(A), model="a-1-20260101"))
    answered, compared = told(traces.named("chat a-1")), told(traces.named("chat b-1"))
    assert answered["gen_ai.response.model"] == "a-1-20260101"
    assert answered["gen_ai.usage.input_tokens"] == 9
    assert "gen_ai.response.model" not in compared
    assert compared["pointsman.attempt.purpose"] == "cross_check"
    assert traces.named("pointsman.complete").parent is None


def test_all_that_answered_are_shown_when_the_call_fails_after_all(traces: Traces) -> None:
    watch = traces.begin()
    watch.attempt(A, AttemptPurpose.FIRST).ended(attempt(A))
    watch.attempt(B, AttemptPurpose.ESCALATION).ended(attempt(B))
    watch.failed(asyncio.CancelledError())
    assert {span.name for span in traces.spans} == {"chat a-1", "chat b-1", "pointsman.complete"}
