from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from kit.clock import FakeClock, LoopClock, in_virtual_time
from kit.databases import PostgresServer
from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.domain.control import Control, KillScope, KillSwitch
from pointsman_server.domain.ports import StoreUnavailableError
from pointsman_server.execution.control import LOOK_SECONDS, POLL_SECONDS, ControlBook

STOP = KillSwitch(KillScope.GLOBAL)


class Store:
    """Holds one state; can be away, broken or silent."""

    def __init__(self) -> None:
        self.state = Control()
        self.error: Exception | None = None
        self.silent_seconds = 0.0
        self.looks = self.loads = 0

    async def revision(self) -> int:
        self.looks += 1
        await asyncio.sleep(self.silent_seconds)
        if self.error is not None:
            raise self.error
        return self.state.revision

    async def load(self) -> Control:
        self.loads += 1
        state = self.state
        await asyncio.sleep(self.silent_seconds)
        return state

    def change(self, **fields: Any) -> None:
        self.state = replace(self.state, revision=self.state.revision + 1, **fields)


@asynccontextmanager
async def started(store: Store) -> AsyncGenerator[ControlBook, None]:
    book = ControlBook(store, LoopClock())
    await book.load()
    book.start()
    try:
        yield book
    finally:
        await book.close()


def played(scene: Callable[[Store, ControlBook], Awaitable[None]], store: Store | None = None) -> None:
    """Plays a scene with a book that has begun to look."""

    async def play() -> None:
        its_store = store or Store()
        async with started(its_store) as book:
            await scene(its_store, book)

    in_virtual_time(play())


def test_a_new_book_is_empty_and_loading_fills_it() -> None:
    async def scene(store: Store, book: ControlBook) -> None:
        assert book.current is store.state

    store = Store()
    assert ControlBook(store, FakeClock()).current == Control()
    store.change(policy_version="v1")
    played(scene, store)


def test_a_store_that_is_away_at_the_start_is_told() -> None:
    async def play() -> None:
        store = Store()
        store.error = StoreUnavailableError("away")
        with pytest.raises(StoreUnavailableError, match="away"):
            await ControlBook(store, LoopClock()).load()

    in_virtual_time(play())


def test_a_change_is_known_within_one_poll() -> None:
    async def scene(store: Store, book: ControlBook) -> None:
        await asyncio.sleep(POLL_SECONDS / 2)
        store.change(kill_switches=frozenset({STOP}))
        await asyncio.sleep(POLL_SECONDS)
        assert book.current.stopped_by("acme") == STOP
        store.change(kill_switches=frozenset())
        await asyncio.sleep(POLL_SECONDS)
        assert book.current.stopped_by("acme") is None

    played(scene)


def test_nothing_is_loaded_while_nothing_changes() -> None:
    async def scene(store: Store, book: ControlBook) -> None:
        loaded = book.current
        await asyncio.sleep(10)
        assert book.current is loaded
        assert (store.looks, store.loads) == (1 + 10 / POLL_SECONDS - 1, 0)
        assert LoopClock().monotonic() - book.confirmed_at <= POLL_SECONDS

    played(scene)


def test_an_own_change_is_known_at_once() -> None:
    async def scene(store: Store, book: ControlBook) -> None:
        before = LoopClock().monotonic()
        store.change(policy_version="v2")
        await book.refresh()
        assert book.current.policy_version == "v2"
        assert LoopClock().monotonic() == before

    played(scene)


def test_listeners_hear_what_was_and_what_is_in_order() -> None:
    async def scene(store: Store, book: ControlBook) -> None:
        heard: list[tuple[int, int, int]] = []
        book.subscribe(lambda before, after: heard.append((before.revision, after.revision, book.current.revision)))
        store.change()
        await asyncio.sleep(2 * POLL_SECONDS)
        store.change()
        store.change()
        await book.refresh()
        await asyncio.sleep(2 * POLL_SECONDS)
        assert heard == [(0, 1, 1), (1, 3, 3)]

    played(scene)


def test_a_listener_that_fails_harms_nobody() -> None:
    def fail(*_: Control) -> None:
        raise ZeroDivisionError

    async def scene(store: Store, book: ControlBook) -> None:
        heard: list[int] = []
        book.subscribe(fail)
        book.subscribe(lambda _, after: heard.append(after.revision))
        store.change()
        with capture_logs() as logs:
            await book.refresh()
        assert heard == [1]
        assert {"event": "control_listener_failed", "error": "ZeroDivisionError", "log_level": "error"} in logs
        assert book.is_reachable

    played(scene)


@pytest.mark.parametrize(
    ("error", "told"),
    [(StoreUnavailableError("gone"), "gone"), (KeyError("secret"), "KeyError"), (OSError(), "OSError")],
)
def test_the_last_known_state_stays_while_the_store_is_away(error: Exception, told: str) -> None:
    async def scene(store: Store, book: ControlBook) -> None:
        known = book.current
        store.error = error
        store.change(policy_version="v2")
        with capture_logs() as logs:
            await asyncio.sleep(5)
            await book.refresh()
            assert book.current is known
            assert not book.is_reachable
            assert LoopClock().monotonic() - book.confirmed_at >= 5
            store.error = None
            await asyncio.sleep(2 * POLL_SECONDS)
        assert book.current.policy_version == "v2"
        assert book.is_reachable
        assert [line for line in logs if line["event"] != "control_changed"] == [
            {"event": "control_store_unreachable", "error": told, "log_level": "warning"},
            {"event": "control_store_back", "revision": 2, "log_level": "warning"},
        ]

    store = Store()
    store.change(policy_version="v1")
    played(scene, store)


def test_a_store_that_does_not_answer_counts_as_away() -> None:
    async def scene(store: Store, book: ControlBook) -> None:
        store.silent_seconds = 3_600
        store.change()
        with capture_logs() as logs:
            await asyncio.sleep(2 * POLL_SECONDS + LOOK_SECONDS)
        assert [line["event"] for line in logs] == ["control_store_unreachable"]
        assert "did not answer" in logs[0]["error"]
        store.silent_seconds = 0
        await asyncio.sleep(2 * POLL_SECONDS)
        assert book.current.revision == 1

    played(scene)


def test_an_earlier_state_never_replaces_a_later_one() -> None:
    async def scene(store: Store, book: ControlBook) -> None:
        store.silent_seconds = 0.2
        store.change()
        slow = asyncio.create_task(book.refresh())
        await asyncio.sleep(0.3)
        store.silent_seconds = 0
        store.change()
        await book.refresh()
        assert book.current.revision == 2
        await slow
        assert book.current.revision == 2

    played(scene)


def test_a_restored_backup_counts_though_its_revision_is_lower() -> None:
    async def scene(store: Store, book: ControlBook) -> None:
        store.state = Control(revision=1, policy_version="old")
        await asyncio.sleep(2 * POLL_SECONDS)
        assert book.current.policy_version == "old"

    store = Store()
    store.state = Control(revision=9, policy_version="new")
    played(scene, store)


def test_closing_ends_the_looking_even_in_the_middle_of_it() -> None:
    async def play() -> None:
        store = Store()
        async with started(store):
            store.silent_seconds = 3_600
            await asyncio.sleep(2 * POLL_SECONDS)
        looks = store.looks
        await asyncio.sleep(10)
        assert store.looks == looks
        assert LoopClock().monotonic() < 20

    in_virtual_time(play())


def test_a_book_that_never_started_closes_too() -> None:
    async def play() -> None:
        await ControlBook(Store(), LoopClock()).close()

    in_virtual_time(play())


class TestWithADatabase:
    """The book with the store that it has in the service."""

    async def test_two_processes_learn_each_others_changes(self, database: Database, database_url: str) -> None:
        other = Database(database_url)
        store = ControlStore(database, LoopClock())
        books = [ControlBook(ControlStore(one, LoopClock()), LoopClock(), 0.02) for one in (database, other)]
        for book in books:
            await book.load()
            book.start()
        await store.set_kill_switch(KillScope.GLOBAL, "", True, "", "ops")
        async with asyncio.timeout(5):
            while not all(book.current.stopped_by("acme") for book in books):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        assert books[0].current == books[1].current == await store.load()
        for book in books:
            await book.close()
        await other.close()

    async def test_a_server_that_goes_and_comes(self, postgres: PostgresServer) -> None:
        database = Database(postgres.make())
        await database.open()
        store = ControlStore(database, LoopClock())
        await store.set_flag("hedging", "", True, "ops")
        book = ControlBook(store, LoopClock())
        await book.load()
        postgres.kill()
        await book.refresh()
        assert (book.is_reachable, dict(book.current.flags)) == (False, {("hedging", ""): True})
        postgres.start()
        await store.set_flag("hedging", "", False, "ops")
        await book.refresh()
        assert (book.is_reachable, dict(book.current.flags)) == (True, {("hedging", ""): False})
        await database.close()
