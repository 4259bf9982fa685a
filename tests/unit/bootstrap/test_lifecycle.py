from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from pointsman_server.bootstrap.lifecycle import run_service, run_worker


class Steps:
    """A service that only notes what is done to it; `at_start` and `in_drain` happen meanwhile."""

    port = 4321

    def __init__(self, at_start: Callable[[], None], in_drain: Callable[[], Any] | None = None) -> None:
        self.done: list[str] = []
        self._at_start = at_start
        self._in_drain = in_drain

    async def start(self) -> None:
        self.done.append("start")
        self._at_start()

    async def drain(self) -> None:
        self.done.append("drain")
        if self._in_drain is not None:
            try:
                await self._in_drain()
            except asyncio.CancelledError:
                self.done.append("cut")
                raise
        self.done.append("drained")

    async def close(self) -> None:
        self.done.append("close")


def send(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def run(steps: Any, runner: Callable[..., None] = run_service, **options: Any) -> None:
    """Runs it as the process's main program would; whoever listened to the signals before does so again."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        runner(steps, **options)
    finally:
        left = [signal.getsignal(number) for number in before]
        for number, handler in before.items():
            signal.signal(number, handler)
    assert left == [signal.SIG_DFL, signal.default_int_handler]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_and_closes(number: signal.Signals) -> None:
    steps, ready = Steps(send(number)), list[int]()
    run(steps, on_ready=ready.append)
    assert steps.done == ["start", "drain", "drained", "close"]
    assert ready == [4321]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_wait_for_the_drain(second: signal.Signals) -> None:
    async def hang() -> None:
        send(second)()
        await asyncio.get_running_loop().create_future()

    steps = Steps(send(signal.SIGTERM), hang)
    with structlog.testing.capture_logs() as logs:
        run(steps)
    assert steps.done == ["start", "drain", "cut", "close"]
    assert [line["event"] for line in logs] == ["forced_to_end"]


def test_a_drain_that_fails_is_told_and_closed() -> None:
    async def fail() -> None:
        raise RuntimeError("a caller's words")

    steps = Steps(send(signal.SIGTERM), fail)
    with structlog.testing.capture_logs() as logs:
        run(steps)
    assert steps.done == ["start", "drain", "close"]
    assert [(line["event"], line["error"]) for line in logs] == [("draining_failed", "RuntimeError")]


def test_what_cannot_start_is_closed_all_the_same() -> None:
    def fail() -> None:
        raise OSError("cannot listen")

    steps = Steps(fail)
    with pytest.raises(OSError, match="cannot listen"):
        run(steps)
    assert steps.done == ["start", "close"]


@pytest.fixture
def parent() -> Iterator[int]:
    """The end of standard input that a parent holds."""
    reading, writing = os.pipe()
    kept = os.dup(0)
    os.dup2(reading, 0)
    os.close(reading)
    try:
        yield writing
    finally:
        os.dup2(kept, 0)
        os.close(kept)
        os.close(writing)


class TestWorker:
    def test_it_tells_when_it_serves_and_ends_by_a_signal(self, parent: int) -> None:
        steps, told = Steps(send(signal.SIGTERM)), list[str]()
        run(steps, run_worker, on_ready=lambda: told.append("ready"))
        assert (steps.done, told) == (["start", "drain", "drained", "close"], ["ready"])

    def test_however_often_it_is_asked_to_end_its_calls_have_their_time(self, parent: int) -> None:
        async def asked_again() -> None:
            for _ in range(3):
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.sleep(0.02)

        steps = Steps(send(signal.SIGTERM), asked_again)
        run(steps, run_worker, on_ready=lambda: None)
        assert steps.done == ["start", "drain", "drained", "close"]

    def test_unless_it_is_told_to_end_at_once(self, parent: int) -> None:
        async def told_to() -> None:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(60)

        steps = Steps(send(signal.SIGTERM), told_to)
        with structlog.testing.capture_logs() as logs:
            run(steps, run_worker, on_ready=lambda: None)
        assert steps.done == ["start", "drain", "cut", "close"]
        assert [one["event"] for one in logs] == ["forced_to_end"]

    def test_what_the_parent_says_means_nothing_and_its_end_means_the_end(self, parent: int) -> None:
        def parent_ends() -> None:
            os.write(parent, b"hello")
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, parent)  # closes the pipe; the number stays open for the fixture
            os.close(null)

        steps = Steps(parent_ends)
        run(steps, run_worker, on_ready=lambda: None)
        assert steps.done == ["start", "drain", "drained", "close"]
