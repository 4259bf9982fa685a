"""Cached answers in the database, for all processes that share it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson
from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.inserting import insert_or
from pointsman_server.adapters.stores.sql.schema import cache_entries as rows
from pointsman_server.domain.cache import CachedAnswer, Card, Entry, Traits
from pointsman_server.domain.message import ReasoningPart, TextPart
from pointsman_server.domain.reply import Citation

_CARD = select(rows.c.key, rows.c.partition, rows.c.stored_at, rows.c.expires_at, rows.c.vector, rows.c.traits_json)


class SqlCache:
    """See `CacheStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def cards(self, partition: bytes, now: float) -> Sequence[Card]:
        """See `CacheStore.cards`."""
        wanted = _CARD.where(rows.c.partition == partition, rows.c.expires_at > now)
        async with self._database.read() as connection:
            return [_card(row) for row in await connection.execute(wanted)]

    async def answer(self, key: bytes) -> CachedAnswer | None:
        """See `CacheStore.answer`."""
        async with self._database.read() as connection:
            text = await connection.scalar(select(rows.c.answer_json).where(rows.c.key == key))
        return None if text is None else _answer(text)

    async def write(self, entries: Sequence[Entry], used: Mapping[bytes, float]) -> int:
        """See `CacheStore.write`."""
        async with self._database.write() as connection:
            if entries:
                await _put(connection, entries)
            if used:
                touched = update(rows).where(rows.c.key == bindparam("of")).values(used_at=bindparam("at"))
                await connection.execute(touched, [{"of": key, "at": at} for key, at in used.items()])
            most = {entry.tenant: entry.most_entries for entry in entries}
            return sum([await _evict(connection, tenant, keep) for tenant, keep in most.items()])

    async def clean(self, now: float) -> None:
        """See `CacheStore.clean`."""
        async with self._database.write() as connection:
            await connection.execute(delete(rows).where(rows.c.expires_at <= now))


async def _put(connection: AsyncConnection, entries: Sequence[Entry]) -> None:
    latest = {entry.card.key: _row(entry) for entry in entries}  # a row can be put once by a statement
    insert = insert_or(connection, rows).values(list(latest.values()))
    put = {column.name: insert.excluded[column.name] for column in rows.c if not column.primary_key}
    await connection.execute(insert.on_conflict_do_update(index_elements=["key"], set_=put))


async def _evict(connection: AsyncConnection, tenant: str, most: int) -> int:
    surplus = select(rows.c.key).where(rows.c.tenant == tenant).order_by(rows.c.used_at.desc(), rows.c.key)
    keys = (await connection.execute(surplus.offset(most))).scalars().all()
    if keys:
        await connection.execute(delete(rows).where(rows.c.key.in_(keys)))
    return len(keys)


def _row(entry: Entry) -> dict[str, Any]:
    card = entry.card
    return {
        "key": card.key,
        "partition": card.partition,
        "tenant": entry.tenant,
        "stored_at": card.stored_at,
        "expires_at": card.expires_at,
        "used_at": card.stored_at,
        "vector": card.vector,
        "traits_json": orjson.dumps(card.traits and list(card.traits)).decode(),
        "answer_json": orjson.dumps(_plain(entry.answer)).decode(),
    }


def _card(row: Any) -> Card:
    traits = orjson.loads(row.traits_json)
    return Card(
        key=row.key,
        partition=row.partition,
        stored_at=row.stored_at,
        expires_at=row.expires_at,
        vector=row.vector,
        traits=None if traits is None else Traits(*(tuple(one) for one in traits)),
    )


def _plain(answer: CachedAnswer) -> dict[str, Any]:
    parts = [{"reasoning": isinstance(part, ReasoningPart), **asdict(part)} for part in answer.parts]
    return {**asdict(answer), "parts": parts}


def _answer(text: str) -> CachedAnswer:
    fields = orjson.loads(text)
    fields["parts"] = tuple(_part(part) for part in fields["parts"])
    fields["citations"] = tuple(Citation(**one) for one in fields["citations"])
    return CachedAnswer(**fields)


def _part(fields: dict[str, Any]) -> TextPart | ReasoningPart:
    return ReasoningPart(**fields) if fields.pop("reasoning") else TextPart(**fields)
