from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import grpc
import pytest

from kit.clock import LoopClock, in_virtual_time
from pointsman_server.domain.errors import DeadlineExceeded, ReaderTooSlow, Step
from pointsman_server.rpc.relay import PatientWriter, RequestReader
from pointsman_server.rpc.status import MalformedRequest, RequestTooSlow

IDLE_SECONDS = 30.0


def timeless(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """The test runs in virtual time."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        in_virtual_time(test(*args, **kwargs))

    return run


def now() -> float:
    return asyncio.get_running_loop().time()


class Caller:
    """Takes each message after so many seconds; its own message comes after so many."""

    def __init__(self, *takes_seconds: float, message: object = b"message", sends_after: float = 0.0) -> None:
        self._takes_seconds = list(takes_seconds)
        self._message = message
        self._sends_after = sends_after
        self.got: list[object] = []

    async def write(self, message: object) -> None:
        seconds = self._takes_seconds.pop(0)
        if seconds:
            await asyncio.sleep(seconds)
        self.got.append(message)

    async def read(self) -> object:
        if self._sends_after:
            await asyncio.sleep(self._sends_after)
        return self._message


def writer(caller: Caller, deadline: float = math.inf) -> PatientWriter:
    return PatientWriter(caller, LoopClock(), IDLE_SECONDS, deadline)


class TestWriting:
    @timeless
    async def test_a_caller_that_reads_gets_all_however_long_it_takes_together(self) -> None:
        caller = Caller(0, 29.0, 0, 29.0, 29.0)
        with writer(caller) as reader:
            for number in range(5):
                await reader.write(number)
        assert caller.got == [0, 1, 2, 3, 4]

    @timeless
    async def test_pauses_of_ours_are_not_the_callers(self) -> None:
        caller = Caller(0, 29.0, 0)
        with writer(caller) as reader:
            await reader.write("a")
            await asyncio.sleep(100.0)
            await reader.write("b")
            await asyncio.sleep(100.0)
            await reader.write("c")
        assert caller.got == ["a", "b", "c"]

    @timeless
    async def test_one_that_stops_is_given_up(self) -> None:
        caller = Caller(0, 10.0, 1_000.0)
        with writer(caller) as reader:
            await reader.write(0)
            await reader.write(1)
            with pytest.raises(ReaderTooSlow):
                await reader.write(2)
        assert caller.got == [0, 1]
        assert now() == pytest.approx(40.0, abs=0.01)

    @timeless
    async def test_the_calls_time_ends_before(self) -> None:
        with pytest.raises(DeadlineExceeded) as caught, writer(Caller(1_000.0), deadline=5.0) as reader:
            await reader.write("a")
        assert caught.value.step is Step.DISPATCH
        assert now() == pytest.approx(5.0, abs=0.01)

    @timeless
    async def test_what_is_said_after_the_calls_time_has_the_callers_patience(self) -> None:
        with writer(Caller(0, 1_000.0), deadline=5.0) as reader:
            await reader.write("a")
            await asyncio.sleep(6.0)
            with pytest.raises(ReaderTooSlow):
                await reader.write("b")
        assert now() == pytest.approx(36.0, abs=0.01)

    @timeless
    async def test_a_caller_that_goes_away_is_no_slow_reader(self) -> None:
        async def write() -> None:
            with writer(Caller(1_000.0)) as reader:
                await reader.write("a")

        task = asyncio.create_task(write())
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    def test_nothing_ticks_afterwards(self) -> None:
        async def write_and_wait() -> None:
            with writer(Caller(0)) as reader:
                await reader.write("a")
            await asyncio.Event().wait()

        with pytest.raises(RuntimeError, match="nothing can ever happen again"):
            in_virtual_time(write_and_wait())


class TestReading:
    @timeless
    async def test_a_message_that_comes_in_time(self) -> None:
        requests = RequestReader(10.0)
        assert await requests.read(Caller()) == b"message"
        assert await requests.read(Caller(sends_after=9.9)) == b"message"

    @timeless
    async def test_one_that_comes_too_late(self) -> None:
        assert isinstance(await RequestReader(10.0).read(Caller(sends_after=11.0)), RequestTooSlow)
        assert now() == pytest.approx(10.0)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    @timeless
    async def test_each_has_its_own_time(self) -> None:
        requests, ends = RequestReader(10.0), dict[float, float]()

        async def read(starts_after: float, sends_after: float) -> None:
            await asyncio.sleep(starts_after)
            answer = await requests.read(Caller(sends_after=sends_after))
            ends[starts_after] = now() - starts_after
            assert isinstance(answer, RequestTooSlow) == (sends_after > 10.0)

        await asyncio.gather(read(0, 50.0), read(1, 2.0), read(2, 50.0), read(4, 9.0), read(7, 50.0), read(30, 50.0))
        assert ends == pytest.approx({0: 10.0, 1: 2.0, 2: 10.0, 4: 9.0, 7: 10.0, 30: 10.0})

    @timeless
    async def test_no_message_at_all(self) -> None:
        assert isinstance(await RequestReader(10.0).read(Caller(message=grpc.aio.EOF)), MalformedRequest)

    @timeless
    async def test_a_call_that_is_cancelled_is_cancelled(self) -> None:
        requests = RequestReader(10.0)
        for caller in (Caller(sends_after=50.0), Caller(message=grpc.aio.EOF)):
            task = asyncio.create_task(requests.read(caller))
            await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await requests.read(Caller()) == b"message"
