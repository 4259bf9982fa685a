"""A timer that costs nothing while things go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from pointsman_server.domain.ports import Clock

T = TypeVar("T")


class Patience:
    """Bounds one wait after the other.

    `asyncio.timeout` sets and cancels a timer of the loop for every wait; in a stream that is every piece. This one
    sets a timer once and looks, when it fires, whether anything came meanwhile.
    """

    __slots__ = ("_armed_for", "_cancelling", "_clock", "_ends_at", "_expired", "_handle", "_loop", "_waiter")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._ends_at = self._armed_for = 0.0
        self._expired = False

    async def wait(self, awaitable: Awaitable[T], ends_at: float) -> T:
        """What the awaitable gives; raises `TimeoutError` when that is not there at `ends_at` (monotonic seconds)."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("waiting needs a task")
        self._waiter, self._cancelling, self._ends_at = task, task.cancelling(), ends_at
        if self._handle is None or self._armed_for > ends_at:
            self._arm()
        try:
            return await awaitable
        except asyncio.CancelledError:
            # Somebody else may have cancelled the task at the same moment; that goes on as it is.
            if self._expired and task.uncancel() <= self._cancelling:
                raise TimeoutError from None
            raise
        finally:
            self._waiter = None

    def stop(self) -> None:
        """Nothing is waited for any more."""
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _arm(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._armed_for = self._ends_at
        self._handle = self._loop.call_later(max(0.0, self._ends_at - self._clock.monotonic()), self._fire)

    def _fire(self) -> None:
        self._handle = None
        if self._waiter is None:
            return
        if self._clock.monotonic() < self._ends_at - _EARLY_SECONDS:
            self._arm()
            return
        self._expired = True
        self._waiter.cancel()


_EARLY_SECONDS = 0.002
"""Timers of an event loop may fire this much early; to wait for less again is not worth it."""
