"""Telemetry that writes down what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pointsman_server.domain.call import Attempt, AttemptPurpose, Call, Completion, Decision
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.ports import Operation
from pointsman_server.domain.request import CompletionRequest
from pointsman_server.domain.safety import Guarded


@dataclass
class SeenAttempt:
    """One attempt; `account` is None until it ended."""

    deployment_id: str
    purpose: AttemptPurpose
    headers: Mapping[str, str]
    account: Attempt | None = None

    def ended(self, attempt: Attempt) -> None:
        """See `AttemptWatch.ended`."""
        assert self.account is None, "an attempt ends once"
        self.account = attempt


@dataclass
class SeenCall:
    """One call."""

    operation: Operation
    headers: Mapping[str, str]
    decisions: list[Decision] = field(default_factory=list)
    shown: list[tuple[CompletionRequest, Guarded]] = field(default_factory=list)
    """Requests as the guards left them; not the calls, which hold on to their policies."""
    attempts: list[SeenAttempt] = field(default_factory=list)
    first_contents: int = 0
    completion: Completion | None = None
    error: BaseException | None = None

    def prepared(self, call: Call) -> None:
        """See `CallWatch.prepared`."""
        self.shown.append((call.request, call.guarded))

    def decided(self, decision: Decision) -> None:
        """See `CallWatch.decided`."""
        self.decisions.append(decision)

    def attempt(self, deployment: Deployment, purpose: AttemptPurpose) -> SeenAttempt:
        """See `CallWatch.attempt`."""
        seen = SeenAttempt(deployment.id, purpose, self.headers)
        self.attempts.append(seen)
        return seen

    def first_content(self) -> None:
        """See `CallWatch.first_content`."""
        self.first_contents += 1

    def completed(self, completion: Completion) -> None:
        """See `CallWatch.completed`."""
        self.completion = self.completion or completion

    def failed(self, error: BaseException) -> None:
        """See `CallWatch.failed`."""
        if self.completion is None and self.error is None:
            self.error = error


@dataclass
class SeenTelemetry:
    """Everything, in order."""

    headers: Mapping[str, str] = field(default_factory=dict)
    calls: list[SeenCall] = field(default_factory=list)
    breakers: list[tuple[str, BreakerState, BreakerState]] = field(default_factory=list)
    retries: list[tuple[Operation, int]] = field(default_factory=list)
    hedges: list[bool] = field(default_factory=list)
    sheds: list[str] = field(default_factory=list)
    guard_hits: list[tuple[str, str, str, int]] = field(default_factory=list)

    def call(self, call: Call, operation: Operation) -> SeenCall:
        """See `Telemetry.call`."""
        seen = SeenCall(operation, self.headers)
        self.calls.append(seen)
        return seen

    def breaker_changed(self, deployment_id: str, before: BreakerState, after: BreakerState) -> None:
        """See `Telemetry.breaker_changed`."""
        self.breakers.append((deployment_id, before, after))

    def retried(self, operation: Operation, number: int) -> None:
        """See `Telemetry.retried`."""
        self.retries.append((operation, number))

    def hedged(self, *, won: bool) -> None:
        """See `Telemetry.hedged`."""
        self.hedges.append(won)

    def shed(self, reason: str) -> None:
        """See `Telemetry.shed`."""
        self.sheds.append(reason)

    def guard_hit(self, guard: str, kind: str, action: str, count: int = 1) -> None:
        """See `Telemetry.guard_hit`."""
        self.guard_hits.append((guard, kind, action, count))
