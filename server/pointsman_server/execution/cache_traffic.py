"""The way to the cache's store and back, on which no call ever waits for long and none fails."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Any, TypeVar, cast

import structlog

from pointsman_server.domain.cache import CacheStore, Entry
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.background import Background, succeeds

T = TypeVar("T")

READ_SECONDS = 0.05
"""A call waits so long for the store, and then goes on without it."""

MOST_READS = 2
"""At once. Other things need the database's connections too."""

REST_SECONDS = 1.0
"""For so long nothing is asked of a store that failed."""

MOST_WAITING = 256
"""Entries that may wait for being written; more are dropped."""

USE_SECONDS = 5.0
"""How often it is written down what was used, unless there is something else to write. Hits must not become writes."""

CLEANING_SECONDS = 60.0

_LOG = structlog.stdlib.get_logger("pointsman.cache")


class Reads:
    """Asks the store. A read that takes too long goes on without whoever asked; until it ends nobody else asks."""

    def __init__(self, clock: Clock, patience_seconds: float = READ_SECONDS) -> None:
        self._clock = clock
        self._patience_seconds = patience_seconds
        self._places = asyncio.Semaphore(MOST_READS)
        self._running: dict[Hashable, asyncio.Task[Any]] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._rests_until = float("-inf")

    async def ask(self, what: Hashable, read: Callable[[], Awaitable[T]]) -> T | None:
        """What the read gives; None where it fails or takes too long. Who asks for the same gets the same."""
        task = self._running.get(what)
        if task is None:
            if self._late or self._clock.monotonic() < self._rests_until:
                return None
            task = asyncio.create_task(self._read(read), name="read-cache")
            self._running[what] = task
            task.add_done_callback(lambda ended: self._ended(what, ended))
        await asyncio.wait({task}, timeout=self._patience_seconds)
        if not task.done():
            self._late.add(task)
            return None
        return None if task.cancelled() or task.exception() is not None else cast(T, task.result())

    async def close(self) -> None:
        """Gives up what still runs."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _read(self, read: Callable[[], Awaitable[T]]) -> T | None:
        async with self._places:
            return None if self._late else await read()

    def _ended(self, what: Hashable, task: asyncio.Task[Any]) -> None:
        self._running.pop(what, None)
        self._late.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._rests_until = self._clock.monotonic() + REST_SECONDS


class Writer:
    """Writes in the background, in one order: start → close. What finds no room is dropped and counted."""

    def __init__(self, store: CacheStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._entries: list[Entry] = []
        self._used: dict[bytes, float] = {}
        self._background = Background("write-cache", self._work)
        self._cleans_at = float("-inf")
        self.dropped = 0
        self.evicted = 0

    def start(self) -> None:
        """Begins to write."""
        self._background.start()

    async def close(self) -> None:
        """Writes what waits, if the store answers soon, and ends."""
        await self._background.close()

    def put(self, entry: Entry) -> None:
        """Writes an entry soon."""
        if len(self._entries) >= MOST_WAITING:
            self.dropped += 1
            return
        self._entries.append(entry)
        self._background.wake()

    def used(self, key: bytes) -> None:
        """Notes, some time, that an entry was used."""
        if key in self._used or len(self._used) < MOST_WAITING:
            self._used[key] = self._clock.now()

    async def _work(self) -> None:
        while not self._background.is_ending:
            await self._background.woken(USE_SECONDS)
            self._background.slept()
            if not await succeeds(self._write(), _not_written):
                await asyncio.sleep(REST_SECONDS)

    async def _write(self) -> None:
        entries, self._entries = self._entries, []
        used, self._used = self._used, {}
        if entries or used:
            try:
                self.evicted += await self._store.write(entries, used)
            except BaseException:
                self.dropped += len(entries)
                raise
        if self._clock.monotonic() >= self._cleans_at:
            self._cleans_at = self._clock.monotonic() + CLEANING_SECONDS
            await self._store.clean(self._clock.now())


def _not_written(error: str) -> None:
    _LOG.warning("cache_not_written", error=error, remedy="see that the database answers")
