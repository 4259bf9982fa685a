"""How the calls of each process went while a canary runs, in the database."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import delete, select

from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.database_clock import now_by
from pointsman_server.adapters.stores.sql.inserting import insert_or
from pointsman_server.adapters.stores.sql.schema import canary_tallies as rows
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.canary_samples import Tallies, Tally

COUNTED_SECONDS = 30.0
"""So long what a process told counts. One that lives tells again long before."""


class SqlTallies:
    """See `TallyExchange`. `process` is the name of this one; `clock` is asked where the database has none."""

    def __init__(self, database: Database, process: str, clock: Clock) -> None:
        self._database = database
        self._process = process
        self._clock = clock

    async def exchange(self, trial: str, own: Tallies) -> Sequence[Tallies]:
        """See `TallyExchange.exchange`."""
        now = now_by(self._database, self._clock)
        row = {"process": self._process, "trial": trial, "told_at": now, "tally_json": _write(own)}
        others = select(rows.c.tally_json).where(rows.c.trial == trial, rows.c.process != self._process)
        async with self._database.write() as connection:
            told = insert_or(connection, rows).values(row)
            await connection.execute(told.on_conflict_do_update(index_elements=["process"], set_=row))
            await connection.execute(delete(rows).where(rows.c.told_at < now - COUNTED_SECONDS))
            return [_read(text) for text in (await connection.execute(others)).scalars()]

    async def withdraw(self) -> None:
        """See `TallyExchange.withdraw`."""
        async with self._database.write() as connection:
            await connection.execute(delete(rows).where(rows.c.process == self._process))


def _write(tallies: Tallies) -> str:
    return orjson.dumps([[one.calls, one.failed, list(one.seconds.items())] for one in tallies]).decode()


def _read(text: str) -> Tallies:
    canary, control = orjson.loads(text)
    return Tallies(_tally(*canary), _tally(*control))


def _tally(calls: int, failed: int, seconds: list[Any]) -> Tally:
    return Tally(calls, failed, dict(seconds))
