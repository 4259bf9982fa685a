"""Recorded calls in the database, for all processes that share it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import orjson
from sqlalchemy import ColumnElement, Select, and_, delete, func, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.schema import request_traces as rows
from pointsman_server.domain.trace import Trace, TraceLine, TracePlace, TraceQuery

MOST_AT_ONCE = 500
"""Rows that one transaction removes: other writers wait meanwhile."""

_LINE = tuple(rows.c[name] for name in TraceLine._fields)
_NEWEST_FIRST = (rows.c.started_at.desc(), rows.c.id.desc())
_INSERT = insert(rows)
_ANSWERED = "OK"


class SqlTraces:
    """See `TraceStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def write(self, traces: Sequence[Trace]) -> None:
        """See `TraceStore.write`."""
        async with self._database.write() as connection:
            await connection.execute(_INSERT, [_row(trace) for trace in traces])

    async def find(self, query: TraceQuery, limit: int) -> Sequence[tuple[TracePlace, TraceLine]]:
        """See `TraceStore.find`."""
        wanted = _matching(query).order_by(*_NEWEST_FIRST).limit(limit)
        async with self._database.read() as connection:
            return [
                (TracePlace(row.started_at, row.id), TraceLine(*row[1:])) for row in await connection.execute(wanted)
            ]

    async def get(self, request_id: str) -> Trace | None:
        """See `TraceStore.get`."""
        return await self._last(rows.c.request_id == request_id)

    async def answered(self, request_id: str, tenant: str) -> Trace | None:
        """See `RecordedAnswers.answered`."""
        return await self._last(
            and_(rows.c.request_id == request_id, rows.c.tenant == tenant, rows.c.outcome == _ANSWERED)
        )

    async def _last(self, wanted: ColumnElement[bool]) -> Trace | None:
        query = select(rows).where(wanted).order_by(*_NEWEST_FIRST).limit(1)
        async with self._database.read() as connection:
            row = (await connection.execute(query)).one_or_none()
        return None if row is None else _trace(row)

    async def clean(self, now: float, tenants: Collection[str], *, most_of_tenant: int, most: int) -> int:
        """See `TraceStore.clean`."""
        expired = select(rows.c.id).where(rows.c.expires_at <= now)
        surpluses = [
            select(rows.c.id).where(rows.c.tenant == tenant).order_by(*_NEWEST_FIRST).offset(most_of_tenant)
            for tenant in tenants
        ]
        async with self._database.write() as connection:
            removed = 0
            for some in (expired, *surpluses):
                removed += await _remove(connection, some, MOST_AT_ONCE - removed)
            if removed < MOST_AT_ONCE:
                count = await connection.scalar(select(func.count()).select_from(rows)) or 0
                oldest = select(rows.c.id).order_by(rows.c.started_at, rows.c.id)
                removed += await _remove(connection, oldest, min(count - most, MOST_AT_ONCE - removed))
        return removed


async def _remove(connection: AsyncConnection, some: Select[Any], most: int) -> int:
    if most <= 0:
        return 0
    ids = (await connection.execute(some.limit(most))).scalars().all()
    if ids:
        await connection.execute(delete(rows).where(rows.c.id.in_(ids)))
    return len(ids)


def _matching(query: TraceQuery) -> Select[Any]:
    wanted = select(rows.c.id, *_LINE)
    for name in ("request_id", "tenant", "model", "outcome"):
        if value := getattr(query, name):
            wanted = wanted.where(rows.c[name] == value)
    if query.start is not None:
        wanted = wanted.where(rows.c.started_at >= query.start)
    if query.end is not None:
        wanted = wanted.where(rows.c.started_at < query.end)
    if query.after is not None:
        wanted = wanted.where(tuple_(rows.c.started_at, rows.c.id) < query.after)
    return wanted


def _row(trace: Trace) -> dict[str, Any]:
    return {
        **trace.line._asdict(),
        "expires_at": trace.expires_at,
        "labels_json": orjson.dumps(dict(trace.labels)).decode(),
        "account": trace.account,
        "prompt": trace.prompt,
        "answer": trace.answer,
    }


def _trace(row: Any) -> Trace:
    return Trace(
        line=TraceLine(*(getattr(row, name) for name in TraceLine._fields)),
        expires_at=row.expires_at,
        account=row.account,
        labels=orjson.loads(row.labels_json),
        prompt=row.prompt,
        answer=row.answer,
    )
