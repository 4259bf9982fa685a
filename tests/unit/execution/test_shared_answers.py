"""Answers of other processes: found among the recorded calls, or in notes."""

from __future__ import annotations

import asyncio

import pytest

from kit.clock import LoopClock, in_virtual_time
from kit.noting import InstantNotes, ListNotes
from pointsman_server.domain.experience import Lesson
from pointsman_server.domain.plan import TaskType
from pointsman_server.domain.request import Tier
from pointsman_server.domain.trace import Trace, TraceLine
from pointsman_server.domain.verdict import Verdict
from pointsman_server.execution.shared_answers import KEPT_SECONDS, OwnAnswers, SharedAnswers
from pointsman_server.execution.shared_memory import LOOKS_AFTER_SECONDS

CODE = Lesson("m", TaskType.CODE, Tier.ADVANCED)
VECTORS = "vectors"


class Recorded:
    """Recorded calls by request id and tenant."""

    def __init__(self, *kept: tuple[str, str]) -> None:
        self.kept = set(kept)
        self.looks = 0

    async def answered(self, request_id: str, tenant: str) -> Trace | None:
        """See `RecordedAnswers.answered`."""
        self.looks += 1
        if (request_id, tenant) not in self.kept:
            return None
        return Trace(TraceLine(request_id, 0.0, 0.0, tenant, "m", "OK", 0), 0.0)


def lesson_of(trace: Trace) -> Lesson | None:
    return None if trace.line.request_id == VECTORS else CODE


def shared(recorded: Recorded, *, waits: bool = True) -> SharedAnswers:
    return SharedAnswers(InstantNotes(ListNotes(LoopClock())), recorded, lesson_of, waits=waits)


@pytest.mark.parametrize(
    ("request_id", "tenant", "found"),
    [("r", "shop", CODE), ("r", "other", None), ("s", "shop", None), (VECTORS, "shop", None)],
)
def test_a_recorded_call_is_an_answer_of_its_tenant(request_id: str, tenant: str, found: Lesson | None) -> None:
    answers = shared(Recorded(("r", "shop"), (VECTORS, "shop")))
    assert in_virtual_time(answers.find(request_id, tenant)) == found


def test_one_that_is_not_recorded_is_in_a_note_for_a_day() -> None:
    async def scene() -> None:
        answers = shared(Recorded())
        lesson = CODE._replace(model_id="llama-3.1")
        answers.keep("r", "shop", lesson)
        assert await answers.find("r", "shop") == lesson
        assert await answers.find("r", "other") is None
        await asyncio.sleep(KEPT_SECONDS)
        assert await answers.find("r", "shop") is None

    in_virtual_time(scene())


@pytest.mark.parametrize("note", [b"", b"m", b"m\nno_such_task\nLIGHT", b"m\ncode\nNO_SUCH_TIER", b"\xff"])
def test_a_note_of_another_version_is_none(note: bytes) -> None:
    async def scene() -> None:
        store = ListNotes(LoopClock())
        answers = SharedAnswers(InstantNotes(store), Recorded(), lesson_of)
        answers.keep("r", "shop", CODE)
        store.kept = {name: (note, until) for name, (_, until) in store.kept.items()}
        assert await answers.find("r", "shop") is None

    in_virtual_time(scene())


def test_one_that_is_still_on_its_way_is_waited_for_where_others_write() -> None:
    async def scene() -> None:
        recorded = Recorded()
        asyncio.get_running_loop().call_later(0.5, recorded.kept.add, ("r", "shop"))
        assert await shared(recorded, waits=False).find("r", "shop") is None
        assert recorded.looks == 1
        assert await shared(recorded).find("r", "shop") == CODE
        began = asyncio.get_running_loop().time()
        assert await shared(recorded).find("s", "shop") is None
        assert asyncio.get_running_loop().time() - began == pytest.approx(sum(LOOKS_AFTER_SECONDS))

    in_virtual_time(scene())


async def test_who_is_alone_finds_nothing() -> None:
    own = OwnAnswers()
    own.tell(Verdict("r", "shop", CODE, 1.0, 0.0))
    own.keep("r", "shop", CODE)
    assert await own.find("r", "shop") is None
