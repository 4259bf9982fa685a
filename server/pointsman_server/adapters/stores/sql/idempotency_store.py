"""Answers of named calls in the database, and the claims of those that run.

A row is in force until it expires, by the database's clock. A claim that expires later than a claim can, after a clock
was set back, is not in force either.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import ColumnElement, and_, delete, or_, select, tuple_, update

from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.database_clock import now_by
from pointsman_server.adapters.stores.sql.inserting import insert_or
from pointsman_server.adapters.stores.sql.schema import idempotent_calls as calls
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.idempotency import CallName, Found, Holding

_LONGEST_LEASES = 2.0
"""A claim cannot be longer than its lease; as long again is left to clocks that differ a little."""


class SqlAnswers:
    """See `AnswerStore`. All processes have the same lease. `clock` is asked where the database has none of its own."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def claim(self, holding: Holding, digest: bytes, lease_seconds: float) -> Found | None:
        """See `AnswerStore.claim`."""
        now = self._now()
        row = {"digest": digest, "owner": holding.owner, "expires_at": now + lease_seconds, "answer": None}
        over = _is_over(now, lease_seconds)
        async with self._database.write() as connection:
            claim = insert_or(connection, calls).values(**holding.name._asdict(), **row)
            claim = claim.on_conflict_do_update(index_elements=["tenant", "request_id"], set_=row, where=over)
            if await connection.scalar(claim.returning(calls.c.owner)) is not None:
                return None
            known = (await connection.execute(select(calls.c.digest, calls.c.answer).where(_named(holding.name)))).one()
        return Found(known.digest, known.answer)

    async def look(self, name: CallName, lease_seconds: float) -> Found | None:
        """See `AnswerStore.look`."""
        in_force = ~_is_over(self._now(), lease_seconds)
        async with self._database.read() as connection:
            known = (
                await connection.execute(select(calls.c.digest, calls.c.answer).where(_named(name), in_force))
            ).one_or_none()
        return None if known is None else Found(known.digest, known.answer)

    async def renew(self, holdings: Collection[Holding], lease_seconds: float) -> None:
        """See `AnswerStore.renew`."""
        mine = tuple_(calls.c.tenant, calls.c.request_id, calls.c.owner).in_(
            [(*holding.name, holding.owner) for holding in holdings]
        )
        longer = update(calls).where(mine, calls.c.answer.is_(None)).values(expires_at=self._now() + lease_seconds)
        async with self._database.write() as connection:
            await connection.execute(longer)

    async def keep(self, holding: Holding, answer: bytes, kept_seconds: float) -> bool:
        """See `AnswerStore.keep`."""
        kept = update(calls).where(_held(holding)).values(answer=answer, expires_at=self._now() + kept_seconds)
        async with self._database.write() as connection:
            return bool((await connection.execute(kept)).rowcount)

    async def release(self, holding: Holding) -> None:
        """See `AnswerStore.release`."""
        async with self._database.write() as connection:
            await connection.execute(delete(calls).where(_held(holding)))

    async def clean(self) -> None:
        """See `AnswerStore.clean`."""
        async with self._database.write() as connection:
            await connection.execute(delete(calls).where(calls.c.expires_at <= self._now()))

    def _now(self) -> ColumnElement[float]:
        return now_by(self._database, self._clock)


def _named(name: CallName) -> ColumnElement[bool]:
    return and_(calls.c.tenant == name.tenant, calls.c.request_id == name.request_id)


def _held(holding: Holding) -> ColumnElement[bool]:
    return and_(_named(holding.name), calls.c.owner == holding.owner, calls.c.answer.is_(None))


def _is_over(now: ColumnElement[float], lease_seconds: float) -> ColumnElement[bool]:
    too_long = and_(calls.c.answer.is_(None), calls.c.expires_at > now + _LONGEST_LEASES * lease_seconds)
    return or_(calls.c.expires_at <= now, too_long)
