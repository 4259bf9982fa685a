"""Limits that several processes hold together, and whom they tell apart."""

from __future__ import annotations

import asyncio

import pytest

from kit.clock import FakeClock, LoopClock
from kit.limit_runs import LARGE, MINUTE, running
from kit.limiting import SALT, MoodyCounters, admitted, governed, let_through
from pointsman_server.adapters.stores.memory_counters import MemoryCounters
from pointsman_server.domain.errors import RateLimited
from pointsman_server.execution.counters import GRAIN_SECONDS, Want
from pointsman_server.execution.lease import Permit
from pointsman_server.execution.limits import Limits, network_of
from pointsman_server.execution.permits import CHUNKS_OF_A_LIMIT, Permits


class TestSharing:
    def test_a_large_limit_is_taken_in_chunks_that_grow(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            assert await let_through(limits, governed(LARGE), 100) == 100
            amounts = [want.amount for wants, _ in counters.questions for want in wants]
            assert amounts[:2] == [2, 3]
            assert max(amounts) == LARGE // CHUNKS_OF_A_LIMIT
            assert len(amounts) < 40

        running(body)

    def test_what_one_process_leaves_over_another_gets(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            other = Limits(counters, LoopClock(), SALT)
            policy = governed(LARGE)
            used = await let_through(limits, policy, 2)
            await asyncio.sleep(3 * GRAIN_SECONDS)
            used += await let_through(other, policy, 2 * LARGE)
            assert used == LARGE
            await other.close()

        running(body)

    def test_closing_gives_back_what_is_left(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            policy = governed(LARGE)
            used = await let_through(limits, policy, 4)
            await limits.close()
            other = Limits(counters, LoopClock(), SALT)
            assert used + await let_through(other, policy, 2 * LARGE) == LARGE
            await other.close()

        running(body)

    def test_nothing_is_remembered_of_those_who_are_gone(self) -> None:
        async def body(_: Limits, __: MoodyCounters) -> None:
            counters = MemoryCounters(LoopClock())
            kept = Permits(counters, LoopClock(), "/".join)
            for number in range(100):
                await kept.ask(("n", str(number)), 1, 10)
            assert (len(kept), len(counters)) == (100, 100)
            await asyncio.sleep(4 * GRAIN_SECONDS)
            assert len(kept) == 0
            await asyncio.sleep(2 * MINUTE)
            await counters.take((Want("n", 1, 1, 1),), {})
            assert len(counters) == 1
            await kept.close()

        running(body)

    def test_a_caller_who_goes_away_leaves_his_permit(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            counters.seconds = 0.04
            policy = governed(1, users=1)
            call = asyncio.create_task(limits.admit("acme", "ann", "", policy))
            await asyncio.sleep(0.02)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await admitted(limits, policy, user="ann")

        running(body)

    def test_a_caller_who_goes_away_when_the_answer_is_there_gives_it_back(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            counters.seconds = 0.04
            policy = governed(1, users=1)
            call = asyncio.create_task(limits.admit("acme", "ann", "", policy))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert counters.questions
            asyncio.get_running_loop().call_later(0.04, lambda: asyncio.get_running_loop().call_soon(call.cancel))
            with pytest.raises(asyncio.CancelledError):
                await call
            assert await admitted(limits, policy, user="ann")

        running(body)

    def test_callers_who_are_gone_are_not_asked_for(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            counters.seconds = 0.04
            first = asyncio.create_task(limits.admit("acme", "", "", governed(5)))
            await asyncio.sleep(0.01)
            second = asyncio.create_task(limits.admit("acme", "ann", "", governed(users=5)))
            await asyncio.sleep(0.01)
            second.cancel()
            await asyncio.wait((first, second))
            await asyncio.sleep(0.1)
            assert counters.names == {"tenant/acme/requests"}

        running(body)

    def test_a_limit_that_is_lowered_while_callers_wait(self) -> None:
        async def body(limits: Limits, _: MoodyCounters) -> None:
            before, after = await asyncio.gather(
                limits.charge("acme", "", "", governed(tokens=100), 50),
                limits.charge("acme", "", "", governed(tokens=30), 20),
                return_exceptions=True,
            )
            assert isinstance(before, RateLimited)
            assert before.retry_after_seconds is None
            assert not isinstance(after, BaseException)

        running(body)

    def test_an_answer_that_comes_too_late_to_be_used_is_asked_for_again(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            counters.seconds = 0.51
            counters.patience_seconds = 2.0
            calls = [asyncio.create_task(admitted(limits, governed(2))) for _ in range(2)]
            await asyncio.sleep(0.2)
            calls += [asyncio.create_task(admitted(limits, governed(2))) for _ in range(2)]
            await asyncio.sleep(0.5)
            counters.seconds = 0.0
            assert sorted(await asyncio.gather(*calls)) == [False, False, True, True]

        running(body)


class TestNoisyNeighbour:
    @staticmethod
    def slowest(noise: int) -> float:
        """Seconds that the slowest of a quiet tenant's calls takes while so many callers of another one press."""

        async def shout(limits: Limits) -> None:
            while True:
                if not await admitted(limits, governed(50)):
                    await asyncio.sleep(0.01)

        async def body(limits: Limits, counters: MoodyCounters) -> float:
            counters.seconds = 0.005
            callers = [asyncio.create_task(shout(limits)) for _ in range(noise)]
            await asyncio.sleep(0.1)
            seconds = []
            for number in range(300):
                await asyncio.sleep(0.0041)
                started = LoopClock().monotonic()
                assert await admitted(limits, governed(users=5), user=f"user{number}")
                seconds.append(LoopClock().monotonic() - started)
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
            return sorted(seconds)[-3]

        return running(body)

    def test_a_tenant_far_beyond_its_limit_holds_others_up_for_one_question_at_most(self) -> None:
        assert self.slowest(noise=50) <= 2 * self.slowest(noise=0)


class TestNames:
    def test_people_and_addresses_are_counted_under_hashes(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            policy = governed(5, users=5, peers=5)
            await limits.admit("acme", "ann@example.com", "192.0.2.7", policy)
            assert len(counters.names) == 3
            assert "tenant/acme/requests" in counters.names
            assert not any(word in name for name in counters.names for word in ("ann", "example", "192.0.2"))
            others = Limits(counters, LoopClock(), b"another salt")
            await others.admit("acme", "ann@example.com", "192.0.2.7", policy)
            assert len(counters.names) == 5
            await others.close()

        running(body)

    @pytest.mark.parametrize(
        ("address", "network"),
        [
            ("192.0.2.7", "192.0.2.7"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
            ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
            ("unix", "unix"),
        ],
    )
    def test_an_address_is_counted_with_its_network(self, address: str, network: str) -> None:
        assert network_of(address) == network


class TestClocks:
    def test_a_wall_clock_that_is_set_changes_nothing(self) -> None:
        async def run() -> None:
            clock = FakeClock()
            limits = Limits(MemoryCounters(clock), clock, SALT)
            policy = governed(5)
            assert await let_through(limits, policy, 3) == 3
            for jump in (3_600.0, -7_200.0):
                clock.now_seconds += jump
                assert await let_through(limits, policy, 1) == 1
            assert await let_through(limits, policy, 1) == 0
            await limits.close()

        asyncio.run(run())


class TestAhead:
    """Permits that are used up fast are asked for before they run out."""

    @staticmethod
    async def _calls(permits: Permits, number: int, limit: int, pause_seconds: float) -> int:
        """How many of so many calls, one after the other, had to wait for an answer."""
        waited = 0
        for _ in range(number):
            if permits.take_now(("n",), 1, asyncio.get_running_loop().time()) is None:
                waited += 1
                await permits.ask(("n",), 1, limit)
            await asyncio.sleep(pause_seconds)
        return waited

    def test_hardly_a_call_waits_for_slow_counters(self) -> None:
        async def body(_limits: Limits, counters: MoodyCounters) -> None:
            counters.seconds = 0.02
            permits = Permits(counters, LoopClock(), "/".join)
            await self._calls(permits, 100, 10**6, 0.004)
            assert await self._calls(permits, 2_000, 10**6, 0.004) == 0
            # Eight seconds: a question for each time that permits may be held, and not one for each call.
            assert len(counters.questions) < 100

        running(body)

    def test_nobody_is_asked_ahead_for_what_is_used_slowly(self) -> None:
        async def body(_limits: Limits, counters: MoodyCounters) -> None:
            permits = Permits(counters, LoopClock(), "/".join)
            assert await self._calls(permits, 20, 10**6, 1.0) == 20
            assert len([wants for wants, _ in counters.questions if wants]) == 20

        running(body)

    def test_a_limit_that_is_reached_is_not_asked_about_by_every_call(self) -> None:
        async def body(_limits: Limits, counters: MoodyCounters) -> None:
            permits = Permits(counters, LoopClock(), "/".join)
            limit, let_in = 40_000, 0
            for _ in range(60_000):
                now = asyncio.get_running_loop().time()
                if permits.take_now(("n",), 1, now) is not None:
                    let_in += 1
                elif permits.answer_now(("n",), 1, limit, now) is None:
                    let_in += isinstance(await permits.ask(("n",), 1, limit), Permit)
                await asyncio.sleep(0.000_5)
            assert limit * 0.99 <= let_in <= limit
            # In chunks of 20, of which a quarter is left when the next is asked for; then a few for each grain.
            assert len(counters.questions) < 40_000 / 15 + 30 / GRAIN_SECONDS * 2

        running(body)
