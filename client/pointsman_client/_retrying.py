"""When a failed call is repeated, and after how long.

A call is repeated only when nothing can be spent or done twice:

    Route            on every UNAVAILABLE (a decision has no side effects)
    RecordFeedback   on every UNAVAILABLE (a second verdict replaces the first)
    Complete         when the server did not start it
    StreamComplete   when the server did not start it, and never once an event has come
    Embed            when the server did not start it
    all others       never

"Did not start it" is one of two things: the server says so (UNAVAILABLE or RESOURCE_EXHAUSTED with the reason
OVERLOADED or DRAINING, and `RetryInfo`), or the request never reached it (no connection was made, or HTTP/2 refused
the stream). The server's other refusals are the caller's to handle: a rate limit, for one, names its delay in
`RateLimited.retry_delay_seconds`.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import grpc

from pointsman_client.errors import PointsmanError, error_from_rpc

LEAST_ATTEMPT_SECONDS = 0.05
"""An attempt with less time than this left is not begun."""

_NOT_STARTED_REASONS = frozenset({"OVERLOADED", "DRAINING"})
_NOT_STARTED_CODES = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED})

# gRPC reports these by their text only, in the words of grpcio 1.70 or of 1.85. Its own retries would know better, but
# they do not know what a call costs.
_NEVER_SENT = re.compile(
    r"failed to connect to all addresses"
    r"|DNS resolution failed|errors resolving "
    r"|(Stream removed \(RST_STREAM \()?Received RST_STREAM with error code 7\b"
)


class Method(Enum):
    """The calls that may be repeated."""

    ROUTE = "Route"
    RECORD_FEEDBACK = "RecordFeedback"
    COMPLETE = "Complete"
    STREAM_COMPLETE = "StreamComplete"
    EMBED = "Embed"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how patiently a call is repeated, always within its deadline.

    Before attempt n + 1 the client waits a random time between 0 and `first_delay_seconds` doubled n - 1 times, at
    most `longest_delay_seconds`; when the server asks to wait, that comes on top. `max_attempts` counts the first one.
    """

    max_attempts: int = 3
    first_delay_seconds: float = 0.2
    longest_delay_seconds: float = 5.0

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError("max_attempts must be 1 or more; 1 means no retries")
        if not 0 <= self.first_delay_seconds <= self.longest_delay_seconds:
            raise ValueError("first_delay_seconds must be between 0 and longest_delay_seconds")


def was_not_started(error: PointsmanError) -> bool:
    """Whether the server certainly did nothing for this call."""
    if error.reason:
        asks_to_wait = error.retry_delay_seconds is not None
        return asks_to_wait and error.reason in _NOT_STARTED_REASONS and error.code in _NOT_STARTED_CODES
    return error.code is grpc.StatusCode.UNAVAILABLE and _NEVER_SENT.match(error.message) is not None


def _is_unavailable(error: PointsmanError) -> bool:
    return error.code is grpc.StatusCode.UNAVAILABLE or was_not_started(error)


_MAY_REPEAT: Mapping[Method, Callable[[PointsmanError], bool]] = {
    Method.ROUTE: _is_unavailable,
    Method.RECORD_FEEDBACK: _is_unavailable,
    Method.COMPLETE: was_not_started,
    Method.STREAM_COMPLETE: was_not_started,
    Method.EMBED: was_not_started,
}


class Attempts:
    """The attempts of one call: the time they have left, and what follows when one fails. Does no I/O."""

    def __init__(
        self,
        method: Method,
        policy: RetryPolicy,
        timeout_seconds: float,
        request_id: str,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.request_id = request_id
        self._method = method
        self._policy = policy
        self._clock = clock
        self._draw = draw
        self._deadline = clock() + timeout_seconds
        self._made = 0

    def begin(self) -> float:
        """Begins an attempt and returns the seconds it has."""
        self._made += 1
        return max(self._deadline - self._clock(), 0.001)

    def delay_after(self, rpc_error: grpc.RpcError) -> float:
        """The seconds to wait before the next attempt; raises the typed error when there is none."""
        error = error_from_rpc(rpc_error, request_id=self.request_id)
        delay = self._backoff() + (error.retry_delay_seconds or 0.0)
        left = self._deadline - self._clock() - delay
        may_repeat = self._made < self._policy.max_attempts and _MAY_REPEAT[self._method](error)
        if not may_repeat or left < LEAST_ATTEMPT_SECONDS:
            raise error from rpc_error
        return delay

    def _backoff(self) -> float:
        doublings = min(self._made - 1, 30)
        longest = min(self._policy.longest_delay_seconds, self._policy.first_delay_seconds * 2.0**doublings)
        return self._draw() * longest
