"""Any calls at any time in several processes: what passes is counted here again, call by call."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from kit.clock import LoopClock, in_virtual_time
from kit.limiting import SALT, governed
from kit.properties import examples
from pointsman_server.adapters.stores.memory_counters import MemoryCounters
from pointsman_server.domain.errors import RateLimited
from pointsman_server.execution.counters import GRAIN_SECONDS
from pointsman_server.execution.limits import Limits
from pointsman_server.execution.permits import CHUNKS_OF_A_LIMIT

MINUTE = 60.0
LONGEST = MINUTE + 2 * GRAIN_SECONDS
"""After so many seconds at the latest a permit can be had again."""

TINY = 1e-6


@dataclass(frozen=True)
class Call:
    """So long after the one before, in this process, this much."""

    pause: float
    process: int
    amount: int


CALLS = st.lists(
    st.builds(
        Call,
        st.one_of(st.sampled_from([0.0, 0.25, 0.1, 59.9, 60.0, 60.25, 60.5]), st.floats(0, 30)),
        st.integers(0, 2),
        st.integers(1, 6),
    ),
    max_size=40,
)


@dataclass
class Log:
    """When how much passed."""

    entries: list[tuple[float, int]]

    def within(self, seconds: float, now: float) -> int:
        return sum(amount for at, amount in self.entries if at > now - seconds + TINY)

    def check(self, limit: int) -> None:
        for at, _ in self.entries:
            assert sum(amount for other, amount in self.entries if at <= other < at + MINUTE - TINY) <= limit


async def play(calls: list[Call], limit: int, processes: int, counters: MemoryCounters, log: Log) -> None:
    """What passes fits the limit in every minute; what is refused had no room, and has it when it was told."""
    limits = [Limits(counters, LoopClock(), SALT) for _ in range(processes)]
    policy, chunk = governed(tokens=limit), max(1, limit // CHUNKS_OF_A_LIMIT)
    for call in calls:
        await asyncio.sleep(call.pause)
        mine, now = limits[call.process % processes], LoopClock().monotonic()
        try:
            await mine.charge("acme", "", "", policy, call.amount)
            log.entries.append((now, call.amount))
        except RateLimited as error:
            held_by_others = (processes - 1) * chunk if chunk > 1 else 0
            assert log.within(LONGEST, now) + call.amount + held_by_others > limit
            seconds = error.retry_after_seconds
            assert (seconds is None) is (call.amount > limit)
            if seconds is None:
                continue
            await asyncio.sleep(seconds)
            await mine.charge("acme", "", "", policy, call.amount)
            log.entries.append((LoopClock().monotonic(), call.amount))
    log.check(limit)
    for one in limits:
        await one.close()


class TestAnyCalls:
    @given(CALLS, st.integers(1, 12), st.integers(1, 3))
    @examples(150)
    def test_small_limits_are_exact(self, calls: list[Call], limit: int, processes: int) -> None:
        async def run() -> None:
            await play(calls, limit, processes, MemoryCounters(LoopClock()), Log([]))

        in_virtual_time(run())

    @given(CALLS, st.integers(1, 3), st.integers(0, 40))
    @examples(60)
    def test_large_ones_but_for_chunks(self, calls: list[Call], processes: int, spared: int) -> None:
        limit = 3 * CHUNKS_OF_A_LIMIT

        async def run() -> None:
            counters = MemoryCounters(LoopClock())
            first = Limits(counters, LoopClock(), SALT)
            await first.charge("acme", "", "", governed(tokens=limit), limit - spared)
            await play(calls, limit, processes, counters, Log([(0.0, limit - spared)]))
            await first.close()

        in_virtual_time(run())


class TestConstantPressure:
    @given(st.integers(1, 4), st.sampled_from([10, 600, 3_000]))
    @examples(8)
    def test_at_least_99_percent_pass(self, processes: int, limit: int) -> None:
        async def run() -> None:
            counters = MemoryCounters(LoopClock())
            limits = [Limits(counters, LoopClock(), SALT) for _ in range(processes)]
            policy, log = governed(limit), Log([])

            async def press(mine: Limits) -> None:
                while LoopClock().monotonic() < 5 * MINUTE:
                    try:
                        await mine.admit("acme", "", "", policy)
                        log.entries.append((LoopClock().monotonic(), 1))
                    except RateLimited:
                        await asyncio.sleep(0.05)

            await asyncio.gather(*(press(mine) for mine in limits))
            # Five minutes begin in this time, each as late as the one before allows.
            assert len(log.entries) >= 0.99 * 5 * limit
            ends = [at for at, _ in log.entries[limit:]]
            assert all(at >= log.entries[place][0] + MINUTE - TINY for place, at in enumerate(ends))
            for one in limits:
                await one.close()

        in_virtual_time(run())
