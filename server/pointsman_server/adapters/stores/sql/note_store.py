"""Notes in the database, for all processes that share it. They expire by the database's clock."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, and_, bindparam, delete, select

from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.database_clock import SERVERS_CLOCK, now_by
from pointsman_server.adapters.stores.sql.inserting import Insert, insert_of
from pointsman_server.adapters.stores.sql.schema import shared_notes as notes
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.shared_memory import FoundNote, Note, NoteKind, NoteName, SeenNote

MOST_OF_A_KIND = 100_000
"""Of all processes together, for kinds that are kept for days; other notes live too briefly to become many."""

_KINDS = tuple(kind.value for kind in NoteKind)
_LASTING = (NoteKind.ANSWER, NoteKind.VERDICT)


class SqlNotes:
    """See `NoteStore`. `clock` is asked where the database has none of its own."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def write(self, some: Sequence[Note]) -> None:
        """See `NoteStore.write`."""
        now = {"now": self._clock.now()} if self._database.is_sqlite else {}
        rows = [
            {"kind": name.kind.value, "tenant": name.tenant, "name": name.name, "value": value, "seconds": left, **now}
            for name, value, left in some
        ]
        # In one order, so that no two writers wait for each other.
        rows.sort(key=lambda row: (row["kind"], row["tenant"], row["name"]))
        async with self._database.write() as connection:
            await connection.execute(_writing(connection.dialect.name), rows)

    async def read(self, name: NoteName) -> FoundNote | None:
        """See `NoteStore.read`."""
        now = now_by(self._database, self._clock)
        wanted = select(notes.c.value, (notes.c.expires_at - now).label("left")).where(_named(name))
        async with self._database.read() as connection:
            row = (await connection.execute(wanted)).one_or_none()
        return FoundNote(row.value, row.left) if row is not None and row.left > 0 else None

    async def since(self, kind: NoteKind, until: float, limit: int) -> Sequence[SeenNote]:
        """See `NoteStore.since`."""
        wanted = select(notes).where(notes.c.kind == kind.value, notes.c.expires_at >= until)
        async with self._database.read() as connection:
            rows = await connection.execute(wanted.order_by(notes.c.expires_at).limit(limit))
            return [SeenNote(NoteName(kind, row.tenant, row.name), row.value, row.expires_at) for row in rows]

    async def clean(self) -> None:
        """See `NoteStore.clean`."""
        async with self._database.write() as connection:
            is_over = notes.c.expires_at <= now_by(self._database, self._clock)
            await connection.execute(delete(notes).where(notes.c.kind.in_(_KINDS), is_over))
            for kind in _LASTING:
                of_kind = notes.c.kind == kind.value
                newest_first = select(notes.c.expires_at).where(of_kind).order_by(notes.c.expires_at.desc())
                last = await connection.scalar(newest_first.offset(MOST_OF_A_KIND).limit(1))
                if last is not None:
                    await connection.execute(delete(notes).where(of_kind, notes.c.expires_at <= last))


# Making a statement costs more than running it.
@cache
def _writing(engine: str) -> Insert:
    now = bindparam("now") if engine == "sqlite" else SERVERS_CLOCK
    named: dict[str, Any] = {name: bindparam(name) for name in ("kind", "tenant", "name", "value")}
    told = insert_of(engine, notes).values(**named, expires_at=now + bindparam("seconds"))
    latest = {"value": told.excluded.value, "expires_at": told.excluded.expires_at}
    return told.on_conflict_do_update(index_elements=list(notes.primary_key), set_=latest)


def _named(name: NoteName) -> ColumnElement[bool]:
    return and_(notes.c.kind == name.kind.value, notes.c.tenant == name.tenant, notes.c.name == name.name)
