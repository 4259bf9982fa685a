"""Budgets: money is set aside before a call and booked after it, and no budget is ever passed by.

A process does not ask the store about each call. It leases slices of budgets and reserves parts of them in memory;
where little of a budget remains it leases what one call needs and returns at once what is not spent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import count
from types import TracebackType
from typing import TypeAlias

import structlog

from pointsman_server.domain.call import Attempt, Call
from pointsman_server.domain.errors import DeadlineExceeded, LedgerUnavailable, Step
from pointsman_server.domain.ledger import BudgetKey, Entry, LeaseChange, Remains
from pointsman_server.execution.budget_days import BudgetDays
from pointsman_server.execution.entries import entries_of, unsettled_entry
from pointsman_server.execution.purse import HeldLease, Purse
from pointsman_server.execution.purses import AGAIN_SECONDS, Desk, Purses, Takes, Wanted

_LOG = structlog.stdlib.get_logger("pointsman.ledger")

LONGEST_LEASING_SECONDS = 5.0
"""A call waits for the store no longer than this."""

_Take: TypeAlias = tuple[Purse, HeldLease, int]


class BudgetBook:
    """Reserves and books for calls; see `Ledger`."""

    def __init__(self, desk: Desk, purses: Purses) -> None:
        self._desk = desk
        self._purses = purses
        self._days = BudgetDays(desk.clock)
        self._numbers = count(1)
        self._outstanding: dict[int, list[_Take]] = {}

    def reserve(self, call: Call, worst_cost_micro_usd: int) -> BudgetReservation:
        """See `Ledger.reserve`: so much of every budget that the call falls under, or nothing of any.

        Entering it raises `BudgetExceeded`, `LedgerUnavailable` or `DeadlineExceeded`.
        """
        return BudgetReservation(self, call, worst_cost_micro_usd)

    @property
    def outstanding(self) -> Mapping[int, Sequence[tuple[str, int]]]:
        """The reservations that are not settled, with what each takes of which lease."""
        return {number: _said(takes) for number, takes in self._outstanding.items()}

    def remains(self) -> Remains:
        """All that another process would have to know if this one ended now."""
        held = self._purses.held()
        return Remains(
            writer=self._desk.writer,
            number=self._desk.queue.number,
            leases={name: (lease.key, lease.left_micro_usd) for name, (_, lease) in held.items()},
            outstanding=self.outstanding,
            bookings=self._desk.queue.waiting,
        )

    def open(self, call: Call) -> tuple[int, Wanted]:
        """The number of a new reservation, and the budgets that the call falls under today."""
        if self._desk.queue.is_full:
            raise LedgerUnavailable(AGAIN_SECONDS)
        return next(self._numbers), self._wanted(call)

    async def set_aside(self, number: int, wanted: Wanted, call: Call, amount: int) -> None:
        """Reserves so much, or so much more, of all of these budgets."""
        takes = self._purses.take(wanted, amount)
        if takes is None:
            takes = await self._take_later(wanted, amount, call)
        taken = self._outstanding.setdefault(number, [])
        taken.extend((purse, lease, amount) for purse, lease in takes)
        self._desk.trail.reserved(number, _said(taken))

    def settle(self, number: int, keys: Collection[BudgetKey], cost_micro_usd: int, entries: Sequence[Entry]) -> None:
        """A reservation ends: its cost is booked, and what is left of it is free."""
        takes = self._outstanding.pop(number, [])
        self._look_at(keys, takes, cost_micro_usd)
        if takes:
            changes = list(_settled(takes, cost_micro_usd))
        else:
            changes = [LeaseChange("", key, beyond_micro_usd=cost_micro_usd) for key in keys if cost_micro_usd]
        if takes or entries:
            urgent = any(change.returned_micro_usd or change.beyond_micro_usd for change in changes)
            self._desk.queue.add(changes, entries, reservation=number if takes else None, urgent=urgent)

    def settle_call(
        self,
        number: int,
        call: Call,
        keys: Collection[BudgetKey],
        attempts: Sequence[Attempt],
        *,
        estimated: bool,
    ) -> None:
        """The same from the call's attempts."""
        entries = entries_of(call, attempts, keys, self._desk.clock.now(), estimated=estimated)
        self.settle(number, keys, sum(attempt.cost_micro_usd for attempt in attempts), entries)

    def settle_unknown(self, number: int, call: Call, keys: Collection[BudgetKey], worst_cost_micro_usd: int) -> None:
        """The same where nobody said what the call cost."""
        entry = unsettled_entry(call, keys, self._desk.clock.now(), worst_cost_micro_usd)
        self.settle(number, keys, worst_cost_micro_usd, (entry,))

    def _wanted(self, call: Call) -> Wanted:
        labels, tenant = call.request.labels, call.tenant
        return {
            BudgetKey(tenant, budget.name, self._days.name(budget.period)): budget
            for budget in call.snapshot.governance.of(tenant).budgets
            if all(labels.get(name) == value for name, value in budget.labels)
        }

    def _look_at(self, keys: Collection[BudgetKey], takes: Sequence[_Take], cost: int) -> None:
        reserved = sum(amount for purse, _, amount in takes if purse is takes[0][0])
        for key in keys if cost > reserved else ():
            _LOG.warning("cost_above_reservation", **key._asdict(), reserved_micro_usd=reserved, cost_micro_usd=cost)

    async def _take_later(self, wanted: Wanted, amount: int, call: Call) -> Takes:
        time_left = call.deadline - self._desk.clock.monotonic()
        try:
            async with asyncio.timeout(min(time_left, LONGEST_LEASING_SECONDS)):
                return await self._purses.take_later(wanted, amount, call.tenant)
        except TimeoutError:
            if time_left <= LONGEST_LEASING_SECONDS:
                raise DeadlineExceeded(Step.RESERVE) from None
            raise LedgerUnavailable(AGAIN_SECONDS) from None


def _said(takes: Sequence[_Take]) -> list[tuple[str, int]]:
    return [(lease.id, amount) for _, lease, amount in takes]


def _settled(takes: Sequence[_Take], cost: int) -> Iterator[LeaseChange]:
    """Each budget pays the whole cost, its takes one after the other; what is above them all falls to the last."""
    for purse in {id(purse): purse for purse, _, _ in takes}.values():
        its = [(lease, amount) for of, lease, amount in takes if of is purse]
        left = cost
        for place, (lease, amount) in enumerate(its, start=1):
            paid = left if place == len(its) else min(left, amount)
            left -= paid
            yield from _settled_one(purse, lease, amount, paid)


def _settled_one(purse: Purse, lease: HeldLease, reserved: int, cost: int) -> Iterator[LeaseChange]:
    change = purse.settle(lease, reserved, cost)
    if change is not None:
        yield change
        if change.beyond_micro_usd:
            # Nothing may be left in hand of a budget that may be over its limit.
            purse.is_overdrawn = True
            yield from purse.surrender()


class BudgetReservation:
    """Money set aside for one call, from entering it to leaving it; see `Reservation`."""

    __slots__ = ("_book", "_call", "_covered_micro_usd", "_is_open", "_number", "_wanted", "_worst_cost_micro_usd")

    def __init__(self, book: BudgetBook, call: Call, worst_cost_micro_usd: int) -> None:
        self._book = book
        self._call = call
        self._worst_cost_micro_usd = worst_cost_micro_usd
        self._covered_micro_usd = 0
        self._wanted: Wanted = {}
        self._number = 0
        self._is_open = False

    async def __aenter__(self) -> BudgetReservation:
        self._number, self._wanted = self._book.open(self._call)
        await self._cover(self._worst_cost_micro_usd)
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_open:
            self._is_open = False
            self._book.settle_unknown(self._number, self._call, self._wanted.keys(), self._worst_cost_micro_usd)

    async def cover(self, cost_micro_usd: int) -> None:
        """See `Reservation.cover`."""
        if not self._is_open:
            raise ValueError("a reservation that was settled or left covers nothing any more")
        await self._cover(cost_micro_usd)
        self._worst_cost_micro_usd = max(self._worst_cost_micro_usd, cost_micro_usd)

    def settle(self, attempts: Sequence[Attempt], *, estimated: bool = False) -> None:
        """See `Reservation.settle`."""
        if not self._is_open:
            raise ValueError("a reservation is settled once, before it is left")
        self._is_open = False
        self._book.settle_call(self._number, self._call, self._wanted.keys(), attempts, estimated=estimated)

    async def _cover(self, cost_micro_usd: int) -> None:
        more = cost_micro_usd - self._covered_micro_usd
        if self._wanted and more > 0:
            await self._book.set_aside(self._number, self._wanted, self._call, more)
            self._covered_micro_usd = cost_micro_usd
