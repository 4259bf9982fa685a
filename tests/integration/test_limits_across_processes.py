"""Rate limits of two replicas with four workers each, all of them real processes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from time import perf_counter

import pytest

from kit.limit_press import press_from
from kit.limiting import SALT, governed, let_through
from kit.redis_server import RedisServer, Tunnel, eventually
from pointsman_server.adapters.stores.redis_counters import RedisCounters
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.domain.errors import CountersUnavailable
from pointsman_server.domain.governance import WhenCountersFail
from pointsman_server.execution.limits import Limits

pytestmark = [pytest.mark.slow, pytest.mark.long]

PROCESSES, WORKERS = 8, 4
PRESS_SECONDS = 1.5
"""Longer than what one process leaves over stays with it."""

OPEN = WhenCountersFail.ALLOW


@pytest.fixture
async def redis() -> AsyncGenerator[RedisServer, None]:
    server = RedisServer()
    await server.start()
    try:
        yield server
    finally:
        server.kill()


def exact(passed: int, limit: int) -> bool:
    return 0.99 * limit <= passed <= limit


class TestEightProcesses:
    async def test_share_a_limit_over_the_database(self, database: Database, database_url: str) -> None:
        pressed = await press_from(PROCESSES, database_url, 1_500, PRESS_SECONDS, WORKERS)
        assert exact(len(pressed.passed), 1_500), pressed.refused
        assert pressed.refused["RateLimited"]

    async def test_share_a_limit_over_redis(self, redis: RedisServer) -> None:
        pressed = await press_from(PROCESSES, redis.url, 20_000, PRESS_SECONDS, WORKERS)
        assert exact(len(pressed.passed), 20_000), pressed.refused
        assert pressed.refused["RateLimited"]


class TestRedisLost:
    async def test_calls_do_not_wait_for_a_dead_one(self, redis: RedisServer) -> None:
        counters = RedisCounters(redis.url)
        limits = Limits(counters, SystemClock(), SALT)
        assert await let_through(limits, governed(5), 2) == 2
        redis.kill()
        started = perf_counter()
        with pytest.raises(CountersUnavailable):
            await limits.admit("acme", "", "", governed(5))
        assert perf_counter() - started < 0.2, "50 ms, and room for a busy machine"
        started = perf_counter()
        assert await let_through(limits, governed(5, fail=OPEN), 100) == 100
        assert perf_counter() - started < 0.05
        await redis.start()
        await eventually(lambda: not limits.is_blind)
        assert await let_through(limits, governed(5), 20) == 5, "a Redis that keeps nothing on disk begins anew"
        await limits.close()
        await counters.close()

    async def test_an_idle_connection_that_was_closed_is_no_loss(self, redis: RedisServer) -> None:
        counters = RedisCounters(redis.url)
        limits = Limits(counters, SystemClock(), SALT)
        assert await let_through(limits, governed(5), 2) == 2
        await redis.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert await let_through(limits, governed(5), 20) == 3
        await limits.close()
        await counters.close()

    async def test_nor_for_a_silent_one(self, redis: RedisServer) -> None:
        async with Tunnel.to(redis.port) as tunnel:
            counters = RedisCounters(tunnel.url)
            limits = Limits(counters, SystemClock(), SALT)
            assert await let_through(limits, governed(5), 2) == 2
            tunnel.block()
            started = perf_counter()
            with pytest.raises(CountersUnavailable):
                await limits.admit("acme", "", "", governed(5))
            assert 0.04 < perf_counter() - started < 0.2
            tunnel.unblock()
            await eventually(lambda: not limits.is_blind)
            # The question that was not waited for was counted, or not: it did not go through twice.
            assert await let_through(limits, governed(5), 20) in (2, 3)
            await limits.close()
            await counters.close()

    def test_a_url_that_is_none_is_not_quoted(self) -> None:
        with pytest.raises(ValueError, match="POINTSMAN_REDIS_URL") as caught:
            RedisCounters("redis://:hunter2@host:no-port")
        assert "hunter2" not in str(caught.value)
