"""Work beside the calls, such as writing to a store: no call waits for it, and the end of a process only briefly."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

CLOSING_SECONDS = 1.0
"""So long the end of a process waits for what is still to be written."""


class Background:
    """One task: start → close. `work` looks at `is_ending`, and waits with `woken` for something to do."""

    def __init__(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._name = name
        self._work = work
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.is_ending = False

    def start(self) -> None:
        """Begins to work."""
        self._task = asyncio.create_task(self._work(), name=self._name)

    async def close(self) -> bool:
        """Lets it finish, if that takes no longer than `CLOSING_SECONDS`; False if it never began."""
        if self._task is None:
            return False
        self.is_ending = True
        self.wake()
        await asyncio.wait({self._task}, timeout=CLOSING_SECONDS)
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        return True

    def wake(self) -> None:
        """There is something to do."""
        self._wake.set()

    async def woken(self, within_seconds: float) -> None:
        """Waits until there is, or for so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                await self._wake.wait()

    def slept(self) -> None:
        """From here on it is to be woken anew."""
        self._wake.clear()


async def succeeds(work: Awaitable[None], failed: Callable[[str], object]) -> bool:
    """Whether this work does not fail; `failed` is told the type of the error alone."""
    try:
        await work
    except Exception as error:
        failed(type(error).__name__)
        return False
    return True
