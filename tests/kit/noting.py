"""What processes tell each other, in memory: a store that can be slow or away, and books that share it at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from pointsman_server.domain.ports import Clock, StoreUnavailableError
from pointsman_server.execution.shared_memory import FoundNote, Note, NoteKind, NoteName, SeenNote


class ListNotes:
    """See `NoteStore`. `writes` are the sizes of what was written at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.kept: dict[NoteName, tuple[bytes, float]] = {}
        self.writes: list[int] = []
        self.reads = 0
        self.cleanings = 0
        self.seconds = 0.0
        self.down = False

    async def write(self, notes: Sequence[Note]) -> None:
        """See `NoteStore.write`."""
        await self._reach()
        self.writes.append(len(notes))
        for note in notes:
            self.kept[note.name] = (note.value, self._clock.monotonic() + note.kept_seconds)

    async def read(self, name: NoteName) -> FoundNote | None:
        """See `NoteStore.read`."""
        self.reads += 1
        await self._reach()
        value, until = self.kept.get(name, (b"", float("-inf")))
        left_seconds = until - self._clock.monotonic()
        return FoundNote(value, left_seconds) if left_seconds > 0 else None

    async def since(self, kind: NoteKind, until: float, limit: int) -> Sequence[SeenNote]:
        """See `NoteStore.since`."""
        self.reads += 1
        await self._reach()
        kept = [SeenNote(name, value, at) for name, (value, at) in self.kept.items() if name.kind is kind]
        return sorted((note for note in kept if note.until >= until), key=lambda note: note.until)[:limit]

    async def clean(self) -> None:
        """See `NoteStore.clean`."""
        await self._reach()
        self.cleanings += 1

    async def _reach(self) -> None:
        await asyncio.sleep(self.seconds)
        if self.down:
            raise StoreUnavailableError("down")


class InstantNotes:
    """See `Notes`. What one book keeps the others find at once."""

    def __init__(self, store: ListNotes) -> None:
        self.store = store
        self._clock = store._clock

    def keep(self, name: NoteName, value: Callable[[], bytes], kept_seconds: float) -> None:
        """See `Notes.keep`."""
        self.store.writes.append(1)
        self.store.kept[name] = (value(), self._clock.monotonic() + kept_seconds)

    async def look(self, name: NoteName) -> FoundNote | None:
        """See `Notes.look`."""
        return await self.store.read(name)

    async def find(self, name: NoteName) -> FoundNote | None:
        """See `Notes.find`."""
        return await self.store.read(name)
