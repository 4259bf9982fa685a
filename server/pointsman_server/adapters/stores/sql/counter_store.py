"""Counters of rate limits in the database.

What counts against a limit is read, judged and written in one transaction, which no other one for the same counter can
come between: PostgreSQL holds a lock for each name until the transaction ends, SQLite lets one write at a time.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b

from sqlalchemy import ARRAY, BigInteger, bindparam, delete, extract, func, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.inserting import insert_new, insert_or
from pointsman_server.adapters.stores.sql.schema import counters
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.counters import GRAIN_SECONDS, HELD_GRAINS, Corrections, Grant, Want, WindowCount

CLEANING_SECONDS = 30.0
"""How often a process removes what does not count any more."""

_SPARED_GRAINS = 2 * HELD_GRAINS
"""Younger rows are not removed, so that removing never meets with a transaction that changes them."""

_SALT = "salt"
"""A row of its own in grain 0, which is never counted in: the random number that goes into hashes of names."""


class SqlCounters:
    """See `Counters`.

    Grains are those of the database's clock, so that all replicas agree. For SQLite that is the machine's monotonic
    clock, which all its processes share.
    """

    patience_seconds = 1.0
    """Writers of SQLite wait for each other; that is no failure."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._clean_at = clock.monotonic() + CLEANING_SECONDS

    async def salt(self) -> bytes:
        """What to hash people's names with: the same for all who share the database, and for no others."""
        async with self._database.write() as connection:
            fresh = insert_new(connection, counters)
            await connection.execute(fresh.values(name=_SALT, window=0, used=secrets.randbits(63)))
            salt = await connection.scalar(select(counters.c.used).where(counters.c.name == _SALT))
        return int(salt or 0).to_bytes(8, "big")

    async def take(self, wants: Sequence[Want], corrections: Corrections) -> Sequence[Grant]:
        """See `Counters.take`."""
        names = {want.name for want in wants} | {name for name, _ in corrections}
        if not names:
            return []
        async with self._database.write() as connection:
            moment = await self._lock(connection, names) / GRAIN_SECONDS
            before = await _read(connection, names, since=int(moment) - HELD_GRAINS)
            counts = {name: WindowCount(before[name].items()) for name in names}
            for (name, grain), amount in corrections.items():
                counts[name].correct(grain, amount)
            grants = [_granted(counts[want.name], want, moment) for want in wants]
            await _write(connection, before, counts)
        await self._clean(int(moment))
        return grants

    async def check(self) -> None:
        """See `Counters.check`."""
        async with self._database.read() as connection:
            await connection.execute(select(1))

    async def _lock(self, connection: AsyncConnection, names: Collection[str]) -> float:
        """The moment, in seconds, from which on nobody else changes these counters."""
        if self._database.is_sqlite:
            return self._clock.monotonic()
        # In one order for everybody, or two transactions could wait for each other.
        keys = bindparam("keys", sorted({_lock_key(name) for name in names}), ARRAY(BigInteger))
        key = func.unnest(keys).table_valued("key").render_derived().c.key
        locked = select(func.pg_advisory_xact_lock(key), extract("epoch", func.clock_timestamp()))
        return max(float(seconds) for _, seconds in await connection.execute(locked))

    async def _clean(self, grain: int) -> None:
        if self._clock.monotonic() < self._clean_at:
            return
        self._clean_at = self._clock.monotonic() + CLEANING_SECONDS
        old = counters.c.window.between(1, grain - _SPARED_GRAINS)
        async with self._database.write() as connection:
            await connection.execute(delete(counters).where(old))


async def _read(connection: AsyncConnection, names: Iterable[str], *, since: int) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {name: {} for name in names}
    wanted = select(counters.c.name, counters.c.window, counters.c.used).where(
        counters.c.name.in_(found), counters.c.window > since
    )
    for name, grain, used in await connection.execute(wanted):
        found[name][grain] = used
    return found


async def _write(
    connection: AsyncConnection, before: Mapping[str, Mapping[int, int]], after: Mapping[str, WindowCount]
) -> None:
    changed = [
        {"name": name, "window": grain, "used": used}
        for name, count in after.items()
        for grain, used in count.counts.items()
        if before[name].get(grain) != used
    ]
    gone = [(name, grain) for name, grains in before.items() for grain in grains if grain not in after[name].counts]
    if gone:
        await connection.execute(delete(counters).where(tuple_(counters.c.name, counters.c.window).in_(gone)))
    if changed:
        upsert = insert_or(connection, counters).values(changed)
        await connection.execute(
            upsert.on_conflict_do_update(index_elements=["name", "window"], set_={"used": upsert.excluded.used})
        )


def _granted(count: WindowCount, want: Want, moment: float) -> Grant:
    count.look(int(moment))
    return count.take(want, moment)


def _lock_key(name: str) -> int:
    return int.from_bytes(blake2b(name.encode(), digest_size=8, person=b"limits").digest(), "big", signed=True)
