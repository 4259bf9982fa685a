"""A call as somebody sees it who stands beside it: what was asked, begun, told and accounted, and when."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from typing import Protocol

from kit.clock import LoopClock
from kit.exchanges import Exchange, Wires
from kit.money import Money
from pointsman_server.domain.call import Attempt, AttemptPurpose, Call, Completion, Decision, FailedOver, Relay
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.errors import RouterError
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.plan import RoutePlan
from pointsman_server.domain.ports import Operation
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.dispatch_record import DispatchRecord

_NAME = "x-attempt"


class Referee(Protocol):
    """Hears of everything at the moment it happens, and protests when it may not."""

    def call_began(self, call: WitnessedCall) -> None:
        """A call begins."""

    def call_ended(self, call: WitnessedCall) -> None:
        """A call came to its end."""

    def attempt_began(self, attempt: WitnessedAttempt) -> None:
        """An attempt is let pass."""

    def attempt_ended(self, attempt: WitnessedAttempt) -> None:
        """An attempt is over and accounted."""

    def retry_granted(self, call: WitnessedCall) -> None:
        """A deployment is to be asked once more, after a pause."""

    def breaker_changed(self, deployment_id: str, before: BreakerState, after: BreakerState) -> None:
        """A breaker moved."""


@dataclass
class WitnessedAttempt:
    """One attempt; `account` and `ended_at` are None while it runs, `exchange` if it never came to the wire."""

    call: WitnessedCall
    deployment: Deployment
    purpose: AttemptPurpose
    began_at: float
    headers: Mapping[str, str]
    account: Attempt | None = None
    ended_at: float | None = None
    exchange: Exchange | None = None

    def ended(self, attempt: Attempt) -> None:
        """See `AttemptWatch.ended`."""
        assert self.account is None, "an attempt ends once"
        self.account, self.ended_at = attempt, LoopClock().monotonic()
        self.call.referee.attempt_ended(self)


@dataclass
class WitnessedCall:
    """One call. `error` is None when an answer came or the caller left; `resumed_at` is when he last read on.

    `left_at` is when the caller hung up, None if he stayed to the end.

    `begun_by_event` tells for each event how many attempts had begun.
    """

    call: Call
    plan: RoutePlan
    stream: bool
    referee: Referee
    attempts: list[WitnessedAttempt] = field(default_factory=list)
    record: DispatchRecord = field(default_factory=DispatchRecord)
    events: list[Relay | FailedOver] = field(default_factory=list)
    begun_by_event: list[int] = field(default_factory=list)
    error: RouterError | None = None
    left_at: float | None = None
    retries_granted: int = 0
    first_contents: int = 0
    reads_slowly: bool = False
    began_at: float = 0.0
    resumed_at: float = 0.0
    ended_at: float | None = None

    @property
    def left(self) -> bool:
        """Whether the caller hung up before the end."""
        return self.left_at is not None

    def hang_up(self, now: float) -> None:
        """The caller leaves, unless all is over."""
        if self.ended_at is None and self.left_at is None:
            self.left_at = now

    def attempt(self, deployment: Deployment, purpose: AttemptPurpose) -> WitnessedAttempt:
        """See `CallWatch.attempt`."""
        headers = {_NAME: str(next(_NAMES))}
        seen = WitnessedAttempt(self, deployment, purpose, LoopClock().monotonic(), headers)
        self.attempts.append(seen)
        self.referee.attempt_began(seen)
        return seen

    def first_content(self) -> None:
        """See `CallWatch.first_content`."""
        self.first_contents += 1

    def prepared(self, call: Call) -> None:
        """See `CallWatch.prepared`."""

    def decided(self, decision: Decision) -> None:
        """See `CallWatch.decided`."""

    def completed(self, completion: Completion) -> None:
        """See `CallWatch.completed`."""

    def failed(self, error: BaseException) -> None:
        """See `CallWatch.failed`."""


_NAMES = count()
_CURRENT: ContextVar[WitnessedCall] = ContextVar("current call")


@dataclass
class WitnessingTelemetry:
    """Passes on to the referee what is not told of one call alone."""

    referee: Referee | None = None
    hedges: list[bool] = field(default_factory=list)

    def call(self, call: Call, operation: Operation) -> WitnessedCall:
        """See `Telemetry.call`; here every call is begun by its caller."""
        raise AssertionError("a dispatch is watched by what its caller gives it")

    def breaker_changed(self, deployment_id: str, before: BreakerState, after: BreakerState) -> None:
        """See `Telemetry.breaker_changed`."""
        if self.referee is not None:
            self.referee.breaker_changed(deployment_id, before, after)

    def retried(self, operation: Operation, number: int) -> None:
        """See `Telemetry.retried`."""
        seen = _CURRENT.get()
        seen.retries_granted += 1
        assert number == seen.retries_granted
        assert operation is (Operation.STREAM_COMPLETE if seen.stream else Operation.COMPLETE)
        seen.referee.retry_granted(seen)

    def hedged(self, *, won: bool) -> None:
        """See `Telemetry.hedged`."""
        self.hedges.append(won)

    def shed(self, reason: str) -> None:
        """See `Telemetry.shed`."""

    def guard_hit(self, guard: str, kind: str, action: str, count: int = 1) -> None:
        """See `Telemetry.guard_hit`."""


@dataclass(frozen=True)
class Reader:
    """Takes `pause_seconds` over every event and leaves after so many, None is never."""

    pause_seconds: float = 0.0
    leaves_after: int | None = None


async def follow(dispatcher: Dispatcher, seen: WitnessedCall, reader: Reader) -> None:
    """Follows a call to its end; a caller who leaves on his own cancels the task this runs in."""
    now = asyncio.get_running_loop().time
    seen.began_at = seen.resumed_at = now()
    seen.reads_slowly = reader.pause_seconds > 0
    _CURRENT.set(seen)
    seen.referee.call_began(seen)
    running = dispatcher.run(seen.call, seen.plan, seen.record, seen, Money().cover, stream=seen.stream)
    try:
        async with aclosing(running) as events:
            async for event in events:
                seen.events.append(event)
                seen.begun_by_event.append(len(seen.attempts))
                if reader.leaves_after is not None and len(seen.events) >= reader.leaves_after:
                    seen.hang_up(now())
                    break
                if reader.pause_seconds:
                    await asyncio.sleep(reader.pause_seconds)
                    seen.resumed_at = now()
    except RouterError as error:
        seen.error = error
    except asyncio.CancelledError:
        assert seen.left
    seen.ended_at = now()
    seen.referee.call_ended(seen)


def tie(calls: Sequence[WitnessedCall], wires: Wires) -> None:
    """Tells every attempt which exchange was its own."""
    by_name = {exchange.call.headers[_NAME]: exchange for exchange in wires.exchanges}
    assert len(by_name) == len(wires.exchanges), "one attempt came to the wire twice"
    for call in calls:
        for attempt in call.attempts:
            attempt.exchange = by_name.pop(attempt.headers[_NAME], None)
    assert not by_name, "a provider was called without an attempt"
