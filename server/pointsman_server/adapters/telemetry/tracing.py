"""Spans of a call: one for the whole, one for the decision, one for each attempt. No text of anybody ever.

    pointsman.complete                model_selected, decision_latency, fallback_occurred
    ├── pointsman.decide              candidates, rejections
    ├── chat claude-haiku-4-5         purpose first, failed: overloaded
    └── chat gpt-5-mini               purpose fallback, because overloaded, succeeded

Spans are given their parent by hand and are never made current: an answer's pieces cross tasks and generators, where
what was made current in one would have to be undone in another.
"""

from __future__ import annotations

from collections.abc import Mapping
from time import time_ns

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from pointsman_server.adapters.telemetry import vocabulary as vocab
from pointsman_server.adapters.telemetry.call_metrics import CALLER_LEFT, FALLBACK_PURPOSES
from pointsman_server.domain.call import Attempt, AttemptOutcome, AttemptPurpose, Call, Completion, Decision
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.ports import Operation

_W3C = TraceContextTextMapPropagator()
_CANCELLED = "cancelled"


class Tracing:
    """See `Telemetry`; what is no part of a single call is for the metrics."""

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    def call(self, call: Call, operation: Operation) -> CallSpan:
        """See `Telemetry.call`. The span's parent is the current one, else the one that the caller names."""
        parent = None if trace.get_current_span().get_span_context().is_valid else _W3C.extract(call.headers)
        return CallSpan(self._tracer, call, operation, parent)

    def breaker_changed(self, deployment_id: str, before: BreakerState, after: BreakerState) -> None:
        """See `Telemetry.breaker_changed`."""

    def retried(self, operation: Operation, number: int) -> None:
        """See `Telemetry.retried`."""

    def hedged(self, *, won: bool) -> None:
        """See `Telemetry.hedged`."""

    def shed(self, reason: str) -> None:
        """See `Telemetry.shed`."""

    def guard_hit(self, guard: str, kind: str, action: str, count: int = 1) -> None:
        """See `Telemetry.guard_hit`."""


class CallSpan:
    """See `CallWatch`."""

    def __init__(self, tracer: Tracer, call: Call, operation: Operation, parent: Context | None) -> None:
        self._tracer = tracer
        self._call = call
        self._operation = operation
        self._began_at_ns = time_ns()
        self._span = tracer.start_span(
            f"pointsman.{operation.value}",
            parent,
            attributes={
                vocab.OPERATION_NAME: vocab.EMBEDDINGS if operation is Operation.EMBED else vocab.CHAT,
                vocab.REQUEST_ID: call.request_id,
                vocab.POLICY_VERSION: call.snapshot.version,
            },
            start_time=self._began_at_ns,
        )
        self._context = trace.set_span_in_context(self._span, Context())
        self._attempts = 0
        self._fell_back = False
        self._last_error = ""
        self._answers: dict[str, AttemptSpan] = {}

    def prepared(self, call: Call) -> None:
        """See `CallWatch.prepared`; no text is part of a span."""

    def decided(self, decision: Decision) -> None:
        """See `CallWatch.decided`."""
        if self._span.is_recording():
            self._tell_decision(decision)
        if self._operation is Operation.ROUTE:
            self._span.end()

    def attempt(self, deployment: Deployment, purpose: AttemptPurpose) -> AttemptSpan:
        """See `CallWatch.attempt`."""
        self._attempts += 1
        if purpose in FALLBACK_PURPOSES:
            self._fell_back = True
        if not self._span.is_recording():
            return AttemptSpan(self, self._span)  # names the trace to the provider as well as one of its own
        attributes = self._attributes_of_attempt(deployment, purpose)
        name = f"{vocab.operation_of(deployment)} {deployment.model_name}"
        return AttemptSpan(self, self._tracer.start_span(name, self._context, SpanKind.CLIENT, attributes))

    def first_content(self) -> None:
        """See `CallWatch.first_content`; the attempt's span has its own first token."""

    def completed(self, completion: Completion) -> None:
        """See `CallWatch.completed`."""
        if not self._span.is_recording():  # not sampled, or over
            return
        deployment, reply = completion.answered_by.deployment, completion.reply
        answer = vocab.of_answer(reply.model, reply.finish_reason.value)
        for deployment_id, attempt in self._answers.items():
            # Counts that the provider left out are filled in by now, on the account of the last attempt.
            given = answer | vocab.of_usage(completion.attempts[-1].usage)
            attempt.end(given if deployment_id == deployment.id else None)
        self._end(
            vocab.of_deployment(deployment)
            | answer
            | {
                vocab.MODEL_SELECTED: deployment.model.id,
                vocab.COST_MICRO_USD: completion.cost_micro_usd,
                vocab.CACHE: completion.cache.value,
                vocab.OUTCOME: AttemptOutcome.SUCCEEDED.value,
            }
        )

    def failed(self, error: BaseException) -> None:
        """See `CallWatch.failed`. An error is told by its type: its text may be for the caller only."""
        if not self._span.is_recording():
            return
        for attempt in self._answers.values():
            attempt.end()
        if isinstance(error, CALLER_LEFT):
            self._end({vocab.OUTCOME: AttemptOutcome.CANCELLED.value, vocab.ERROR: _CANCELLED})
            return
        self._span.set_status(Status(StatusCode.ERROR))
        self._end({vocab.OUTCOME: AttemptOutcome.FAILED.value, vocab.ERROR: type(error).__name__})

    def attempt_ended(self, attempt: AttemptSpan, account: Attempt) -> None:
        """An attempt of this call is over; one that answered is shown when its answer is settled."""
        if account.fault is not None:
            self._last_error = account.fault.kind.value
        if account.outcome is not AttemptOutcome.SUCCEEDED or not self._span.is_recording():
            attempt.end()
            return
        earlier = self._answers.get(account.deployment.id)
        if earlier is not None:
            earlier.end()
        self._answers[account.deployment.id] = attempt

    def _tell_decision(self, decision: Decision) -> None:
        plan = decision.plan
        chosen = plan.candidates[0].deployment
        self._span.set_attributes(
            {
                vocab.MODEL_SELECTED: chosen.model.id,
                vocab.DECISION_LATENCY: decision.latency_seconds,
                vocab.FALLBACK_OCCURRED: False,
                vocab.DECISION_ID: decision.id,
                vocab.DECISION_FOLLOWED: bool(self._call.decision_id),
            }
        )
        if self._operation is not Operation.EMBED:  # texts to be embedded ask nothing that could be judged
            judged = plan.complexity
            self._span.set_attributes({vocab.TASK: judged.task.value, vocab.TIER: judged.tier.name.lower()})
        if decision.template:
            self._span.set_attribute(vocab.TEMPLATE, decision.template)
        if self._call.decision_id:
            return  # it was made, and its span shown, in an earlier call
        ended_at_ns = time_ns()
        began_at_ns = max(self._began_at_ns, ended_at_ns - round(decision.latency_seconds * 1e9))
        span = self._tracer.start_span(
            vocab.SPAN_OF_DECISION,
            self._context,
            attributes={
                vocab.CANDIDATES: tuple(one.deployment.id for one in plan.candidates),
                vocab.REJECTIONS: tuple(f"{one.deployment_id}: {one.reason.value}" for one in plan.rejections),
            },
            start_time=began_at_ns,
        )
        span.end(ended_at_ns)

    def _attributes_of_attempt(self, deployment: Deployment, purpose: AttemptPurpose) -> vocab.Attributes:
        attributes = vocab.of_deployment(deployment)
        attributes[vocab.PURPOSE] = purpose.value
        attributes[vocab.NUMBER] = self._attempts
        if self._last_error:
            attributes[vocab.BECAUSE] = self._last_error
        return attributes

    def _end(self, attributes: vocab.Attributes) -> None:
        self._span.set_attributes(
            attributes | {vocab.FALLBACK_OCCURRED: self._fell_back, vocab.ATTEMPTS: self._attempts}
        )
        self._span.end()


class AttemptSpan:
    """See `AttemptWatch`."""

    def __init__(self, call: CallSpan, span: Span) -> None:
        self._call = call
        self._span = span
        self._ended_at_ns = 0

    @property
    def headers(self) -> Mapping[str, str]:
        """See `AttemptWatch.headers`."""
        headers: dict[str, str] = {}
        _W3C.inject(headers, trace.set_span_in_context(self._span, Context()))
        return headers

    def ended(self, attempt: Attempt) -> None:
        """See `AttemptWatch.ended`."""
        self._ended_at_ns = time_ns()
        if self._span.is_recording():
            self._tell(attempt)
        self._call.attempt_ended(self, attempt)

    def end(self, attributes: vocab.Attributes | None = None) -> None:
        """Lets the span go, with its end at the end of the attempt."""
        if attributes:
            self._span.set_attributes(attributes)
        self._span.end(self._ended_at_ns)

    def _tell(self, attempt: Attempt) -> None:
        attributes = vocab.of_usage(attempt.usage)
        attributes[vocab.OUTCOME] = attempt.outcome.value
        attributes[vocab.COST_MICRO_USD] = attempt.cost_micro_usd
        if attempt.first_token_seconds is not None:
            attributes[vocab.TIME_TO_FIRST_CHUNK] = attempt.first_token_seconds
        if attempt.fault is not None:
            attributes[vocab.ERROR] = attempt.fault.kind.value
            if attempt.fault.status:
                attributes[vocab.HTTP_STATUS] = attempt.fault.status
            self._span.set_status(Status(StatusCode.ERROR, attempt.fault.detail))
        elif attempt.outcome is AttemptOutcome.CANCELLED:
            attributes[vocab.ERROR] = _CANCELLED
        self._span.set_attributes(attributes)
