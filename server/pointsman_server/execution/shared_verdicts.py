"""Verdicts that callers gave to other processes: what one process learns, all learn a moment later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

import orjson
import structlog

from pointsman_server.domain.experience import Lesson
from pointsman_server.domain.plan import TaskType
from pointsman_server.domain.request import Tier
from pointsman_server.domain.verdict import Verdict
from pointsman_server.execution.background import succeeds
from pointsman_server.execution.shared_memory import NoteKind, NoteStore, SeenNote

TAUGHT_SECONDS = 30 * 86_400.0
"""How long a verdict waits for processes that begin later; by then it counts half."""

POLL_SECONDS = 2.0

OVERLAP_SECONDS = 10.0
"""So much of what was read is read again: what is written first need not be seen first."""

MOST_AT_ONCE = 1_000
"""More than any process writes in one transaction."""

_LOG = structlog.stdlib.get_logger("pointsman.feedback")


class VerdictReader:
    """start → close. `learn` gets every verdict at least once, its own process's too."""

    def __init__(self, store: NoteStore, learn: Callable[[Iterable[Verdict]], None]) -> None:
        self._store = store
        self._learn = learn
        self._read_until = 0.0
        self._is_reachable = True
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Reads from now on, in the background; first of all what is there already."""
        self._task = asyncio.create_task(self._keep_reading(), name="read-verdicts")

    async def close(self) -> None:
        """Reads no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def read(self) -> None:
        """Learns what is new. Raises `StoreUnavailableError`."""
        begin = self._read_until - OVERLAP_SECONDS
        while True:
            notes = await self._store.since(NoteKind.VERDICT, begin, MOST_AT_ONCE)
            self._learn(_verdicts(notes))
            if notes:
                begin = self._read_until = notes[-1].until
            if len(notes) < MOST_AT_ONCE:
                return

    async def _keep_reading(self) -> None:
        while True:
            if await succeeds(self.read(), self._not_read):
                self._is_reachable = True
            await asyncio.sleep(POLL_SECONDS)

    def _not_read(self, error: str) -> None:
        if self._is_reachable:
            _LOG.warning("verdicts_of_others_not_read", error=error, remedy="see that the database answers")
        self._is_reachable = False


def write_verdict(verdict: Verdict) -> bytes:
    """The note of a verdict, without what its name says."""
    model_id, task, band = verdict.lesson
    return orjson.dumps([model_id, task.value, band.name, verdict.score, verdict.given_at])


def _verdicts(notes: Sequence[SeenNote]) -> Iterator[Verdict]:
    for (_, tenant, request_id), value, _ in notes:
        try:
            model_id, task, band, score, given_at = orjson.loads(value)
            yield Verdict(request_id, tenant, Lesson(model_id, TaskType(task), Tier[band]), score, given_at)
        except (ValueError, KeyError, TypeError):
            continue  # a later version's
