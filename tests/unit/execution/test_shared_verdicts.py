"""Verdicts come to every process, whenever it began and whatever the store does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

import pytest
from structlog.testing import capture_logs

from kit.clock import LoopClock, in_virtual_time
from kit.noting import InstantNotes, ListNotes
from pointsman_server.domain.experience import Lesson
from pointsman_server.domain.plan import TaskType
from pointsman_server.domain.request import Tier
from pointsman_server.domain.trace import Trace
from pointsman_server.domain.verdict import Verdict
from pointsman_server.execution import shared_verdicts
from pointsman_server.execution.shared_answers import SharedAnswers
from pointsman_server.execution.shared_verdicts import OVERLAP_SECONDS, POLL_SECONDS, VerdictReader

CODE = Lesson("m", TaskType.CODE, Tier.ADVANCED)


class NoTraces:
    """See `RecordedAnswers`."""

    async def answered(self, request_id: str, tenant: str) -> Trace | None:
        """See `RecordedAnswers.answered`."""
        return None


class Site:
    """A process that is told verdicts, and another one that learns of them."""

    def __init__(self) -> None:
        self.store = ListNotes(LoopClock())
        self._answers = SharedAnswers(InstantNotes(self.store), NoTraces(), lambda trace: None)
        self.learned: list[Verdict] = []
        self.reader = VerdictReader(self.store, self._learn)

    def _learn(self, verdicts: Iterable[Verdict]) -> None:
        self.learned += verdicts

    def told(self, number: object, score: float = 0.1) -> Verdict:
        verdict = Verdict(f"r{number}", "shop", CODE, score, 1_750_000_000.123_456_7)
        self._answers.tell(verdict)
        return verdict


def live(journey: Callable[[Site], Awaitable[None]]) -> None:
    async def run() -> None:
        site = Site()
        await journey(site)
        await site.reader.close()

    in_virtual_time(run())


def test_a_verdict_arrives_as_it_was_given() -> None:
    async def journey(site: Site) -> None:
        before = site.told("before", 1 / 3)
        site.reader.start()
        await asyncio.sleep(0.1)
        assert site.learned == [before]
        await asyncio.sleep(2 * OVERLAP_SECONDS)
        later = site.told("later")
        await asyncio.sleep(POLL_SECONDS)
        assert later in site.learned
        site.learned.clear()
        await asyncio.sleep(POLL_SECONDS)
        assert site.learned == [later], "what was read long ago is not read again"

    live(journey)


def test_one_that_is_seen_late_is_not_missed() -> None:
    async def journey(site: Site) -> None:
        early = site.told("early")
        name = next(iter(site.store.kept))
        hidden = site.store.kept.pop(name)
        await asyncio.sleep(OVERLAP_SECONDS - 1.0)
        late = site.told("late")
        await site.reader.read()
        assert site.learned == [late]
        site.store.kept[name] = hidden
        await site.reader.read()
        assert early in site.learned

    live(journey)


def test_many_are_read_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_verdicts, "MOST_AT_ONCE", 10)

    async def journey(site: Site) -> None:
        told = []
        for number in range(35):
            told.append(site.told(number))
            await asyncio.sleep(0.01)
        await site.reader.read()
        assert sorted(set(site.learned)) == sorted(told)
        assert site.store.reads == 4

    live(journey)


def test_a_store_that_is_away_is_told_once_and_asked_again() -> None:
    async def journey(site: Site) -> None:
        site.store.down = True
        site.reader.start()
        await asyncio.sleep(5 * POLL_SECONDS)
        verdict = site.told(1)
        site.store.down = False
        await asyncio.sleep(POLL_SECONDS + 0.1)
        assert verdict in site.learned

    with capture_logs() as lines:
        live(journey)
    assert [line["event"] for line in lines] == ["verdicts_of_others_not_read"]


@pytest.mark.parametrize(
    "note", [b"", b"{}", b"[]", b'["m", "no_such_task", "LIGHT", 1, 2]', b'["m", "code", "X", 1, 2]']
)
def test_a_note_of_another_version_is_left_out(note: bytes) -> None:
    async def journey(site: Site) -> None:
        site.told(1)
        site.store.kept = {name: (note, until) for name, (_, until) in site.store.kept.items()}
        other = site.told(2)
        await site.reader.read()
        assert site.learned == [other]

    live(journey)
