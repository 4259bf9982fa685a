"""Budgets, leases and ledger entries in the database, for all processes that share it.

Every method is one transaction. Whatever several writers change, they lock in the same order: leases, then budgets by
their key, then the sums of usage by theirs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from sqlalchemy import BigInteger, Row, and_, bindparam, delete, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.entries import insert_entries
from pointsman_server.adapters.stores.sql.inserting import insert_new
from pointsman_server.adapters.stores.sql.schema import budget_leases, budget_states, ledger_entries, ledger_writers
from pointsman_server.domain.ledger import Booking, BudgetKey, BudgetView, Lease, LeaseChange, LeaseWish, Pulse, Refusal
from pointsman_server.domain.ports import Clock

_STATE = budget_states.c
_LEASE = budget_leases.c
_WRITER = ledger_writers.c

_KEY = (_STATE.tenant, _STATE.budget, _STATE.period)
_VIEW = (_STATE.settled_micro_usd, _STATE.leased_micro_usd, _STATE.lost_micro_usd, _STATE.alerted_percent)
_MONEY = ("settled_micro_usd", "leased_micro_usd", "lost_micro_usd")
_EMPTY = dict(zip((column.name for column in _VIEW), BudgetView(), strict=True))

_IS_IT = and_(*(column == bindparam(f"its_{column.name}") for column in _KEY))

# Statements are made once: making one, and finding out that it is known, costs more than running it.
_MOVE = (
    update(budget_states)
    .where(_IS_IT)
    .values({name: _STATE[name] + bindparam(f"more_{name}", type_=BigInteger) for name in _MONEY})
)
_MARK_ALERTED = (
    update(budget_states)
    .where(_IS_IT, _STATE.alerted_percent < bindparam("percent"))
    .values(alerted_percent=bindparam("percent"))
)
_LOCK_STATE = select(*_VIEW).where(_IS_IT).with_for_update()
_VIEWS = select(*_KEY, *_VIEW).where(tuple_(*_KEY).in_(bindparam("keys", expanding=True)))
_SHRINK = (
    update(budget_leases)
    .where(_LEASE.id == bindparam("lease"))
    .values(amount_micro_usd=_LEASE.amount_micro_usd - bindparam("left", type_=BigInteger))
    .returning(_LEASE.amount_micro_usd, _LEASE.is_lost)
)
_INSERT = insert(budget_leases)
_REMOVE = delete(budget_leases).where(_LEASE.id == bindparam("lease"))
_AMOUNT = select(_LEASE.amount_micro_usd).where(_LEASE.id == bindparam("lease"))
_HELD = select(budget_leases).where(_LEASE.writer == bindparam("writer")).order_by(_LEASE.id).with_for_update()
_STANDING = select(_LEASE.id).where(_LEASE.writer == bindparam("writer"), ~_LEASE.is_lost)
_APPLIED = select(_WRITER.applied).where(_WRITER.id == bindparam("writer")).with_for_update()
_BEATS = select(_WRITER.beats).where(_WRITER.id == bindparam("writer")).with_for_update()
_SEE = (
    update(ledger_writers)
    .where(_WRITER.id == bindparam("writer"))
    .values(beats=_WRITER.beats + 1, seen_at=bindparam("now"))
)
_SEE_APPLIED = _SEE.values(applied=bindparam("applied_now", type_=BigInteger))

_Deltas: TypeAlias = dict[BudgetKey, Counter[str]]


class SqlLedgerStore:
    """See `LedgerStore`."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def lease(self, writer: str, wishes: Sequence[LeaseWish]) -> tuple[Lease, ...] | Refusal:
        """See `LedgerStore.lease`."""
        try:
            async with self._database.write() as connection:
                leases = [await _grant(connection, writer, wish) for wish in sorted(wishes, key=lambda one: one.key)]
        except _RefusedError as error:
            return error.refusal
        return tuple(leases)

    async def book(self, writer: str, bookings: Sequence[Booking]) -> Mapping[BudgetKey, BudgetView]:
        """See `LedgerStore.book`."""
        async with self._database.write() as connection:
            applied = await _applied(connection, writer)
            new = [booking for booking in bookings if booking.number > applied]
            changes = [change for booking in new for change in booking.changes]
            await _apply(connection, changes)
            await insert_entries(connection, [entry for booking in new for entry in booking.entries])
            await self._see(connection, writer, max([applied, *(booking.number for booking in new)]))
            return await _views(connection, {change.key for change in changes})

    async def pulse(self, writer: str, keys: Collection[BudgetKey]) -> Pulse:
        """See `LedgerStore.pulse`."""
        async with self._database.write() as connection:
            await self._see(connection, writer)
            held = await connection.execute(_STANDING, {"writer": writer})
            return Pulse(frozenset(held.scalars()), await _views(connection, keys))

    async def mark_alerted(self, key: BudgetKey, percent: int) -> bool:
        """See `LedgerStore.mark_alerted`."""
        async with self._database.write() as connection:
            await _ensure_state(connection, key)
            marked = await connection.execute(_MARK_ALERTED, {**_its(key), "percent": percent})
            return bool(marked.rowcount)

    async def lessees(self) -> Mapping[str, int]:
        """See `LedgerStore.lessees`."""
        # A lease whose writer is unknown counts as one whose writer stands still.
        held = select(_LEASE.writer, func.coalesce(func.max(_WRITER.beats), -1))
        held = held.outerjoin_from(budget_leases, ledger_writers, _WRITER.id == _LEASE.writer)
        held = held.where(~_LEASE.is_lost).group_by(_LEASE.writer)
        async with self._database.read() as connection:
            return {writer: beats for writer, beats in await connection.execute(held)}

    async def take_away(self, writer: str, beats: int | None) -> int:
        """See `LedgerStore.take_away`."""
        async with self._database.write() as connection:
            if beats is not None and await _beats(connection, writer) != beats:
                return 0
            rows = [row for row in await connection.execute(_HELD, {"writer": writer}) if not row.is_lost]
            ids = [row.id for row in rows]
            await connection.execute(update(budget_leases).where(_LEASE.id.in_(ids)).values(is_lost=True))
            deltas: _Deltas = defaultdict(Counter)
            for row in rows:
                amount = row.amount_micro_usd
                deltas[_key_of(row)].update(_moved(settled=amount, leased=-amount, lost=amount))
            await _move_all(connection, deltas)
            return sum(row.amount_micro_usd for row in rows)

    async def give_back(self, writer: str) -> int:
        """See `LedgerStore.give_back`."""
        async with self._database.write() as connection:
            rows = (await connection.execute(_HELD, {"writer": writer})).all()
            await _apply(
                connection,
                [LeaseChange(row.id, _key_of(row), returned_micro_usd=row.amount_micro_usd) for row in rows],
            )
            return sum(row.amount_micro_usd for row in rows)

    async def forget(self, before: float) -> None:
        """See `LedgerStore.forget`."""
        gone = select(_WRITER.id).where(_WRITER.seen_at < before)
        held = select(_LEASE.writer)
        async with self._database.write() as connection:
            await connection.execute(delete(ledger_entries).where(ledger_entries.c.at < before))
            await connection.execute(delete(budget_leases).where(_LEASE.is_lost, _LEASE.writer.in_(gone)))
            await connection.execute(delete(ledger_writers).where(_WRITER.seen_at < before, _WRITER.id.not_in(held)))

    async def _see(self, connection: AsyncConnection, writer: str, applied: int | None = None) -> None:
        seen = {"writer": writer, "now": self._clock.now(), "applied_now": applied}
        updated = await connection.execute(_SEE if applied is None else _SEE_APPLIED, seen)
        if not updated.rowcount:
            first = {"id": writer, "beats": 1, "applied": applied or 0, "seen_at": seen["now"]}
            await connection.execute(insert_new(connection, ledger_writers), first)


class _RefusedError(Exception):
    """Undoes what was granted before the wish that did not fit."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__()
        self.refusal = refusal


async def _grant(connection: AsyncConnection, writer: str, wish: LeaseWish) -> Lease:
    """The lease that the wish asks for; raises `_RefusedError`."""
    view = await _locked_view(connection, wish.key)
    amount = wish.granted_of(view.committed_micro_usd)
    if not amount:
        raise _RefusedError(Refusal(wish.key, view))
    await _move(connection, wish.key, _moved(leased=amount))
    row = {"id": wish.id, "writer": writer, **wish.key._asdict(), "amount_micro_usd": amount, "is_lost": False}
    await connection.execute(_INSERT, row)
    return Lease(wish.id, wish.key, amount, is_slice=amount >= wish.least_slice_micro_usd)


async def _locked_view(connection: AsyncConnection, key: BudgetKey) -> BudgetView:
    """How the budget stands; nobody else changes it until the transaction ends."""
    row = (await connection.execute(_LOCK_STATE, _its(key))).first()
    if row is None:
        await _ensure_state(connection, key)
        row = (await connection.execute(_LOCK_STATE, _its(key))).one()
    return BudgetView(*row)


async def _applied(connection: AsyncConnection, writer: str) -> int:
    """The number of the writer's last booking; nobody else books in its name until the transaction ends."""
    return (await connection.execute(_APPLIED, {"writer": writer})).scalar() or 0


async def _beats(connection: AsyncConnection, writer: str) -> int:
    found = (await connection.execute(_BEATS, {"writer": writer})).scalar()
    return -1 if found is None else found


async def _apply(connection: AsyncConnection, changes: Iterable[LeaseChange]) -> None:
    deltas: _Deltas = defaultdict(Counter)
    for merged in _merged(changes):
        change = await _resolved(connection, merged) if merged.is_doubtful else merged
        deltas[change.key].update(await _apply_one(connection, change))
    await _move_all(connection, deltas)


def _merged(changes: Iterable[LeaseChange]) -> list[LeaseChange]:
    """One change for each lease, in the order in which all writers lock them."""
    merged: dict[tuple[str, BudgetKey], LeaseChange] = {}
    for change in changes:
        place = change.lease_id, change.key
        merged[place] = merged[place].with_(change) if place in merged else change
    return [merged[place] for place in sorted(merged)]


async def _resolved(connection: AsyncConnection, change: LeaseChange) -> LeaseChange:
    """A doubtful lease as what it is: all of it returns, which is nothing if it was never granted."""
    # Whoever grants it locks the budget first: where that still goes on, this waits for its end.
    await connection.execute(_LOCK_STATE, _its(change.key))
    granted = await connection.execute(_AMOUNT, {"lease": change.lease_id})
    return LeaseChange(change.lease_id, change.key, returned_micro_usd=granted.scalar() or 0)


async def _apply_one(connection: AsyncConnection, change: LeaseChange) -> dict[str, int]:
    """Shrinks the lease; gives what changes of its budget."""
    spent, returned, lost = change.spent_micro_usd, change.returned_micro_usd, change.lost_micro_usd
    left = change.left_micro_usd
    lease = await _shrink(connection, change.lease_id, left) if left else None
    if lease is None:
        # A database that came back from a power cut may have forgotten a lease; what was spent of it counts.
        return _moved(settled=spent + lost + change.beyond_micro_usd, lost=lost)
    if lease.is_lost:
        # All of it is booked as lost, and what is known now is not.
        return _moved(settled=change.beyond_micro_usd - returned, lost=-spent - returned)
    return _moved(settled=spent + lost + change.beyond_micro_usd, leased=-left, lost=lost)


async def _shrink(connection: AsyncConnection, lease_id: str, left: int) -> Row[Any] | None:
    """The lease as it is then, None if there is none; an empty one is removed."""
    lease = (await connection.execute(_SHRINK, {"lease": lease_id, "left": left})).first()
    if lease is not None and lease.amount_micro_usd == 0:
        await connection.execute(_REMOVE, {"lease": lease_id})
    return lease


async def _move_all(connection: AsyncConnection, deltas: _Deltas) -> None:
    for key, delta in sorted(deltas.items()):
        await _move(connection, key, delta)


def _moved(*, settled: int = 0, leased: int = 0, lost: int = 0) -> dict[str, int]:
    return dict(zip(_MONEY, (settled, leased, lost), strict=True))


async def _move(connection: AsyncConnection, key: BudgetKey, delta: Mapping[str, int]) -> None:
    if not any(delta.values()):
        return
    moved = {**_its(key), **{f"more_{name}": delta[name] for name in _MONEY}}
    if not (await connection.execute(_MOVE, moved)).rowcount:
        await _ensure_state(connection, key)
        await connection.execute(_MOVE, moved)


async def _ensure_state(connection: AsyncConnection, key: BudgetKey) -> bool:
    """Makes the budget's row; False if it is there."""
    made = await connection.execute(insert_new(connection, budget_states), {**key._asdict(), **_EMPTY})
    return bool(made.rowcount)


async def _views(connection: AsyncConnection, keys: Collection[BudgetKey]) -> dict[BudgetKey, BudgetView]:
    if not keys:
        return {}
    rows = await connection.execute(_VIEWS, {"keys": sorted(keys)})
    return {BudgetKey(*row[:3]): BudgetView(*row[3:]) for row in rows}


def _its(key: BudgetKey) -> dict[str, object]:
    return {f"its_{name}": value for name, value in key._asdict().items()}


def _key_of(row: Row[Any]) -> BudgetKey:
    return BudgetKey(row.tenant, row.budget, row.period)
