"""Two attempts side by side, and what becomes of them at the same moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from kit.clock import in_virtual_time
from kit.watching import SeenTelemetry
from pointsman_server.domain.errors import DeadlineExceeded, Step
from pointsman_server.execution.hedging import Racer, race


def racer(seconds: float, ends: bool | Exception) -> Racer:
    async def run() -> bool:
        await asyncio.sleep(seconds)
        if isinstance(ends, Exception):
            raise ends
        return ends

    return run


def giving(hedge: Racer | None) -> Callable[[], Awaitable[Racer | None]]:
    async def give() -> Racer | None:
        return hedge

    return give


def raced(lead: Racer, hedge: Racer | None, telemetry: SeenTelemetry | None = None) -> bool:
    return in_virtual_time(race(lead, 1.0, giving(hedge), telemetry or SeenTelemetry()))


@pytest.mark.parametrize("number", range(8))
def test_content_goes_before_an_error_of_the_same_moment(number: int) -> None:
    """Whose end is looked at first depends on where in memory the tasks are, so this is tried more than once."""
    out_of_time = DeadlineExceeded(Step.DISPATCH)
    assert raced(racer(2.0, out_of_time), racer(1.0, True))
    assert raced(racer(2.0, True), racer(1.0, out_of_time))


def test_an_error_of_one_is_the_end_of_both() -> None:
    telemetry = SeenTelemetry()
    with pytest.raises(DeadlineExceeded):
        raced(racer(2.0, DeadlineExceeded(Step.DISPATCH)), racer(5.0, True), telemetry)
    assert telemetry.hedges == [False]


def test_nobody_beside_it() -> None:
    telemetry = SeenTelemetry()
    assert raced(racer(2.0, True), None, telemetry)
    assert not raced(racer(2.0, False), None, telemetry)
    assert telemetry.hedges == []


def test_a_hedge_is_told_of_although_its_end_was_not_waited_for() -> None:
    telemetry = SeenTelemetry()

    def slow_to_stop() -> Callable[[], Awaitable[bool]]:
        async def run() -> bool:
            try:
                await asyncio.sleep(60.0)
            finally:
                await asyncio.sleep(0.1)
            return True

        return run

    async def go() -> None:
        racing = asyncio.create_task(race(slow_to_stop(), 1.0, giving(slow_to_stop()), telemetry))
        await asyncio.sleep(2.0)
        racing.cancel()
        await asyncio.sleep(0.05)
        racing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await racing

    in_virtual_time(go())
    assert telemetry.hedges == [False]
