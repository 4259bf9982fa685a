"""Calls as operators can look at them later: who asked what of whom, what was decided, tried, answered and paid."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from random import random

from pointsman_server.domain.call import Attempt, AttemptPurpose, Call, Completion, Decision
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.ports import CallWatch, Clock, Operation
from pointsman_server.domain.reply import Reply
from pointsman_server.domain.trace import EndedCall, TraceLine, TraceLog
from pointsman_server.domain.trace_policy import TraceMode, TracePolicy

_CALLER_LEFT = (asyncio.CancelledError, GeneratorExit)


class Recording:
    """See `Telemetry`. Hands calls that ended to `log`, as far as their policy wants them recorded.

    `outcome_of` gives the name of the gRPC code that an error becomes, `draw` a number from 0 up to 1 for the sample.
    """

    def __init__(
        self, log: TraceLog, outcome_of: Callable[[Exception], str], clock: Clock, draw: Callable[[], float] = random
    ) -> None:
        self.log = log
        self.outcome_of = outcome_of
        self.clock = clock
        self._draw = draw

    def call(self, call: Call, operation: Operation) -> CallWatch:
        """See `Telemetry.call`. `Route` asks nobody and is not recorded."""
        policy = call.snapshot.traces_of(call.tenant)
        if operation is Operation.ROUTE or policy.mode is TraceMode.OFF:
            return _Unrecorded(call)
        if policy.sample < 1.0 and self._draw() >= policy.sample:
            return _Unrecorded(call)
        return RecordedCall(self, call, policy)

    def breaker_changed(self, deployment_id: str, before: BreakerState, after: BreakerState) -> None:
        """See `Telemetry.breaker_changed`; not part of a call."""

    def retried(self, operation: Operation, number: int) -> None:
        """See `Telemetry.retried`; attempts tell it."""

    def hedged(self, *, won: bool) -> None:
        """See `Telemetry.hedged`; attempts tell it."""

    def shed(self, reason: str) -> None:
        """See `Telemetry.shed`; such a call never began."""

    def guard_hit(self, guard: str, kind: str, action: str, count: int = 1) -> None:
        """See `Telemetry.guard_hit`; not told of a call."""


class _Unrecorded:
    """See `CallWatch`. Of this call nothing is kept."""

    __slots__ = ("headers",)

    def __init__(self, call: Call) -> None:
        self.headers: Mapping[str, str] = call.headers

    def prepared(self, call: Call) -> None:
        """See `CallWatch.prepared`."""

    def decided(self, decision: Decision) -> None:
        """See `CallWatch.decided`."""

    def attempt(self, deployment: Deployment, purpose: AttemptPurpose) -> _Unrecorded:
        """See `CallWatch.attempt`."""
        return self

    def first_content(self) -> None:
        """See `CallWatch.first_content`."""

    def completed(self, completion: Completion) -> None:
        """See `CallWatch.completed`."""

    def failed(self, error: BaseException) -> None:
        """See `CallWatch.failed`."""

    def ended(self, attempt: Attempt) -> None:
        """See `AttemptWatch.ended`."""


class RecordedCall:
    """See `CallWatch`."""

    __slots__ = (
        "_attempts",
        "_began_at",
        "_call",
        "_decision",
        "_is_over",
        "_owner",
        "_policy",
        "_shown",
        "_started_at",
    )

    def __init__(self, owner: Recording, call: Call, policy: TracePolicy) -> None:
        self._owner = owner
        self._call = call
        self._policy = policy
        self._started_at, self._began_at = owner.clock.now(), owner.clock.monotonic()
        self._decision: Decision | None = None
        self._attempts: list[Attempt] = []
        self._shown: Call | None = None
        self._is_over = False

    def prepared(self, call: Call) -> None:
        """See `CallWatch.prepared`."""
        if self._policy.mode is TraceMode.TEXT:
            self._shown = call

    def decided(self, decision: Decision) -> None:
        """See `CallWatch.decided`."""
        self._decision = decision

    def attempt(self, deployment: Deployment, purpose: AttemptPurpose) -> _RecordedAttempt:
        """See `CallWatch.attempt`."""
        return _RecordedAttempt(self._attempts, self._call.headers)

    def first_content(self) -> None:
        """See `CallWatch.first_content`; attempts have their own."""

    def completed(self, completion: Completion) -> None:
        """See `CallWatch.completed`."""
        model = completion.answered_by.deployment.model.id
        self._end("OK", model, completion.cost_micro_usd, completion.attempts, completion.reply)

    def failed(self, error: BaseException) -> None:
        """See `CallWatch.failed`."""
        if self._is_over:
            return
        model = self._attempts[-1].deployment.model.id if self._attempts else ""
        cost_micro_usd = sum(attempt.cost_micro_usd for attempt in self._attempts)
        self._end(self._outcome_of(error), model, cost_micro_usd, tuple(self._attempts), None)

    def _outcome_of(self, error: BaseException) -> str:
        if isinstance(error, Exception) and not isinstance(error, _CALLER_LEFT):
            return self._owner.outcome_of(error)
        # Out of time and gone look the same from here, except to the clock.
        return "DEADLINE_EXCEEDED" if self._owner.clock.monotonic() >= self._call.deadline else "CANCELLED"

    def _end(
        self, outcome: str, model: str, cost_micro_usd: int, attempts: tuple[Attempt, ...], reply: Reply | None
    ) -> None:
        if self._is_over:
            return
        self._is_over = True
        call, latency_seconds = self._call, self._owner.clock.monotonic() - self._began_at
        line = TraceLine(
            call.request_id, self._started_at, latency_seconds, call.tenant, model, outcome, cost_micro_usd
        )
        # Of a prompt that nobody was to be shown nothing is kept.
        shown = None if self._decision is None else self._shown
        ended = EndedCall(
            line=line,
            policy=self._policy,
            labels=call.request.labels,
            decision=self._decision,
            attempts=attempts,
            shown=shown,
            reply=None if shown is None else reply,
        )
        self._owner.log.record(ended)


class _RecordedAttempt:
    """See `AttemptWatch`."""

    __slots__ = ("_all", "headers")

    def __init__(self, all_of_call: list[Attempt], headers: Mapping[str, str]) -> None:
        self._all = all_of_call
        self.headers = headers

    def ended(self, attempt: Attempt) -> None:
        """See `AttemptWatch.ended`."""
        self._all.append(attempt)
