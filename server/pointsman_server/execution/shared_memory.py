"""What one process of a service may want to know of another: notes in a store that all of them share.

Who wrote a note remembers it anyway, so notes are written a moment later, by nobody's call, and read only where a
process is asked about something that it does not know.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from enum import Enum
from typing import NamedTuple, Protocol, TypeVar

import structlog

from pointsman_server.domain.ports import Clock, StoreUnavailableError
from pointsman_server.execution.background import Background, succeeds

GATHERING_SECONDS = 0.05
"""So long a note waits for others to be written with it."""

LOOKS_AFTER_SECONDS = (0.0, 0.1, 0.2, 0.4, 0.8)
"""Pauses before each look for what may still be on its way to the store: it was told somebody a moment ago."""

LOOK_SECONDS = 1.0
"""After this a look is given up, and the store counts as unavailable."""

MOST_WAITING = 4_096
"""Notes that may wait for being written; more are dropped."""

MOST_AT_ONCE = 256
"""Notes of one transaction: other writers wait meanwhile."""

MOST_LOOKS = 2
"""Looks of one process at the same time, so that who guesses names does not take all of its connections."""

REST_SECONDS = 1.0
"""For so long nothing is written to a store that failed."""

CLEANING_SECONDS = 60.0

T = TypeVar("T")

_LOG = structlog.stdlib.get_logger("pointsman.shared_memory")


class NoteKind(Enum):
    """What a note is about."""

    DECISION = "decision"
    """A decision that `Route` gave, by its id."""
    ANSWER = "answer"
    """What an answer teaches when it is judged, by its request id."""
    VERDICT = "verdict"
    """A verdict on an answer, by its request id; every process learns from it."""
    SESSION = "session"
    """Which deployment answered a conversation last, by its session id."""


class NoteName(NamedTuple):
    """A note's name belongs to a tenant: nobody finds another one's."""

    kind: NoteKind
    tenant: str
    name: str


class Note(NamedTuple):
    """What is to be kept, and for how long. A later note with the same name takes its place."""

    name: NoteName
    value: bytes
    kept_seconds: float


class FoundNote(NamedTuple):
    """A note's value, and how long it will still be kept."""

    value: bytes
    left_seconds: float


class SeenNote(NamedTuple):
    """A note as it is read in order. `until` is when its time is over, in seconds since the Unix epoch."""

    name: NoteName
    value: bytes
    until: float


class NoteStore(Protocol):
    """Where all processes keep notes. Everything raises `StoreUnavailableError`."""

    async def write(self, notes: Sequence[Note]) -> None:
        """Keeps these; no two of them have the same name."""
        ...

    async def read(self, name: NoteName) -> FoundNote | None:
        """The note with this name, unless its time is over."""
        ...

    async def since(self, kind: NoteKind, until: float, limit: int) -> Sequence[SeenNote]:
        """Notes of a kind that are kept `until` then or longer, those that end first before the others."""
        ...

    async def clean(self) -> None:
        """Removes notes whose time is over, and the oldest where there are too many."""
        ...


class Notes(Protocol):
    """What the books of a process need of a shared memory."""

    def keep(self, name: NoteName, value: Callable[[], bytes], kept_seconds: float) -> None:
        """Tells the other processes, soon; returns at once. `value` is asked for when the note is written."""
        ...

    async def look(self, name: NoteName) -> FoundNote | None:
        """What another process wrote. Raises `StoreUnavailableError`."""
        ...

    async def find(self, name: NoteName) -> FoundNote | None:
        """The same for what somebody was told of already: it waits a moment for a note that is still on its way."""
        ...


class Alone:
    """See `Notes`. For a process that shares its store with nobody."""

    def keep(self, name: NoteName, value: Callable[[], bytes], kept_seconds: float) -> None:
        """See `Notes.keep`."""

    async def look(self, name: NoteName) -> FoundNote | None:
        """See `Notes.look`."""
        return None

    async def find(self, name: NoteName) -> FoundNote | None:
        """See `Notes.find`."""
        return None


class SharedMemory:
    """See `Notes`. start → close; what finds no room, or cannot be written, is dropped and counted."""

    def __init__(self, store: NoteStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: dict[NoteName, tuple[Callable[[], bytes], float]] = {}
        self._looks = asyncio.Semaphore(MOST_LOOKS)
        self._background = Background("write-notes", self._work)
        self._cleans_at = float("-inf")
        self.dropped = 0

    def start(self) -> None:
        """Begins to write."""
        self._background.start()

    async def close(self) -> None:
        """Writes what waits, if the store answers soon, and ends."""
        if await self._background.close():
            self.dropped += len(self._waiting)
            self._waiting = {}

    def keep(self, name: NoteName, value: Callable[[], bytes], kept_seconds: float) -> None:
        """See `Notes.keep`."""
        if len(self._waiting) >= MOST_WAITING and name not in self._waiting:
            self.dropped += 1
            return
        self._waiting[name] = (value, kept_seconds)
        self._background.wake()

    async def look(self, name: NoteName) -> FoundNote | None:
        """See `Notes.look`."""
        try:
            async with asyncio.timeout(LOOK_SECONDS), self._looks:
                return await self._store.read(name)
        except TimeoutError:
            raise StoreUnavailableError(f"the store did not answer for {LOOK_SECONDS:.0f} seconds") from None

    async def find(self, name: NoteName) -> FoundNote | None:
        """See `Notes.find`."""
        return await patiently(lambda: self.look(name))

    async def _work(self) -> None:
        while not (self._background.is_ending and not self._waiting):
            await self._background.woken(CLEANING_SECONDS)
            if not self._background.is_ending:
                await asyncio.sleep(GATHERING_SECONDS)
            self._background.slept()
            if not await succeeds(self._write_and_clean(), _not_written):
                if self._background.is_ending:
                    return
                await asyncio.sleep(REST_SECONDS)

    async def _write_and_clean(self) -> None:
        # Not those that come meanwhile: they gather for the next time.
        for _ in range(0, len(self._waiting), MOST_AT_ONCE):
            names = list(self._waiting)[:MOST_AT_ONCE]
            notes = [Note(name, value(), seconds) for name, (value, seconds) in self._take(names)]
            try:
                await self._store.write(notes)
            except BaseException:
                self.dropped += len(notes)
                raise
        if self._clock.monotonic() >= self._cleans_at and not self._background.is_ending:
            self._cleans_at = self._clock.monotonic() + CLEANING_SECONDS
            await self._store.clean()

    def _take(self, names: Sequence[NoteName]) -> list[tuple[NoteName, tuple[Callable[[], bytes], float]]]:
        return [(name, self._waiting.pop(name)) for name in names]


async def patiently(look: Callable[[], Awaitable[T | None]]) -> T | None:
    """What `look` finds, tried again for a moment while it finds nothing."""
    for pause_seconds in LOOKS_AFTER_SECONDS:
        if pause_seconds:
            await asyncio.sleep(pause_seconds)
        if (found := await look()) is not None:
            return found
    return None


def _not_written(error: str) -> None:
    _LOG.warning("notes_not_written", error=error, remedy="see that the database answers")
