"""How late the event loop is: what every call on it waits besides its own work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

INTERVAL_SECONDS = 0.25


class LoopLag:
    """Sets a timer every quarter of a second and tells `record` by how many seconds it came late."""

    def __init__(self, record: Callable[[float], None]) -> None:
        self._record = record
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begins to watch the running loop."""
        self._wait(asyncio.get_running_loop())

    def stop(self) -> None:
        """Sets no more timers."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + INTERVAL_SECONDS
        self._timer = loop.call_at(due, self._arrive, loop, due)

    def _arrive(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._record(max(0.0, loop.time() - due))
        self._wait(loop)
