from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from kit.clock import LoopClock, in_virtual_time
from pointsman_server.execution.patience import Patience


async def later(seconds: float, value: str = "came") -> str:
    await asyncio.sleep(seconds)
    return value


def test_what_comes_in_time_is_given() -> None:
    async def go() -> None:
        patience = Patience(LoopClock())
        assert await patience.wait(later(0.9), 1.0) == "came"
        assert await patience.wait(later(0.9, "again"), 2.0) == "again"
        patience.stop()

    in_virtual_time(go())


def test_what_does_not_is_a_timeout_at_its_time() -> None:
    async def go() -> float:
        patience = Patience(LoopClock())
        with pytest.raises(TimeoutError):
            await patience.wait(later(5.0), 1.5)
        patience.stop()
        return asyncio.get_running_loop().time()

    assert in_virtual_time(go()) == 1.5


def test_a_later_end_is_waited_for_although_the_timer_was_set_for_an_earlier_one() -> None:
    async def go() -> float:
        patience = Patience(LoopClock())
        await patience.wait(later(0.1), 1.0)
        with pytest.raises(TimeoutError):
            await patience.wait(later(9.0), 3.0)
        return asyncio.get_running_loop().time()

    assert in_virtual_time(go()) == 3.0


def test_an_earlier_end_comes_first() -> None:
    async def go() -> float:
        patience = Patience(LoopClock())
        await patience.wait(later(0.1), 10.0)
        with pytest.raises(TimeoutError):
            await patience.wait(later(9.0), 2.0)
        return asyncio.get_running_loop().time()

    assert in_virtual_time(go()) == 2.0


def test_time_spent_elsewhere_is_nobodys_timeout() -> None:
    """Between two waits the caller may be slow to read; the timer that fires then hurts nobody."""

    async def go() -> str:
        patience = Patience(LoopClock())
        await patience.wait(later(0.1), 1.0)
        await asyncio.sleep(5.0)
        return await patience.wait(later(0.5, "at last"), 6.0)

    assert in_virtual_time(go()) == "at last"


def test_an_end_in_the_past_is_a_timeout_at_once() -> None:
    async def go() -> float:
        await asyncio.sleep(5.0)
        with pytest.raises(TimeoutError):
            await Patience(LoopClock()).wait(later(1.0), 2.0)
        return asyncio.get_running_loop().time()

    assert in_virtual_time(go()) == 5.0


def test_a_cancelled_task_is_cancelled_and_not_timed_out() -> None:
    async def go() -> None:
        task = asyncio.create_task(Patience(LoopClock()).wait(later(5.0), 10.0))
        await asyncio.sleep(1.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    in_virtual_time(go())


def test_cancelled_at_the_very_moment_of_the_timeout_it_stays_cancelled() -> None:
    async def go() -> None:
        task = asyncio.create_task(Patience(LoopClock()).wait(later(5.0), 1.0))
        asyncio.get_running_loop().call_at(1.0, task.cancel)
        with pytest.raises((asyncio.CancelledError, TimeoutError)):
            await task
        assert task.cancelled()

    in_virtual_time(go())


def test_a_task_that_was_cancelled_before_and_went_on_can_still_time_out() -> None:
    async def wait_twice() -> str:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(10.0)
        with pytest.raises(TimeoutError):
            await Patience(LoopClock()).wait(later(9.0), asyncio.get_running_loop().time() + 1.0)
        return "went on"

    async def go() -> str:
        task = asyncio.create_task(wait_twice())
        await asyncio.sleep(1.0)
        task.cancel()
        return await task

    assert in_virtual_time(go()) == "went on"


def test_waits_may_move_to_another_task() -> None:
    async def go() -> None:
        patience = Patience(LoopClock())
        await asyncio.create_task(patience.wait(later(0.1), 1.0))
        with pytest.raises(TimeoutError):
            await patience.wait(later(9.0), 1.0)

    in_virtual_time(go())


def test_errors_pass_through() -> None:
    async def fail() -> None:
        raise ValueError("mine")

    async def go() -> None:
        with pytest.raises(ValueError, match="mine"):
            await Patience(LoopClock()).wait(fail(), 1.0)

    in_virtual_time(go())
