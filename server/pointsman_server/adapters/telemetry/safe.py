"""One eye made of several, none of which can fail a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ParamSpec, TypeVar

from pointsman_server.domain.call import Attempt, AttemptPurpose, Call, Completion, Decision
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.ports import AttemptWatch, CallWatch, Operation, Telemetry

_P = ParamSpec("_P")
_T = TypeVar("_T")


class SafeTelemetry:
    """See `Telemetry`. Hands on what happens to each part, the last of which gives the headers for providers.

    What a part raises is swallowed and counted in `failures`: a fault in here must not become one of the call.
    """

    def __init__(self, *parts: Telemetry) -> None:
        self._parts = parts
        self.failures = 0

    def call(self, call: Call, operation: Operation) -> _SafeCall:
        """See `Telemetry.call`."""
        return _SafeCall(self, call, [self.try_to(part.call, call, operation) for part in self._parts])

    def breaker_changed(self, deployment_id: str, before: BreakerState, after: BreakerState) -> None:
        """See `Telemetry.breaker_changed`."""
        for part in self._parts:
            self.try_to(part.breaker_changed, deployment_id, before, after)

    def retried(self, operation: Operation, number: int) -> None:
        """See `Telemetry.retried`."""
        for part in self._parts:
            self.try_to(part.retried, operation, number)

    def hedged(self, *, won: bool) -> None:
        """See `Telemetry.hedged`."""
        for part in self._parts:
            self.try_to(part.hedged, won=won)

    def shed(self, reason: str) -> None:
        """See `Telemetry.shed`."""
        for part in self._parts:
            self.try_to(part.shed, reason)

    def guard_hit(self, guard: str, kind: str, action: str, count: int = 1) -> None:
        """See `Telemetry.guard_hit`."""
        for part in self._parts:
            self.try_to(part.guard_hit, guard, kind, action, count)

    def try_to(self, tell: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> _T | None:
        """What telling gives, None where it fails."""
        try:
            return tell(*args, **kwargs)
        except Exception:
            self.failures += 1
            return None


class _SafeCall:
    """See `CallWatch`."""

    __slots__ = ("_all", "_call", "_parts")

    def __init__(self, owner: SafeTelemetry, call: Call, parts: list[CallWatch | None]) -> None:
        self._all = owner
        self._call = call
        self._parts = [part for part in parts if part is not None]

    def prepared(self, call: Call) -> None:
        for part in self._parts:
            self._all.try_to(part.prepared, call)

    def decided(self, decision: Decision) -> None:
        for part in self._parts:
            self._all.try_to(part.decided, decision)

    def attempt(self, deployment: Deployment, purpose: AttemptPurpose) -> _SafeAttempt:
        parts = [self._all.try_to(part.attempt, deployment, purpose) for part in self._parts]
        return _SafeAttempt(self._all, self._call.headers, parts)

    def first_content(self) -> None:
        for part in self._parts:
            self._all.try_to(part.first_content)

    def completed(self, completion: Completion) -> None:
        for part in self._parts:
            self._all.try_to(part.completed, completion)

    def failed(self, error: BaseException) -> None:
        for part in self._parts:
            self._all.try_to(part.failed, error)


class _SafeAttempt:
    """See `AttemptWatch`."""

    __slots__ = ("_all", "_headers", "_parts")

    def __init__(self, owner: SafeTelemetry, headers: Mapping[str, str], parts: list[AttemptWatch | None]) -> None:
        self._all = owner
        self._headers = headers
        self._parts = [part for part in parts if part is not None]

    @property
    def headers(self) -> Mapping[str, str]:
        last = self._parts[-1] if self._parts else None
        headers = None if last is None else self._all.try_to(lambda: last.headers)
        return self._headers if headers is None else headers

    def ended(self, attempt: Attempt) -> None:
        for part in self._parts:
            self._all.try_to(part.ended, attempt)
