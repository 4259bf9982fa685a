"""None"""

from __future__ import annotations

import asyncio

import pytest

from kit.limit_runs import MINUTE, running
from kit.limiting import MoodyCounters, admitted, governed, let_through
from pointsman_server.domain.errors import RateLimited
from pointsman_server.domain.governance import Governance, RateLimit
from pointsman_server.execution.counters import GRAIN_SECONDS, HELD_GRAINS
from pointsman_server.execution.limits import NO_CHARGE, Limits

GONE = (HELD_GRAINS + 1) * GRAIN_SECONDS
"""After so many seconds nothing counts any more, wherever in a grain it was taken."""


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
