"""How notes get into the store, what becomes of those that do not, and how long one is looked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from kit.clock import LoopClock, in_virtual_time
from kit.noting import ListNotes
from pointsman_server.domain.ports import StoreUnavailableError
from pointsman_server.execution.background import CLOSING_SECONDS
from pointsman_server.execution.shared_memory import (
    CLEANING_SECONDS,
    GATHERING_SECONDS,
    LOOK_SECONDS,
    LOOKS_AFTER_SECONDS,
    MOST_AT_ONCE,
    MOST_LOOKS,
    MOST_WAITING,
    REST_SECONDS,
    Alone,
    NoteKind,
    NoteName,
    SharedMemory,
)

SOON_SECONDS = GATHERING_SECONDS + 0.01


def name(number: object = 1, tenant: str = "shop") -> NoteName:
    return NoteName(NoteKind.DECISION, tenant, f"dec_{number}")


def told(memory: SharedMemory, some: NoteName, value: bytes = b"x", seconds: float = 300.0) -> None:
    memory.keep(some, lambda: value, seconds)


def live(journey: Callable[[SharedMemory, ListNotes], Awaitable[None]]) -> tuple[SharedMemory, ListNotes]:
    """A shared memory and its store, after this journey and its end."""

    async def run() -> tuple[SharedMemory, ListNotes]:
        store = ListNotes(LoopClock())
        memory = SharedMemory(store, LoopClock())
        memory.start()
        await journey(memory, store)
        await memory.close()
        return memory, store

    return in_virtual_time(run())


def test_what_one_process_keeps_another_one_finds() -> None:
    async def journey(memory: SharedMemory, store: ListNotes) -> None:
        other = SharedMemory(store, LoopClock())
        told(memory, name())
        assert await other.look(name()) is None, "nobody waits for the store"
        await asyncio.sleep(SOON_SECONDS)
        found = await other.look(name())
        assert found is not None
        assert found.value == b"x"
        assert found.left_seconds == pytest.approx(300.0, abs=0.1)
        assert await other.look(name(tenant="another")) is None
        await asyncio.sleep(300.0)
        assert await other.look(name()) is None

    memory, _ = live(journey)
    assert memory.dropped == 0


def test_notes_of_a_moment_are_written_together_and_the_last_of_a_name_counts() -> None:
    async def journey(memory: SharedMemory, store: ListNotes) -> None:
        for number in range(MOST_AT_ONCE + 1):
            told(memory, name(number))
        told(memory, name(0), b"later")
        await asyncio.sleep(SOON_SECONDS)
        assert store.writes == [MOST_AT_ONCE, 1]
        assert store.kept[name(0)][0] == b"later"

    live(journey)


def test_one_that_is_still_on_its_way_is_waited_for() -> None:
    async def journey(memory: SharedMemory, store: ListNotes) -> None:
        told(memory, name())
        found = await memory.find(name())
        assert found is not None
        assert store.reads == 2

    live(journey)


def test_one_that_nobody_wrote_is_given_up_soon() -> None:
    async def journey(memory: SharedMemory, store: ListNotes) -> None:
        began = asyncio.get_running_loop().time()
        assert await memory.find(name()) is None
        assert asyncio.get_running_loop().time() - began == pytest.approx(sum(LOOKS_AFTER_SECONDS))
        assert store.reads == len(LOOKS_AFTER_SECONDS)

    live(journey)


def test_a_store_that_is_away_or_silent_says_so_and_nobody_waits_long() -> None:
    async def journey(memory: SharedMemory, store: ListNotes) -> None:
        store.down = True
        with pytest.raises(StoreUnavailableError):
            await memory.find(name())
        store.down, store.seconds = False, 1_000.0
        began = asyncio.get_running_loop().time()
        with pytest.raises(StoreUnavailableError, match="did not answer for 1 seconds"):
            await memory.look(name())
        assert asyncio.get_running_loop().time() - began == LOOK_SECONDS

    live(journey)


def test_who_guesses_names_takes_few_connections() -> None:
    async def journey(memory: SharedMemory, store: ListNotes) -> None:
        store.seconds = 0.1
        looks = [asyncio.create_task(memory.look(name(number))) for number in range(6)]
        await asyncio.sleep(0.05)
        assert store.reads == MOST_LOOKS
        await asyncio.gather(*looks)
        assert store.reads == 6

    live(journey)


def test_what_cannot_be_written_is_dropped_and_counted_and_the_next_is_written_after_a_rest() -> None:
    async def journey(memory: SharedMemory, store: ListNotes) -> None:
        store.down = True
        told(memory, name(1))
        await asyncio.sleep(SOON_SECONDS)
        assert memory.dropped == 1
        store.down = False
        told(memory, name(2))
        await asyncio.sleep(REST_SECONDS - 0.1)
        assert store.kept == {}
        await asyncio.sleep(0.2)
        assert set(store.kept) == {name(2)}

    with capture_logs() as lines:
        live(journey)
    assert [line["event"] for line in lines] == ["notes_not_written"]


def test_too_many_are_dropped_and_counted_but_never_a_newer_one_of_a_known_name() -> None:
    async def journey(memory: SharedMemory, store: ListNotes) -> None:
        for number in range(MOST_WAITING + 2):
            told(memory, name(number))
        told(memory, name(0), b"newer")
        assert memory.dropped == 2
        await asyncio.sleep(SOON_SECONDS)
        assert (len(store.kept), store.kept[name(0)][0]) == (MOST_WAITING, b"newer")

    live(journey)


def test_it_cleans_now_and_then() -> None:
    async def journey(memory: SharedMemory, store: ListNotes) -> None:
        for _ in range(3):
            told(memory, name())
            await asyncio.sleep(SOON_SECONDS)
        assert store.cleanings == 1
        await asyncio.sleep(2 * CLEANING_SECONDS)
        assert store.cleanings in (2, 3)

    live(journey)


def test_the_end_writes_what_waits_but_not_for_ever() -> None:
    async def journey(memory: SharedMemory, store: ListNotes) -> None:
        told(memory, name(1))

    memory, store = live(journey)
    assert (set(store.kept), memory.dropped) == ({name(1)}, 0)

    async def hanging(memory: SharedMemory, store: ListNotes) -> None:
        store.seconds = 10 * CLOSING_SECONDS
        told(memory, name(1))
        await asyncio.sleep(SOON_SECONDS)
        told(memory, name(2))

    memory, store = live(hanging)
    assert (store.kept, memory.dropped) == ({}, 2)


def test_the_end_is_not_held_up_by_a_store_that_fails() -> None:
    async def journey(memory: SharedMemory, store: ListNotes) -> None:
        store.down = True
        told(memory, name(1))

    memory, _ = live(journey)
    assert memory.dropped == 1


async def test_one_that_was_never_started_ends_too_and_who_is_alone_finds_nothing() -> None:
    memory = SharedMemory(ListNotes(LoopClock()), LoopClock())
    told(memory, name())
    await memory.close()
    alone = Alone()
    alone.keep(name(), lambda: b"x", 1.0)
    assert await alone.look(name()) is await alone.find(name()) is None
