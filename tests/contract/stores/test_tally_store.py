"""What processes tell each other of a canary: the same on both engines."""

from __future__ import annotations

import pytest

from kit.clock import FakeClock
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.schema import canary_tallies
from pointsman_server.adapters.stores.sql.tally_store import COUNTED_SECONDS, SqlTallies
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.execution.canary_samples import Tallies, Tally

ONE = Tallies(Tally(3, 1, {5: 2}), Tally(7, 0, {1: 3, 200: 4}))
OTHER = Tallies(Tally(0, 0, {}), Tally(1, 1, {}))


def of(database: Database, process: str) -> SqlTallies:
    return SqlTallies(database, process, SystemClock())


async def test_each_hears_what_the_others_told_last(database: Database) -> None:
    one, other, third = (of(database, name) for name in ("one", "other", "third"))
    assert await one.exchange("t", OTHER) == []
    assert await other.exchange("t", OTHER) == [OTHER]
    assert await one.exchange("t", ONE) == [OTHER]
    assert sorted(await third.exchange("t", OTHER)) == sorted([ONE, OTHER])


async def test_another_trial_is_another_matter(database: Database) -> None:
    await of(database, "one").exchange("t", ONE)
    assert await of(database, "other").exchange("u", OTHER) == []


async def test_what_was_taken_back_is_gone(database: Database) -> None:
    one = of(database, "one")
    await one.exchange("t", ONE)
    await one.withdraw()
    await one.withdraw()
    assert await of(database, "other").exchange("t", OTHER) == []


async def test_who_told_nothing_for_long_counts_no_more(database: Database) -> None:
    await of(database, "one").exchange("t", ONE)
    async with database.write() as connection:
        past = canary_tallies.update().values(told_at=canary_tallies.c.told_at - COUNTED_SECONDS)
        await connection.execute(past)
    assert await of(database, "other").exchange("t", OTHER) == []


async def test_sqlite_goes_by_the_clock_that_it_is_given(database: Database) -> None:
    if not database.is_sqlite:
        pytest.skip("PostgreSQL has a clock of its own")
    clock = FakeClock()
    one, other = (SqlTallies(database, name, clock) for name in ("one", "other"))
    await one.exchange("t", ONE)
    clock.advance(COUNTED_SECONDS - 1.0)
    assert await other.exchange("t", OTHER) == [ONE]
    clock.advance(2.0)
    assert await other.exchange("t", OTHER) == []
