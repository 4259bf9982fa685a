from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from itertools import count
from time import perf_counter
from typing import Any

import orjson
import pytest
import structlog

from kit.boards import OPEN_SECONDS, SHARED_ACCOUNT, Board, opened
from kit.clock import FakeClock
from kit.redis_server import RedisServer, Tunnel, eventually
from pointsman_server.adapters.stores import redis_health
from pointsman_server.adapters.stores.redis_health import CHANNEL, KEY, MOST_WAITING, SharedHealth
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.plan import ExclusionReason, Rejection

CLOSED, OPEN = BreakerState.CLOSED, BreakerState.OPEN
NOW = 1_750_000_000.0


_names = count()


class Replica(Board):
    """A board that shares what it learns; its monotonic clock began at a time of its own."""

    def __init__(self, url: str, *deployments: Any) -> None:
        number = next(_names)
        super().__init__(*deployments, clock=FakeClock(monotonic=1_000.0 * number, now=NOW))
        self.shared = SharedHealth(url, self.health, self.clock, f"rep_{number}", lambda: self.snapshot.deployments)

    async def connected(self) -> None:
        await eventually(lambda: self.shared.is_connected)

    async def lost(self) -> None:
        await eventually(lambda: not self.shared.is_connected)

    async def learns(self, state: BreakerState, name: str = "d") -> None:
        await eventually(lambda: self.state(name) is state)


@pytest.fixture
async def redis() -> AsyncGenerator[RedisServer, None]:
    server = RedisServer()
    await server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_health, "_LONGEST_PAUSE_SECONDS", 0.2)


@asynccontextmanager
async def replicas(*urls: str, deployments: Any = ()) -> AsyncGenerator[list[Replica], None]:
    """Replicas that found Redis."""
    all_of_them = [Replica(url, *deployments) for url in urls]
    for one in all_of_them:
        one.shared.start()
    try:
        for one in all_of_them:
            await one.connected()
        yield all_of_them
    finally:
        for one in all_of_them:
            await one.shared.close()


class TestTelling:
    async def test_an_opening_and_how_long_it_lasts(self, redis: RedisServer) -> None:
        async with replicas(redis.url, redis.url) as (one, other):
            opened(one)
            await other.learns(OPEN)
            assert other.back_in() == pytest.approx(OPEN_SECONDS, abs=0.01)
            assert isinstance(other.ask(), Rejection)
            assert other.state("e") is CLOSED

    async def test_a_failed_probe_keeps_the_others_from_theirs(self, redis: RedisServer) -> None:
        async with replicas(redis.url, redis.url) as (one, other):
            opened(one)
            await other.learns(OPEN)
            for replica in (one, other):
                replica.clock.advance(OPEN_SECONDS)
            probe = one.begin()
            assert other.why() is None
            probe.failed(one_fault())
            await eventually(lambda: other.why() is ExclusionReason.BREAKER_OPEN)
            other.clock.advance(OPEN_SECONDS)
            other.fail()  # the second failed probe of all
            assert other.back_in() == 2 * OPEN_SECONDS

    async def test_a_successful_probe_brings_everybody_back(self, redis: RedisServer) -> None:
        async with replicas(redis.url, redis.url) as (one, other):
            opened(one)
            await other.learns(OPEN)
            one.clock.advance(OPEN_SECONDS)
            one.succeed()
            await other.learns(CLOSED)
            assert await redis.ask("EXISTS", f"{KEY}d") == 0

    async def test_a_cooldown(self, redis: RedisServer) -> None:
        async with replicas(redis.url, redis.url) as (one, other):
            one.limited(45.0)
            await eventually(lambda: other.why() is ExclusionReason.COOLDOWN)
            assert other.back_in() == pytest.approx(45.0, abs=0.01)

    async def test_a_cooldown_of_an_account(self, redis: RedisServer) -> None:
        async with replicas(redis.url, redis.url, deployments=SHARED_ACCOUNT) as (one, other):
            one.limited(None, FaultKind.AUTH)
            await eventually(lambda: other.why("d") is ExclusionReason.COOLDOWN)
            await eventually(lambda: other.why("e") is ExclusionReason.COOLDOWN)
            assert other.why("f") is None
            other.health.reset("e")
            await eventually(lambda: one.why("d") is None)

    async def test_a_reset(self, redis: RedisServer) -> None:
        async with replicas(redis.url, redis.url) as (one, other):
            opened(one)
            one.limited(50.0, name="e")
            await other.learns(OPEN)
            await eventually(lambda: other.why("e") is not None)
            for name in "de":
                other.health.reset(name)
            await one.learns(CLOSED)
            await eventually(lambda: one.why("e") is None)
            assert await redis.ask("KEYS", "*") == []

    async def test_a_replica_does_not_listen_to_itself(self, redis: RedisServer) -> None:
        async with replicas(redis.url, redis.url) as (one, other):
            opened(one)
            one.health.reset("d")
            opened(one)
            one.limited(50.0, name="e")
            await eventually(lambda: other.why("e") is not None)
            assert one.state() is OPEN


class TestComingLater:
    async def test_who_comes_later_learns_what_is_in_force(self, redis: RedisServer) -> None:
        async with replicas(redis.url, deployments=SHARED_ACCOUNT) as (one,):
            opened(one)
            one.limited(20.0, name="f")
            one.limited(None, FaultKind.QUOTA, name="e")
            await until_kept(redis, 4)
            async with replicas(redis.url, deployments=SHARED_ACCOUNT) as (other,):
                assert [other.state(name) for name in "def"] == [OPEN, CLOSED, CLOSED]
                assert [other.why(name) for name in "ef"] == [ExclusionReason.COOLDOWN] * 2

    async def test_a_limit_of_its_own_does_not_hide_that_of_the_account(self, redis: RedisServer) -> None:
        async with replicas(redis.url, deployments=SHARED_ACCOUNT) as (one,):
            attempts = [one.begin("e"), one.begin("e")]
            attempts[0].failed(one_fault(FaultKind.AUTH))
            attempts[1].failed(one_fault(FaultKind.RATE_LIMITED))
            await until_kept(redis, 3)
            async with replicas(redis.url, deployments=SHARED_ACCOUNT) as (other,):
                assert other.back_in("e") == pytest.approx(30.0, abs=0.01)

    async def test_what_is_over_is_not_learned_and_goes_by_itself(self, redis: RedisServer) -> None:
        async with replicas(redis.url) as (one,):
            opened(one)
            await until_kept(redis, 1)
            assert 0 < int(await redis.ask("TTL", f"{KEY}d")) <= 3_600
            late = Replica(redis.url)
            late.clock.advance(OPEN_SECONDS)
            late.shared.start()
            await late.connected()
            await late.shared.close()
            assert late.state() is CLOSED


class TestRedisAway:
    async def test_everybody_goes_on_alone_and_they_find_each_other_again(self, redis: RedisServer) -> None:
        async with replicas(redis.url, redis.url) as (one, other):
            for replica in (one, other):
                replica.clock.advance(3_600.0)
            redis.kill()
            await one.lost()
            await other.lost()
            opened(one, "d")
            await asyncio.sleep(0.3)
            assert other.state("d") is CLOSED
            await redis.start()
            await other.learns(OPEN, "d")
            await one.connected()
            opened(other, "e")
            await one.learns(OPEN, "e")

    async def test_it_need_not_be_there_at_the_start(self) -> None:
        server = RedisServer()
        one = Replica(server.url)
        with structlog.testing.capture_logs() as logs:
            one.shared.start()
            await asyncio.sleep(0.5)
            assert not one.shared.is_connected
            assert [log["event"] for log in logs] == ["health_sharing_lost"], "said once, however often it is tried"
            await server.start()
            try:
                await one.connected()
            finally:
                server.kill()
        await one.shared.close()

    async def test_news_is_bounded_and_what_is_too_much_is_counted(self) -> None:
        one = Replica("redis://127.0.0.1:1/0")
        with structlog.testing.capture_logs() as logs:
            one.shared.start()
            for _ in range(MOST_WAITING + 50):
                one.health.reset("d")
            assert one.shared.dropped == 50
        assert [log["event"] for log in logs if log["event"] != "breaker_closed"] == ["health_news_dropping"]
        await one.shared.close()

    async def test_telling_costs_a_call_next_to_nothing(self, redis: RedisServer) -> None:
        async with Tunnel.to(redis.port) as tunnel, replicas(tunnel.url) as (one,):
            tunnel.block()
            began = perf_counter()
            for _ in range(1_000):
                one.health.reset("d")
            assert perf_counter() - began < 1.0
            tunnel.unblock()

    async def test_news_that_waited_for_too_long_is_not_told(self, redis: RedisServer) -> None:
        one = Replica(redis.url)
        one.health.share_with(one.shared._take)
        opened(one)
        one.limited(90.0, name="e")
        one.clock.advance(OPEN_SECONDS)
        one.shared.start()
        await until_kept(redis, 1)
        assert await redis.ask("KEYS", "*") == [f"{KEY}e".encode()]
        await one.shared.close()

    async def test_a_silent_connection_is_given_up(self, redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(redis_health, "_QUIET_SECONDS", 0.1)
        async with Tunnel.to(redis.port) as tunnel, replicas(tunnel.url, redis.url) as (one, other):
            connections = tunnel.connections
            await asyncio.sleep(0.5)
            assert (one.shared.is_connected, tunnel.connections) == (True, connections), "pings keep it"
            tunnel.block()
            await one.lost()
            tunnel.unblock()
            await one.connected()
            assert tunnel.connections > connections
            opened(other)
            await one.learns(OPEN)

    async def test_a_redis_that_keeps_nothing_costs_only_the_sharing(self) -> None:
        server = RedisServer(["--min-replicas-to-write", "1"])
        await server.start()
        try:
            with structlog.testing.capture_logs() as logs:
                async with replicas(server.url, server.url) as (one, other):
                    opened(one)
                    one.limited(50.0, name="e")
                    await eventually(lambda: one.shared.dropped == 2)
                    assert one.shared.is_connected
                    await server.ask("CONFIG", "SET", "min-replicas-to-write", "0")
                    opened(one, "f")
                    await other.learns(OPEN, "f")
        finally:
            server.kill()
        assert [log["reason"] for log in logs if log["event"] == "health_news_dropping"] == ["Redis refuses to keep it"]

    async def test_an_end_before_the_start(self) -> None:
        await Replica("redis://127.0.0.1:1/0").shared.close()


def news(**fields: Any) -> str:
    told = {"replica": "x", "deployment": "d", "kind": "opened", "happened_at": NOW, "until": NOW + 10.0, **fields}
    return orjson.dumps(told).decode()


UNREADABLE = {
    "no JSON": "{",
    "another shape": "[1]",
    "no such kind": news(kind="exploded"),
    "no time": news(until="soon"),
    "a negative time": news(until=-1.0),
    "too large a number": news(failed_probes=10**9),
    "too long a name": news(deployment="d" * 10_000),
    "nothing": "",
}


class TestStrangeNews:
    """Whatever somebody writes into Redis, nobody falls over it."""

    async def heard(self, redis: RedisServer, one: Replica, data: str) -> list[str]:
        """The events logged until something that was told after it is heard."""
        with structlog.testing.capture_logs() as logs:
            await redis.ask("PUBLISH", CHANNEL, data)
            await redis.ask("PUBLISH", CHANNEL, news(deployment="h", kind="cooled"))
            await eventually(lambda: one.why("h") is ExclusionReason.COOLDOWN)
        return [log["event"] for log in logs]

    @pytest.mark.parametrize("name", UNREADABLE)
    async def test_what_cannot_be_read_is_left_out(self, redis: RedisServer, name: str) -> None:
        async with replicas(redis.url) as (one,):
            assert await self.heard(redis, one, UNREADABLE[name]) == ["health_news_unreadable"]
            assert one.state() is CLOSED

    async def test_so_it_is_when_it_was_kept(self, redis: RedisServer) -> None:
        await redis.ask("HSET", f"{KEY}d", "opened", "{", "cooled", news(kind="cooled"))
        async with replicas(redis.url) as (one,):
            assert one.why() is ExclusionReason.COOLDOWN

    async def test_a_deployment_that_nobody_knows_is_left_out(self, redis: RedisServer) -> None:
        async with replicas(redis.url) as (one,):
            await self.heard(redis, one, news(deployment="nobody"))
            assert one.transitions == []
            assert one.why("nobody") is None

    async def test_a_time_far_away_is_an_hour(self, redis: RedisServer) -> None:
        async with replicas(redis.url) as (one,):
            await self.heard(redis, one, news(until=NOW + 1e9))
            assert one.back_in() == 3_600.0

    async def test_news_of_the_future_counts_as_of_now(self, redis: RedisServer) -> None:
        async with replicas(redis.url) as (one,):
            opened(one)
            await self.heard(redis, one, news(kind="closed", happened_at=NOW + 500.0))
            assert one.state() is CLOSED


class TestAddress:
    @pytest.mark.parametrize("url", ["redis://:PLANTED@127.0.0.1:notaport/0", "http://PLANTED"])
    async def test_one_that_is_none_is_told_without_showing_it(self, url: str) -> None:
        with pytest.raises(
            ValueError, match=r"^POINTSMAN_REDIS_URL is no URL of a Redis server \(not shown\)$"
        ) as caught:
            Replica(url)
        assert "PLANTED" not in repr(caught.value)

    async def test_no_log_shows_it(self) -> None:
        one = Replica("redis://:PLANTED@127.0.0.1:1/0")
        with structlog.testing.capture_logs() as logs:
            one.shared.start()
            await eventually(lambda: bool(logs))
            await one.shared.close()
        assert logs == [{"event": "health_sharing_lost", "error": "ConnectionError", "log_level": "warning"}]


def one_fault(kind: FaultKind = FaultKind.UNAVAILABLE) -> ProviderFault:
    return ProviderFault(kind, "x")


async def until_kept(redis: RedisServer, entries: int) -> None:
    """Waits until Redis keeps so much."""

    async def kept() -> int:
        return sum([len(await redis.ask("HKEYS", key)) for key in await redis.ask("KEYS", "*")])

    async with asyncio.timeout(10):
        while await kept() < entries:  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(0.01)
