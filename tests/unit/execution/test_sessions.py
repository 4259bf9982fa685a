from __future__ import annotations

import pytest

from kit.clock import FakeClock
from pointsman_server.execution.sessions import MOST_SESSIONS, REMEMBERED_SECONDS, SessionBook


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
