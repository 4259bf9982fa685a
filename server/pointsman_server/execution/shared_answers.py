"""Answers that any process gave and that may be judged: most are among the recorded calls, the others in notes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from pointsman_server.domain.experience import Lesson
from pointsman_server.domain.plan import TaskType
from pointsman_server.domain.request import Tier
from pointsman_server.domain.trace import Trace
from pointsman_server.domain.verdict import Verdict
from pointsman_server.execution.shared_memory import NoteKind, NoteName, Notes, patiently
from pointsman_server.execution.shared_verdicts import TAUGHT_SECONDS, write_verdict

KEPT_SECONDS = 86_400.0
"""How long an answer that is not recorded can be judged on other processes than its own."""

_SEPARATOR = "\n"


class Answers(Protocol):
    """Where a process tells of its answers, and finds those of the others."""

    def keep(self, request_id: str, tenant: str, lesson: Lesson) -> None:
        """Tells of an answer that is not among the recorded calls; returns at once."""
        ...

    async def find(self, request_id: str, tenant: str) -> Lesson | None:
        """What the tenant's answer teaches. Raises `StoreUnavailableError`."""
        ...

    def tell(self, verdict: Verdict) -> None:
        """Tells of a verdict, so that the others learn from it as well; returns at once."""
        ...


class RecordedAnswers(Protocol):
    """Where recorded calls are. Raises `StoreUnavailableError`."""

    async def answered(self, request_id: str, tenant: str) -> Trace | None:
        """The tenant's last call with this request id that was answered."""
        ...


class OwnAnswers:
    """See `Answers`. For a process that shares its store with nobody."""

    def keep(self, request_id: str, tenant: str, lesson: Lesson) -> None:
        """See `Answers.keep`."""

    async def find(self, request_id: str, tenant: str) -> Lesson | None:
        """See `Answers.find`."""
        return None

    def tell(self, verdict: Verdict) -> None:
        """See `Answers.tell`."""


class SharedAnswers:
    """See `Answers`. `lesson_of` reads a recorded call; None where it is none that can be judged.

    `waits` says whether other processes write there too: then an answer may still be on its way to the store.
    """

    def __init__(
        self,
        notes: Notes,
        recorded: RecordedAnswers,
        lesson_of: Callable[[Trace], Lesson | None],
        *,
        waits: bool = True,
    ) -> None:
        self._waits = waits
        self._notes = notes
        self._recorded = recorded
        self._lesson_of = lesson_of

    def keep(self, request_id: str, tenant: str, lesson: Lesson) -> None:
        """See `Answers.keep`."""
        self._notes.keep(_name(request_id, tenant), lambda: _write(lesson), KEPT_SECONDS)

    async def find(self, request_id: str, tenant: str) -> Lesson | None:
        """See `Answers.find`."""
        if not self._waits:
            return await self._look(request_id, tenant)
        return await patiently(lambda: self._look(request_id, tenant))

    def tell(self, verdict: Verdict) -> None:
        """See `Answers.tell`."""
        name = NoteName(NoteKind.VERDICT, verdict.tenant, verdict.request_id)
        self._notes.keep(name, partial(write_verdict, verdict), TAUGHT_SECONDS)

    async def _look(self, request_id: str, tenant: str) -> Lesson | None:
        trace = await self._recorded.answered(request_id, tenant)
        if trace is not None:
            return self._lesson_of(trace)
        note = await self._notes.look(_name(request_id, tenant))
        return None if note is None else _read(note.value)


def _name(request_id: str, tenant: str) -> NoteName:
    return NoteName(NoteKind.ANSWER, tenant, request_id)


def _write(lesson: Lesson) -> bytes:
    return _SEPARATOR.join((lesson.model_id, lesson.task.value, lesson.band.name)).encode()


def _read(note: bytes) -> Lesson | None:
    try:
        model_id, task, band = note.decode().split(_SEPARATOR)
        return Lesson(model_id, TaskType(task), Tier[band])
    except (ValueError, KeyError):
        return None  # a later version's
