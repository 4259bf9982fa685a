from __future__ import annotations

import asyncio
import time

from kit.clock import in_virtual_time
from pointsman_server.adapters.telemetry.loop_lag import INTERVAL_SECONDS, LoopLag


def test_a_loop_that_is_on_time_is_seen_four_times_a_second() -> None:
    seen: list[float] = []

    async def watch() -> None:
        lag = LoopLag(seen.append)
        lag.start()
        await asyncio.sleep(10 * INTERVAL_SECONDS + 0.01)
        lag.stop()
        lag.stop()
        await asyncio.sleep(10)

    in_virtual_time(watch())
    assert len(seen) == 10
    assert max(seen) < 0.001


async def test_a_loop_that_is_held_up_is_late() -> None:
    seen: list[float] = []
    lag = LoopLag(seen.append)
    lag.start()
    await asyncio.sleep(0)
    time.sleep(INTERVAL_SECONDS + 0.05)  # noqa: ASYNC251 - holding up the loop is the point
    await asyncio.sleep(0.01)
    lag.stop()
    assert len(seen) == 1
    assert 0.04 < seen[0] < 1
