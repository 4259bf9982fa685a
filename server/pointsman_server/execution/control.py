"""What operators set, as this process knows it; renewed while the service runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from pointsman_server.domain.control import Control
from pointsman_server.domain.ports import Clock, ControlSource, StoreUnavailableError

POLL_SECONDS = 0.5

LOOK_SECONDS = 5.0
"""After this a look at the store is given up, and the store counts as unreachable."""

Listener = Callable[[Control, Control], None]
"""Hears what was in force before and what is since. It must not take long: other listeners, and calls, wait."""

_LOG = structlog.stdlib.get_logger("pointsman.control")


class ControlBook:
    """The last known state of what operators set: load → start → close.

    `current` costs nothing and never waits. While the store is away it stays as it was; `confirmed_at` says when it was
    last known to be the newest (monotonic seconds).
    """

    def __init__(self, store: ControlSource, clock: Clock, poll_seconds: float = POLL_SECONDS) -> None:
        self._store = store
        self._clock = clock
        self._poll_seconds = poll_seconds
        self._listeners: list[Listener] = []
        self._one_look = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self.current = Control()
        self.confirmed_at = clock.monotonic()
        self.is_reachable = True

    async def load(self) -> None:
        """Learns the state for the first time. Raises `StoreUnavailableError`."""
        await self._look()

    def start(self) -> None:
        """Looks for changes from now on, in the background."""
        self._task = asyncio.create_task(self._keep_looking(), name="control-book")

    async def close(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def refresh(self) -> None:
        """Learns a change at once that this process made. Never fails: what cannot be learned now is learned later."""
        await self._try_to_look()

    def subscribe(self, listener: Listener) -> None:
        """Tells it every change from now on."""
        self._listeners.append(listener)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            await self._try_to_look()

    async def _try_to_look(self) -> None:
        try:
            await self._look()
        except Exception as error:
            # Whatever it is: if looking ended here, no kill switch would reach this process any more.
            if self.is_reachable:
                _LOG.warning("control_store_unreachable", error=_told(error))
            self.is_reachable = False
        else:
            if not self.is_reachable:
                _LOG.warning("control_store_back", revision=self.current.revision)
            self.is_reachable = True

    async def _look(self) -> None:
        # One after the other: an earlier state must not replace a later one.
        async with self._one_look:
            before, now = self.current, self._clock.monotonic()
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    # Revision 0 is the one of a new store, in which nothing was set: what a new book holds.
                    if await self._store.revision() != before.revision:
                        self.current = await self._store.load()
            except TimeoutError:
                raise StoreUnavailableError(f"the store did not answer for {LOOK_SECONDS:.0f} seconds") from None
            self.confirmed_at = now
            if self.current is not before:
                self._tell(before, self.current)

    def _tell(self, before: Control, after: Control) -> None:
        _LOG.info("control_changed", revision=after.revision)
        for listener in self._listeners:
            try:
                listener(before, after)
            except Exception as error:
                # The others must hear of it all the same.
                _LOG.error("control_listener_failed", error=type(error).__name__)


def _told(error: Exception) -> str:
    """The words of our own errors; of others the kind only."""
    return str(error) if isinstance(error, StoreUnavailableError) else type(error).__name__
