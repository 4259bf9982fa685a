"""How much of the caller's time a call may use."""

from __future__ import annotations

from typing import Any

from pointsman_server.domain.ports import Clock

MARGIN_SHARE = 0.05
MOST_MARGIN_SECONDS = 0.1
"""A call gives up this much before the caller's deadline, so that the typed error still reaches the caller."""

ROUNDING_SHARE = 0.01
"""gRPC sends a deadline rounded up to three digits, so that the server believes in up to this much more time."""


def deadline_of(context: Any, clock: Clock, began_at: float, longest_seconds: float) -> float:
    """When the call must be over, on the clock: as its caller says, and in the server's own time since it came."""
    left_seconds = seconds_to_use(context)
    longest_ends_at = began_at + longest_seconds
    # The caller's deadline is what is left of it now.
    return longest_ends_at if left_seconds is None else min(clock.monotonic() + left_seconds, longest_ends_at)


def seconds_to_use(context: Any) -> float | None:
    """From now until the call should give up, by the deadline of this `grpc.aio.ServicerContext`; None without one."""
    left_seconds: float | None = context.time_remaining()
    if left_seconds is None:
        return None
    return left_seconds - min(left_seconds * MARGIN_SHARE, MOST_MARGIN_SECONDS + left_seconds * ROUNDING_SHARE)
