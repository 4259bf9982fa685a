"""What every kind of counter promises."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from kit.counting import KINDS, Counting, memory_counting, redis_counting, sql_counting
from kit.redis_server import RedisServer
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.execution.counters import GRAIN_SECONDS, HELD_GRAINS, Grant, Want

FAR_FROM_THE_EDGE = 20
"""Grains; a busy machine may take seconds between two steps of a test."""


@pytest.fixture(params=KINDS)
async def counting(request: pytest.FixtureRequest, tmp_path: object) -> AsyncGenerator[Counting, None]:
    if request.param == "memory":
        async with memory_counting() as counting:
            yield counting
    elif request.param == "redis":
        server = RedisServer()
        await server.start()
        try:
            async with redis_counting(server) as counting:
                yield counting
        finally:
            server.kill()
    else:
        url = f"sqlite:///{tmp_path}/pointsman.db"
        if request.param == "postgresql":
            url = request.getfixturevalue("postgres_server").make()
        database = Database(url)
        await database.open()
        async with sql_counting(database) as counting:
            yield counting
        await database.close()


async def take(counting: Counting, amount: int, limit: int = 10, *, least: int = 1, name: str = "n") -> Grant:
    (grant,) = await counting.counters.take((Want(name, least, amount, limit),), {})
    return grant


class TestTaking:
    async def test_as_much_as_is_wanted_while_it_is_there(self, counting: Counting) -> None:
        grant = await take(counting, 4)
        assert (grant.amount, grant.left, grant.held) == (4, 6, ())
        assert GRAIN_SECONDS < grant.usable_seconds <= 2 * GRAIN_SECONDS

    async def test_what_is_left_when_that_is_less(self, counting: Counting) -> None:
        await take(counting, 7)
        grant = await take(counting, 7)
        assert (grant.amount, grant.left) == (3, 0)
        assert sum(count for _, count in grant.held) == 10

    async def test_nothing_when_what_is_left_is_of_no_use(self, counting: Counting) -> None:
        await take(counting, 7)
        grant = await take(counting, 5, least=4)
        assert (grant.amount, grant.left) == (0, 3)
        assert sum(count for _, count in grant.held) == 7
        assert (await take(counting, 3)).amount == 3

    async def test_nothing_of_a_limit_of_zero(self, counting: Counting) -> None:
        grant = await take(counting, 1, limit=0)
        assert (grant.amount, grant.left, grant.held) == (0, 0, ())

    async def test_a_limit_that_was_lowered_below_what_was_taken(self, counting: Counting) -> None:
        await take(counting, 7)
        grant = await take(counting, 1, limit=5)
        assert (grant.amount, grant.left) == (0, 0)

    async def test_counters_do_not_touch_each_other(self, counting: Counting) -> None:
        wants = (Want("one", 1, 10, 10), Want("other", 1, 3, 10), Want("o'the\"r", 1, 20, 10))
        first = await counting.counters.take(wants, {})
        assert [(grant.amount, grant.left) for grant in first] == [(10, 0), (3, 7), (10, 0)]
        second = await counting.counters.take(wants[::-1], {})
        assert [(grant.amount, grant.left) for grant in second] == [(0, 0), (3, 4), (0, 0)]

    async def test_the_last_permit_is_given_once(self, counting: Counting) -> None:
        grants = await asyncio.gather(*(take(counting, 1, limit=5) for _ in range(20)))
        assert sum(grant.amount for grant in grants) == 5

    async def test_nothing_at_all(self, counting: Counting) -> None:
        assert not await counting.counters.take((), {})
        await counting.counters.check()


class TestCorrecting:
    async def test_what_was_not_used_can_be_taken_again(self, counting: Counting) -> None:
        grant = await take(counting, 10)
        (again,) = await counting.counters.take((Want("n", 1, 10, 10),), {("n", grant.grain): 4})
        assert (again.amount, again.left) == (4, 0)

    async def test_more_was_used(self, counting: Counting) -> None:
        grant = await take(counting, 5)
        await counting.counters.take((), {("n", grant.grain): -20})
        assert (await take(counting, 1, limit=20)).left == 0
        assert (await take(counting, 1, limit=26)).left == 0
        assert (await take(counting, 1, limit=27)).amount == 1

    async def test_what_does_not_count_is_not_corrected(self, counting: Counting) -> None:
        grant = await take(counting, 5)
        await counting.counters.take((), {("n", grant.grain - HELD_GRAINS): 5, ("unheard", grant.grain): 5})
        assert (await take(counting, 10)).amount == 5
        assert (await take(counting, 20, name="unheard")).amount == 10


class TestTime:
    async def test_what_was_taken_counts_for_a_minute(self, counting: Counting) -> None:
        await counting.plant("n", HELD_GRAINS - FAR_FROM_THE_EDGE, 10)
        assert (await take(counting, 1)).amount == 0
        await counting.plant("m", HELD_GRAINS, 10)
        assert (await take(counting, 10, name="m")).amount == 10

    async def test_a_clock_that_was_set_back_forgets_nothing_and_keeps_nobody_waiting(self, counting: Counting) -> None:
        await counting.plant("n", -round(3600 / GRAIN_SECONDS), 8)
        grant = await take(counting, 10)
        assert (grant.amount, grant.left) == (2, 0)
        assert [count for _, count in grant.held] == [10]
        assert grant.held[0][0] == grant.grain
        again = await take(counting, 10)
        assert again.amount == 0
        assert again.held[-1][0] <= again.grain
