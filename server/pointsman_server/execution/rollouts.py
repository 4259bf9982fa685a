"""Watches a canary beside the rest of the calls, and ends it by itself when it does far worse."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from pointsman_server.domain.call import AttemptPurpose, Call, Completion, Decision
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.control import Rollout, RolloutKind
from pointsman_server.domain.errors import (
    ContextOverflow,
    DecisionExpired,
    Draining,
    InvalidRequest,
    Overloaded,
    PermissionDenied,
    ReaderTooSlow,
    RequestIdReused,
    RequestNotFound,
    SwitchedOff,
    Unauthenticated,
    UnsupportedContent,
)
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.ports import (
    AttemptWatch,
    CallWatch,
    Clock,
    ControlKeeper,
    Operation,
    StoreUnavailableError,
    Telemetry,
)
from pointsman_server.execution.control import ControlBook
from pointsman_server.execution.policies import PolicyKeeper

LEAST_SAMPLES = 50
MOST_SAMPLES = 1_000
"""Of each side the latest count, so that a canary that was well for long is not forgiven for as long."""

WORSE_FACTOR = 2.0
LEAST_ERROR_RATE = 0.01
"""What a control without errors counts as; otherwise the first error of a canary would end it."""

LATENCY_QUANTILE = 0.95
JUDGE_SECONDS = 1.0

AUTOMATIC = "automatic rollback"
"""Who ended a trial when nobody did."""

_NOT_THE_POLICYS = (
    Unauthenticated,
    PermissionDenied,
    InvalidRequest,
    SwitchedOff,
    RequestIdReused,
    RequestNotFound,
    DecisionExpired,
    ReaderTooSlow,
    Overloaded,
    Draining,
)
_THE_POLICYS_ALL_THE_SAME = (ContextOverflow, UnsupportedContent)
"""The request is wrong for the deployments that this policy has."""

_LOG = structlog.stdlib.get_logger("pointsman.rollouts")


@dataclass(slots=True)
class Samples:
    """How the latest calls under one policy went: whether each failed, and the seconds until each answer."""

    failed: deque[bool] = field(default_factory=lambda: deque(maxlen=MOST_SAMPLES))
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_SAMPLES))

    @property
    def error_rate(self) -> float:
        """The share that failed, 0 of none."""
        return sum(self.failed) / len(self.failed) if self.failed else 0.0

    @property
    def slow_seconds(self) -> float:
        """The time within which 95 % of the answers came, 0 of none."""
        if not self.seconds:
            return 0.0
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(len(ordered) * LATENCY_QUANTILE))]


def verdict_on(canary: Samples, control: Samples) -> str:
    """Why the canary has to end, "" as long as it may go on."""
    if len(canary.failed) >= LEAST_SAMPLES:
        allowed = WORSE_FACTOR * max(control.error_rate, LEAST_ERROR_RATE)
        if canary.error_rate > allowed:
            return f"{canary.error_rate:.1%} of its calls failed, {control.error_rate:.1%} of the others"
    if min(len(canary.seconds), len(control.seconds)) >= LEAST_SAMPLES:
        slow, usual = canary.slow_seconds, control.slow_seconds
        if slow > WORSE_FACTOR * usual:
            return f"95 % of its answers came within {slow:.2f} s, those of the others within {usual:.2f} s"
    return ""


class CanaryWatch:
    """Telemetry that also counts how calls went while a canary runs; all it is told it passes on to `telemetry`.

    start → close. Each process judges by its own calls; whichever finds the canary worse ends it for all.
    """

    def __init__(
        self, telemetry: Telemetry, keeper: PolicyKeeper, clock: Clock, store: ControlKeeper, book: ControlBook
    ) -> None:
        self._telemetry = telemetry
        self._keeper = keeper
        self._clock = clock
        self._store = store
        self._book = book
        self._task: asyncio.Task[None] | None = None
        self._versions = ("", "")
        self.canary, self.control = Samples(), Samples()

    def start(self) -> None:
        """Judges from now on."""
        self._task = asyncio.create_task(self._keep_judging(), name="canary-watch")

    async def close(self) -> None:
        """Judges no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def call(self, call: Call, operation: Operation) -> CallWatch:
        """See `Telemetry.call`."""
        watch = self._telemetry.call(call, operation)
        if operation is Operation.ROUTE or self._keeper.canary is None:
            return watch
        samples = self._samples_of(call.snapshot.version)
        return watch if samples is None else _CountedCall(watch, samples, self._clock)

    def breaker_changed(self, deployment_id: str, before: BreakerState, after: BreakerState) -> None:
        """See `Telemetry.breaker_changed`."""
        self._telemetry.breaker_changed(deployment_id, before, after)

    def retried(self, operation: Operation, number: int) -> None:
        """See `Telemetry.retried`."""
        self._telemetry.retried(operation, number)

    def hedged(self, *, won: bool) -> None:
        """See `Telemetry.hedged`."""
        self._telemetry.hedged(won=won)

    def shed(self, reason: str) -> None:
        """See `Telemetry.shed`."""
        self._telemetry.shed(reason)

    def guard_hit(self, guard: str, kind: str, action: str, count: int = 1) -> None:
        """See `Telemetry.guard_hit`."""
        self._telemetry.guard_hit(guard, kind, action, count)

    async def judge(self) -> None:
        """Ends the canary if it does far worse. Never fails."""
        rollout = self._keeper.rollout
        if rollout is None or rollout.kind is not RolloutKind.CANARY:
            return
        why = verdict_on(self.canary, self.control)
        if why and self._versions[0] == self._canary_version:
            await self._end(rollout, why)

    def _samples_of(self, version: str) -> Samples | None:
        versions = (self._canary_version, self._keeper.current.version)
        if versions != self._versions:
            self._versions = versions
            self.canary, self.control = Samples(), Samples()
        if version == versions[0]:
            return self.canary
        return self.control if version == versions[1] else None

    @property
    def _canary_version(self) -> str:
        canary = self._keeper.canary
        return "" if canary is None else canary.version

    async def _keep_judging(self) -> None:
        while True:
            await asyncio.sleep(JUDGE_SECONDS)
            await self.judge()

    async def _end(self, rollout: Rollout, why: str) -> None:
        async with self._keeper.changing:
            if self._keeper.rollout != rollout:
                return
            # Here at once, whether or not the others can be told.
            await self._keeper.end_trial()
            _LOG.error("rollout_rolled_back", policy_version=rollout.version, percent=rollout.percent, reason=why)
            try:
                if self._book.current.rollout == rollout:
                    await self._store.set_rollout(None, AUTOMATIC, why)
                    await self._book.refresh()
            except StoreUnavailableError as error:
                _LOG.error("rollback_not_shared", policy_version=rollout.version, error=str(error))


class _CountedCall:
    """One call. A stream counts until its first content: what comes after it is the reader's pace too."""

    def __init__(self, watch: CallWatch, samples: Samples, clock: Clock) -> None:
        self._watch = watch
        self._samples = samples
        self._clock = clock
        self._began_at = clock.monotonic()
        self._seconds: float | None = None
        self._is_over = False

    def prepared(self, call: Call) -> None:
        self._watch.prepared(call)

    def decided(self, decision: Decision) -> None:
        self._watch.decided(decision)

    def attempt(self, deployment: Deployment, purpose: AttemptPurpose) -> AttemptWatch:
        return self._watch.attempt(deployment, purpose)

    def first_content(self) -> None:
        self._seconds = self._clock.monotonic() - self._began_at
        self._watch.first_content()

    def completed(self, completion: Completion) -> None:
        self._watch.completed(completion)
        if not self._is_over:
            self._is_over = True
            self._samples.failed.append(False)
            self._samples.seconds.append(
                self._clock.monotonic() - self._began_at if self._seconds is None else self._seconds
            )

    def failed(self, error: BaseException) -> None:
        self._watch.failed(error)
        if not self._is_over and _is_the_policys(error):
            self._samples.failed.append(True)
        self._is_over = True


def _is_the_policys(error: BaseException) -> bool:
    """Whether another policy could have made the call succeed."""
    if not isinstance(error, Exception):
        return False  # the caller went away
    return not isinstance(error, _NOT_THE_POLICYS) or isinstance(error, _THE_POLICYS_ALL_THE_SAME)
