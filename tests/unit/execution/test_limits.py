from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
import structlog

from kit.clock import FakeClock, LoopClock, in_virtual_time
from kit.limiting import SALT, MoodyCounters, admitted, governed, let_through
from pointsman_server.adapters.stores.memory_counters import MemoryCounters
from pointsman_server.domain.errors import CountersUnavailable, RateLimited
from pointsman_server.domain.governance import Governance, RateLimit, WhenCountersFail
from pointsman_server.execution import permits
from pointsman_server.execution.counters import GRAIN_SECONDS, HELD_GRAINS, Want
from pointsman_server.execution.limits import NO_CHARGE, Limits, network_of
from pointsman_server.execution.permits import AWAY_SECONDS, CHUNKS_OF_A_LIMIT, Permits

MINUTE = 60.0
GONE = (HELD_GRAINS + 1) * GRAIN_SECONDS
"""After so many seconds nothing counts any more, wherever in a grain it was taken."""

LARGE = 3 * CHUNKS_OF_A_LIMIT

_Result = TypeVar("_Result")


def running(body: Callable[[Limits, MoodyCounters], Awaitable[_Result]]) -> _Result:
    """Runs it in virtual time, and closes the limits."""

    async def run() -> _Result:
        counters = MoodyCounters(LoopClock())
        limits = Limits(counters, LoopClock(), SALT)
        try:
            return await body(limits, counters)
        finally:
            await limits.close()

    return in_virtual_time(run())


async def refusal(limits: Limits, governance: Governance, user: str = "", peer: str = "") -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        await limits.admit("acme", user, peer, governance)
    return caught.value


class TestRequests:
    def test_as_many_as_the_limit_within_a_minute(self) -> None:
        async def body(limits: Limits, _: MoodyCounters) -> None:
            policy = governed(5)
            assert await let_through(limits, policy, 20) == 5
            await asyncio.sleep(MINUTE - 1)
            assert await let_through(limits, policy, 20) == 0
            await asyncio.sleep(2)
            assert await let_through(limits, policy, 20) == 5

        running(body)

    def test_whoever_has_no_limit_is_not_counted(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            for governance in (Governance(), governed(None, users=1, peers=1)):
                assert await let_through(limits, governance, 50) == 50
            assert await admitted(limits, governed(0), tenant="other")
            assert not counters.questions

        running(body)

    def test_nothing_passes_a_limit_of_zero(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            error = await refusal(limits, governed(0))
            assert error.retry_after_seconds is None
            assert "0 requests a minute" in str(error)
            assert not counters.questions

        running(body)

    def test_each_person_and_each_address_has_its_own(self) -> None:
        async def body(limits: Limits, _: MoodyCounters) -> None:
            policy = governed(users=2, peers=5)
            assert await let_through(limits, policy, 9, user="ann", peer="10.0.0.1") == 2
            assert await let_through(limits, policy, 9, user="bob", peer="10.0.0.1") == 2
            assert await let_through(limits, policy, 9, peer="10.0.0.1") == 1
            assert await let_through(limits, policy, 9, user="bob", peer="10.0.0.2") == 0
            assert await let_through(limits, policy, 9, user="cid", peer="10.0.0.2") == 2

        running(body)

    def test_the_same_person_of_another_tenant_is_another(self) -> None:
        async def body(limits: Limits, _: MoodyCounters) -> None:
            policy = Governance(others=governed(users=1).tenants["acme"])
            assert await admitted(limits, policy, tenant="one", user="ann")
            assert await admitted(limits, policy, tenant="two", user="ann")
            assert not await admitted(limits, policy, tenant="two", user="ann")

        running(body)

    def test_whoever_is_refused_for_one_limit_uses_up_none(self) -> None:
        async def body(limits: Limits, _: MoodyCounters) -> None:
            policy = governed(6, users=2)
            assert await let_through(limits, policy, 30, user="ann") == 2
            assert await let_through(limits, policy, 30, user="bob") == 2
            assert await let_through(limits, policy, 30, user="cid") == 2
            assert await let_through(limits, policy, 30, user="dan") == 0

        running(body)

    def test_many_at_once(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            counters.seconds = 0.01
            calls = [admitted(limits, governed(100), user="ann") for _ in range(500)]
            assert sum(await asyncio.gather(*calls)) == 100
            assert len(counters.questions) <= 2

        running(body)

    def test_a_limit_that_is_raised_holds_at_once(self) -> None:
        async def body(limits: Limits, _: MoodyCounters) -> None:
            assert await let_through(limits, governed(3), 9) == 3
            await asyncio.sleep(2 * GRAIN_SECONDS)
            assert await let_through(limits, governed(5), 9) == 2
            assert await let_through(limits, governed(4), 9) == 0

        running(body)


class TestRefusals:
    def test_name_the_limit(self) -> None:
        async def body(limits: Limits, _: MoodyCounters) -> None:
            for policy, subject in (
                (governed(1), "tenants/acme"),
                (governed(users=1), "tenants/acme/end_user"),
                (governed(peers=1), "peer"),
            ):
                await limits.admit("acme", "ann-secret", "10.9.8.7", policy)
                error = await refusal(limits, policy, "ann-secret", "10.9.8.7")
                assert (error.subject, error.quota) == (subject, "1 requests a minute")
                assert "ann-secret" not in str(error)
                assert "10.9.8.7" not in str(error)

        running(body)

    @pytest.mark.parametrize("pause", [0.0, 0.1, 0.26, 7.77, 59.9])
    def test_say_when_to_come_again(self, pause: float) -> None:
        async def body(limits: Limits, _: MoodyCounters) -> None:
            await asyncio.sleep(0.13)
            policy = governed(2)
            await limits.admit("acme", "", "", policy)
            await asyncio.sleep(pause)
            await limits.admit("acme", "", "", policy)
            error = await refusal(limits, policy)
            wait = error.retry_after_seconds
            assert wait is not None
            await asyncio.sleep(wait - 2 * GRAIN_SECONDS)
            assert not await admitted(limits, policy)
            await asyncio.sleep(2 * GRAIN_SECONDS)
            assert await admitted(limits, policy)

        running(body)

    def test_are_for_the_limit_that_takes_longest(self) -> None:
        async def body(limits: Limits, _: MoodyCounters) -> None:
            policy = governed(1, users=1)
            await limits.admit("acme", "ann", "", governed(1))
            await asyncio.sleep(10)
            await limits.admit("acme", "ann", "", governed(users=1))
            error = await refusal(limits, policy, "ann")
            assert error.subject == "tenants/acme/end_user"
            assert error.retry_after_seconds == pytest.approx(MINUTE, abs=3 * GRAIN_SECONDS)
            error = await refusal(limits, governed(0, users=1), "ann")
            assert (error.subject, error.retry_after_seconds) == ("tenants/acme", None)

        running(body)

    def test_cost_the_counters_next_to_nothing(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            policy = governed(3)
            assert await let_through(limits, policy, 3) == 3
            asked = len(counters.questions)
            for _ in range(20):
                assert await let_through(limits, policy, 100) == 0
                await asyncio.sleep(0.05)
            assert len(counters.questions) - asked <= 2 / GRAIN_SECONDS

        running(body)


class TestTokens:
    def test_count_before_they_are_used(self) -> None:
        async def body(limits: Limits, _: MoodyCounters) -> None:
            policy = governed(tokens=1_000)
            await limits.charge("acme", "ann", "10.0.0.1", policy, 600)
            with pytest.raises(RateLimited, match="1000 tokens a minute for tenants/acme"):
                await limits.charge("acme", "ann", "10.0.0.1", policy, 500)
            await limits.charge("acme", "ann", "10.0.0.1", policy, 400)

        running(body)

    @pytest.mark.parametrize("seconds", [0.0, 5.0])
    def test_what_was_not_used_is_there_again(self, seconds: float) -> None:
        async def body(limits: Limits, _: MoodyCounters) -> None:
            policy = governed(tokens=1_000)
            charge = await limits.charge("acme", "", "", policy, 900)
            await asyncio.sleep(seconds)
            charge.correct(100)
            charge.correct(100)
            await asyncio.sleep(2 * GRAIN_SECONDS)
            await limits.charge("acme", "", "", policy, 900)
            with pytest.raises(RateLimited):
                await limits.charge("acme", "", "", policy, 1)

        running(body)

    def test_what_was_used_beyond_counts_too(self) -> None:
        async def body(limits: Limits, _: MoodyCounters) -> None:
            policy = governed(tokens=1_000)
            charge = await limits.charge("acme", "", "", policy, 100)
            await asyncio.sleep(1)
            charge.correct(1_500)
            await asyncio.sleep(2 * GRAIN_SECONDS)
            with pytest.raises(RateLimited) as caught:
                await limits.charge("acme", "", "", policy, 1)
            assert caught.value.retry_after_seconds == pytest.approx(MINUTE, abs=2)
            await asyncio.sleep(GONE)
            await limits.charge("acme", "", "", policy, 1_000)

        running(body)

    def test_a_correction_after_the_minute_changes_nothing(self) -> None:
        async def body(limits: Limits, _: MoodyCounters) -> None:
            policy = governed(tokens=1_000)
            charge = await limits.charge("acme", "", "", policy, 1_000)
            await asyncio.sleep(GONE)
            await limits.charge("acme", "", "", policy, 1_000)
            charge.correct(0)
            await asyncio.sleep(2 * GRAIN_SECONDS)
            with pytest.raises(RateLimited):
                await limits.charge("acme", "", "", policy, 1)

        running(body)

    def test_a_call_that_needs_more_than_the_limit_never_passes(self) -> None:
        async def body(limits: Limits, _: MoodyCounters) -> None:
            with pytest.raises(RateLimited, match="ask for less") as caught:
                await limits.charge("acme", "", "", governed(tokens=1_000), 1_001)
            assert caught.value.retry_after_seconds is None

        running(body)

    def test_nobody_limits_them(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            charge = await limits.charge("acme", "ann", "10.0.0.1", governed(1, users=1, peers=1), 10**9)
            assert charge is NO_CHARGE
            charge.correct(5)
            assert not counters.questions

        running(body)

    def test_addresses_have_them_too(self) -> None:
        async def body(limits: Limits, _: MoodyCounters) -> None:
            policy = Governance(peer_limit=RateLimit(tokens_per_minute=10))
            await limits.charge("acme", "", "10.0.0.1", policy, 10)
            await limits.charge("acme", "", "10.0.0.2", policy, 10)
            with pytest.raises(RateLimited, match="10 tokens a minute for peer"):
                await limits.charge("acme", "", "10.0.0.1", policy, 1)

        running(body)


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


class TestCountersAway:
    def test_calls_are_refused(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            counters.is_broken = True
            for _ in range(2):
                with pytest.raises(CountersUnavailable) as caught:
                    await limits.admit("acme", "ann", "", governed(5, users=5))
                assert caught.value.retry_after_seconds == AWAY_SECONDS

        running(body)

    def test_or_let_through_as_the_policy_wants(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            counters.is_broken = True
            policy = governed(5, 5, fail=WhenCountersFail.ALLOW)
            assert await let_through(limits, policy, 20) == 20
            charge = await limits.charge("acme", "", "", policy, 5)
            charge.correct(1)
            assert len(counters.questions) == 1

        running(body)

    def test_a_limit_that_lets_nothing_through_needs_no_counters(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            counters.is_broken = True
            assert not await admitted(limits, governed(0, fail=WhenCountersFail.ALLOW))

        running(body)

    def test_they_are_found_again_without_any_call_that_waits(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            counters.is_broken = True
            policy = governed(5, fail=WhenCountersFail.ALLOW)
            await limits.admit("acme", "", "", policy)
            await asyncio.sleep(10.5 * AWAY_SECONDS)
            assert (len(counters.questions), counters.checks) == (1, 10)
            counters.is_broken = False
            await asyncio.sleep(AWAY_SECONDS)
            assert await let_through(limits, policy, 20) == 5

        running(body)

    def test_silent_counters_are_waited_for_a_moment_once(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            counters.seconds = math.inf
            policy = governed(5, fail=WhenCountersFail.ALLOW)
            clock = LoopClock()
            started = clock.monotonic()
            await asyncio.gather(*(limits.admit("acme", "", "", policy) for _ in range(10)))
            assert clock.monotonic() - started == pytest.approx(counters.patience_seconds)
            await limits.admit("acme", "", "", policy)
            assert clock.monotonic() - started == pytest.approx(counters.patience_seconds)

        running(body)

    def test_slow_counters_are_used_as_soon_as_they_answer(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            counters.seconds = 0.1
            policy = governed(5)
            with pytest.raises(CountersUnavailable):
                await limits.admit("acme", "", "", policy)
            await asyncio.sleep(0.06)
            counters.seconds = 0.0
            assert await let_through(limits, policy, 20) == 5

        running(body)

    def test_what_is_at_hand_is_used(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            policy = governed(100 * CHUNKS_OF_A_LIMIT)
            await limits.admit("acme", "", "", policy)
            counters.is_broken = True
            await limits.admit("acme", "", "", policy)
            with pytest.raises(CountersUnavailable):
                await limits.admit("acme", "", "", policy)

        running(body)

    def test_a_loss_is_told_once_and_names_nobody(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            counters.is_broken = True
            for _ in range(5):
                assert await let_through(limits, governed(5, fail=WhenCountersFail.ALLOW), 5) == 5
                await asyncio.sleep(AWAY_SECONDS)
            counters.is_broken = False
            await asyncio.sleep(AWAY_SECONDS)
            assert await admitted(limits, governed(5))

        with structlog.testing.capture_logs() as logs:
            running(body)
        assert [entry["event"] for entry in logs] == ["rate_limit_counters_lost", "rate_limit_counters_back"]
        assert logs[0]["error"] == "ConnectionError"
        assert "secret" not in str(logs)

    def test_comings_and_goings_do_not_fill_the_log(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            for _ in range(10):
                counters.seconds = 0.06
                assert await admitted(limits, governed(5, fail=WhenCountersFail.ALLOW))
                await asyncio.sleep(0.3)

        with structlog.testing.capture_logs() as logs:
            running(body)
        assert [entry["event"] for entry in logs].count("rate_limit_counters_lost") == 1

    def test_corrections_are_not_kept_for_dead_counters(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            charge = await limits.charge("acme", "", "", governed(None, 10**6), 10)
            await asyncio.sleep(1)
            counters.is_broken = True
            with pytest.raises(CountersUnavailable):
                await limits.admit("acme", "", "", governed(5))
            charge.correct(5)
            await asyncio.sleep(3 * AWAY_SECONDS)
            asked = len(counters.questions)
            counters.is_broken = False
            await asyncio.sleep(3 * AWAY_SECONDS)
            assert len(counters.questions) == asked

        running(body)

    def test_not_more_corrections_wait_for_slow_counters_than_there_is_room_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(permits, "MOST_CORRECTIONS", 3)

        async def body(limits: Limits, counters: MoodyCounters) -> None:
            policy = governed(5, 10**6)
            charges = []
            for _ in range(5):
                charges.append(await limits.charge("acme", "", "", policy, 10))
                await asyncio.sleep(1)
            counters.seconds = 3.0
            with pytest.raises(CountersUnavailable):
                await limits.admit("acme", "", "", policy)
            for charge in charges:
                charge.correct(5)
            await asyncio.sleep(7)
            assert [list(corrections.values()) for _, corrections in counters.questions[-2:]] == [[], [5, 5, 5]]

        running(body)

    def test_closing_does_not_wait_for_them(self) -> None:
        async def body(limits: Limits, counters: MoodyCounters) -> None:
            call = asyncio.create_task(limits.admit("acme", "", "", governed(LARGE)))
            await asyncio.sleep(0)
            counters.seconds = math.inf
            call_too = asyncio.create_task(limits.admit("acme", "ann", "", governed(users=5)))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await limits.close()
            await asyncio.gather(call, call_too, return_exceptions=True)
            await limits.close()

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
