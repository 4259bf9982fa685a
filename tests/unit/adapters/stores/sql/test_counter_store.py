from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sqlalchemy import func, select

from kit.clock import FakeClock
from kit.counting import sql_counting
from pointsman_server.adapters.stores.sql.counter_store import CLEANING_SECONDS, SqlCounters
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.schema import counters
from pointsman_server.execution.counters import GRAIN_SECONDS, HELD_GRAINS, Want


async def rows(database: Database) -> int:
    async with database.read() as connection:
        return int(await connection.scalar(select(func.count()).select_from(counters)) or 0)


class TestSalt:
    async def test_is_the_same_for_all_who_share_the_database(self, database: Database) -> None:
        one, other = SqlCounters(database, FakeClock()), SqlCounters(database, FakeClock())
        salts = await asyncio.gather(one.salt(), other.salt(), one.salt())
        assert len(salts[0]) == 8
        assert len(set(salts)) == 1

    async def test_differs_between_databases(self, database: Database, tmp_path: object) -> None:
        elsewhere = Database(f"sqlite:///{tmp_path}/other.db")
        await elsewhere.open()
        assert await SqlCounters(elsewhere, FakeClock()).salt() != await SqlCounters(database, FakeClock()).salt()
        await elsewhere.close()


class TestCleaning:
    async def test_old_rows_go_and_the_salt_stays(self, database: Database) -> None:
        clock = FakeClock()
        kept = SqlCounters(database, clock)
        salt = await kept.salt()
        async with sql_counting(database) as counting:
            await counting.plant("old", 2 * HELD_GRAINS + 1, 5)
            await counting.plant("young", 2 * HELD_GRAINS - 200, 5)
        await kept.take((Want("n", 1, 1, 10),), {})
        assert await rows(database) == 4
        clock.advance(CLEANING_SECONDS)
        await kept.take((Want("n", 1, 1, 10),), {})
        async with database.read() as connection:
            names = set(await connection.scalars(select(counters.c.name)))
        assert names == {"salt", "young", "n"}
        assert await kept.salt() == salt


class TestManyProcesses:
    async def test_questions_that_name_the_same_counters_in_another_order(self, database: Database) -> None:
        kept = [SqlCounters(database, FakeClock()) for _ in range(4)]
        names = [f"n{number}" for number in range(6)]

        async def ask(store: SqlCounters, order: Sequence[str]) -> int:
            grants = await store.take([Want(name, 1, 3, 20) for name in order], {(order[0], 1): 1})
            return sum(grant.amount for grant in grants)

        taken = await asyncio.gather(
            *(ask(store, names[turn:] + names[:turn]) for store in kept for turn in range(len(names)))
        )
        assert sum(taken) == 20 * len(names)

    async def test_sqlite_counts_by_the_machines_monotonic_clock(self, database: Database) -> None:
        clock = FakeClock()
        kept = SqlCounters(database, clock)
        (grant,) = await kept.take((Want("n", 1, 1, 10),), {})
        clock.now_seconds += 3600
        (later,) = await kept.take((Want("n", 1, 1, 10),), {})
        assert later.left == 8
        assert (int(clock.monotonic() / GRAIN_SECONDS) == grant.grain == later.grain) is database.is_sqlite
