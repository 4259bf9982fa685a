"""Shared counters of every kind, each with a way to count something that was taken some time ago."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy import extract, func, insert, select

from kit.clock import FakeClock
from kit.redis_server import RedisServer
from pointsman_server.adapters.stores.memory_counters import MemoryCounters
from pointsman_server.adapters.stores.redis_counters import KEY, RedisCounters
from pointsman_server.adapters.stores.sql.counter_store import SqlCounters
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.schema import counters
from pointsman_server.execution.counters import GRAIN_SECONDS, Counters, Want

KINDS = ("memory", "sqlite", "postgresql", "redis")
PLENTY = 1_000_000


@dataclass(frozen=True)
class Counting:
    """Counters, and `plant`: so much of a counter was taken so many grains ago; less than zero is in the future."""

    counters: Counters
    plant: Callable[[str, int, int], Awaitable[None]]


@asynccontextmanager
async def memory_counting() -> AsyncGenerator[Counting, None]:
    """Counters of one process."""
    clock = FakeClock()
    kept = MemoryCounters(clock)

    async def plant(name: str, grains_ago: int, amount: int) -> None:
        clock.advance(-grains_ago * GRAIN_SECONDS)
        await kept.take((Want(name, amount, amount, PLENTY),), {})
        clock.advance(grains_ago * GRAIN_SECONDS)

    yield Counting(kept, plant)


@asynccontextmanager
async def sql_counting(database: Database) -> AsyncGenerator[Counting, None]:
    """Counters in the database."""
    clock = FakeClock()

    async def plant(name: str, grains_ago: int, amount: int) -> None:
        async with database.write() as connection:
            moment = clock.monotonic()
            if not database.is_sqlite:
                moment = float(await connection.scalar(select(extract("epoch", func.clock_timestamp()))) or 0)
            grain = int(moment / GRAIN_SECONDS) - grains_ago
            await connection.execute(insert(counters).values(name=name, window=grain, used=amount))

    yield Counting(SqlCounters(database, clock), plant)


@asynccontextmanager
async def redis_counting(server: RedisServer) -> AsyncGenerator[Counting, None]:
    """Counters in Redis."""

    async def plant(name: str, grains_ago: int, amount: int) -> None:
        seconds, microseconds = await server.ask("TIME")
        grain = int((int(seconds) + int(microseconds) / 1_000_000) / GRAIN_SECONDS) - grains_ago
        await server.ask("HSET", KEY + name, str(grain), str(amount))

    kept = RedisCounters(server.url)
    try:
        yield Counting(kept, plant)
    finally:
        await kept.close()
