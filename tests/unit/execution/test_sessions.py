from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from kit.clock import FakeClock, LoopClock, in_virtual_time
from kit.noting import InstantNotes, ListNotes
from pointsman_server.execution.sessions import (
    LOOK_SECONDS,
    MOST_SESSIONS,
    NOTED_SECONDS,
    REMEMBERED_SECONDS,
    REST_SECONDS,
    SessionBook,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def book(clock: FakeClock) -> SessionBook:
    return SessionBook(clock)


def test_the_last_answer_counts(book: SessionBook) -> None:
    assert book.last_deployment_id("s") == ""
    book.answered("s", "one")
    book.answered("s", "two")
    book.answered("t", "three")
    assert (book.last_deployment_id("s"), book.last_deployment_id("t")) == ("two", "three")


def test_without_a_session_nothing_is_remembered(book: SessionBook) -> None:
    book.answered("", "one")
    assert book.last_deployment_id("") == ""


def test_it_is_forgotten_when_the_providers_cache_is_cold(book: SessionBook, clock: FakeClock) -> None:
    book.answered("s", "one")
    clock.now_seconds -= 86_400.0
    clock.advance(REMEMBERED_SECONDS)
    assert book.last_deployment_id("s") == "one"
    clock.advance(0.5)
    assert book.last_deployment_id("s") == ""
    book.answered("s", "two")
    assert book.last_deployment_id("s") == "two"


def test_whoever_was_silent_longest_is_forgotten_first(book: SessionBook) -> None:
    for place in range(MOST_SESSIONS):
        book.answered(f"s{place}", "one")
    book.answered("s0", "two")
    book.answered("new", "one")
    assert book.last_deployment_id("s0") == "two"
    assert book.last_deployment_id("s1") == ""
    assert book.last_deployment_id("s2") == "one"


class TestElsewhere:
    """Conversations whose last turn another process served."""

    @pytest.fixture
    def store(self, clock: FakeClock) -> ListNotes:
        return ListNotes(clock)

    @pytest.fixture
    def books(self, clock: FakeClock, store: ListNotes) -> tuple[SessionBook, SessionBook]:
        notes = InstantNotes(store)
        return SessionBook(clock, notes), SessionBook(clock, notes)

    async def test_a_conversation_may_move(self, books: tuple[SessionBook, SessionBook], clock: FakeClock) -> None:
        one, other = books
        one.answered("shop/s", "first")
        clock.advance(REMEMBERED_SECONDS - 10.0)
        await other.look_up("shop/s")
        await other.look_up("shop/unknown")
        assert other.last_deployment_id("shop/s") == "first"
        assert other.last_deployment_id("shop/unknown") == ""
        clock.advance(11.0)
        assert other.last_deployment_id("shop/s") == "", "the cache is as cold as elsewhere"

    async def test_another_tenants_conversation_is_another_one(self, books: tuple[SessionBook, SessionBook]) -> None:
        books[0].answered("shop/s", "first")
        await books[1].look_up("other/s")
        assert books[1].last_deployment_id("other/s") == ""

    async def test_what_is_known_is_not_asked_for(
        self, books: tuple[SessionBook, SessionBook], store: ListNotes
    ) -> None:
        books[0].answered("shop/s", "first")
        await books[0].look_up("shop/s")
        assert store.reads == 0

    def test_the_others_are_told_what_is_new_and_now_and_then_what_is_not(
        self, books: tuple[SessionBook, SessionBook], store: ListNotes, clock: FakeClock
    ) -> None:
        for _ in range(10):
            books[0].answered("shop/s", "first")
            clock.advance(1.0)
        assert len(store.writes) == 1
        books[0].answered("shop/s", "second")
        assert len(store.writes) == 2
        clock.advance(NOTED_SECONDS + 1.0)
        books[0].answered("shop/s", "second")
        assert len(store.writes) == 3

    def test_a_store_that_is_silent_costs_one_call_a_moment(self) -> None:
        async def scene() -> None:
            clock = LoopClock()
            store = ListNotes(clock)
            store.seconds = 10.0
            book = SessionBook(clock, InstantNotes(store))
            began = clock.monotonic()
            for _ in range(5):
                await book.look_up("shop/s")
            assert clock.monotonic() - began == pytest.approx(LOOK_SECONDS)
            assert store.reads == 1
            store.seconds = 0.0
            book.answered("shop/t", "first")
            await asyncio.sleep(REST_SECONDS)
            await book.look_up("shop/s")
            assert store.reads == 2

        with capture_logs() as lines:
            in_virtual_time(scene())
        assert [line["event"] for line in lines] == ["session_not_looked_up"]
