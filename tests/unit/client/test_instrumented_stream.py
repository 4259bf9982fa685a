"""Streams whose call was replaced by a generator, as interceptors of tracing do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pointsman_client import Cancelled
from pointsman_client.testing import FakeClient


class Instrumented:
    """A fake client whose streams are generators; a reader waits for `go_on` before each piece."""

    def __init__(self) -> None:
        self.client = FakeClient()
        self.left = threading.Event()
        self.waiting = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        stubs: Any = self.client.router
        self._plain = stubs.StreamComplete
        stubs.StreamComplete = self._traced

    def _traced(self, *asked: Any, **options: Any) -> Iterator[Any]:
        try:
            for response in self._plain(*asked, **options):
                self.waiting.set()
                assert self.go_on.wait(5)
                yield response
        finally:
            self.left.set()


@pytest.fixture
def instrumented() -> Instrumented:
    made = Instrumented()
    made.client.in_memory.answer("Once upon a time")
    return made


def test_it_is_read_to_its_end(instrumented: Instrumented) -> None:
    with instrumented.client.stream("A story") as stream:
        assert stream.finish().text == "Once upon a time"
    assert instrumented.left.is_set()


def test_leaving_early_lets_go_of_the_call(instrumented: Instrumented) -> None:
    with instrumented.client.stream("A story") as stream:
        next(stream)
        assert not instrumented.left.is_set()
    assert instrumented.left.is_set()
    with pytest.raises(Cancelled):
        next(stream)


def test_closing_while_another_thread_reads_takes_effect_with_its_next_piece(instrumented: Instrumented) -> None:
    stream = instrumented.client.stream("A story")
    outcome: list[BaseException] = []

    def read() -> None:
        try:
            stream.finish()
        except Cancelled as error:
            outcome.append(error)

    instrumented.go_on.clear()
    reader = threading.Thread(target=read)
    reader.start()
    assert instrumented.waiting.wait(5)
    stream.close()
    instrumented.go_on.set()
    reader.join(5)
    assert len(outcome) == 1
    assert instrumented.left.is_set()
