"""What limits do while the counters are away, slow, or come back."""

from __future__ import annotations

import asyncio
import math

import pytest
import structlog

from kit.clock import LoopClock
from kit.limit_runs import LARGE, running
from kit.limiting import MoodyCounters, admitted, governed, let_through
from pointsman_server.domain.errors import CountersUnavailable
from pointsman_server.domain.governance import WhenCountersFail
from pointsman_server.execution import permits
from pointsman_server.execution.limits import Limits
from pointsman_server.execution.permits import AWAY_SECONDS, CHUNKS_OF_A_LIMIT


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
