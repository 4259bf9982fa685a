"""Limits over counters with moods, in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from kit.clock import LoopClock, in_virtual_time
from kit.limiting import SALT, MoodyCounters
from pointsman_server.execution.limits import Limits
from pointsman_server.execution.permits import CHUNKS_OF_A_LIMIT

MINUTE = 60.0

LARGE = 3 * CHUNKS_OF_A_LIMIT

_Result = TypeVar("_Result")


def running(body: Callable[[Limits, MoodyCounters], Awaitable[_Result]]) -> _Result:
    """Runs it in virtual time, and closes the limits."""

    async def run() -> _Result:
        counters = MoodyCounters(LoopClock())
        limits = Limits(counters, LoopClock(), SALT)
        try:
            return await body(limits, counters)
        finally:
            await limits.close()

    return in_virtual_time(run())
