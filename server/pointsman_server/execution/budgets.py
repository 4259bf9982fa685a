"""Budgets: money is set aside before a call and booked after it, and no budget is ever passed by.

A process does not ask the store about each call. It leases slices of budgets and reserves parts of them in memory;
where little of a budget remains it leases what one call needs and returns at once what is not spent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from types import TracebackType

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


class BudgetBook:
    """Reserves and books for calls; see `Ledger`."""

    def __init__(self, desk: Desk, purses: Purses) -> None:
        self._desk = desk
        self._purses = purses
        self._days = BudgetDays(desk.clock)
        self._numbers = count(1)
        self._outstanding: dict[int, tuple[Takes, int]] = {}

    def reserve(self, call: Call, worst_cost_micro_usd: int) -> BudgetReservation:
        """See `Ledger.reserve`: so much of every budget that the call falls under, or nothing of any.

        Entering it raises `BudgetExceeded`, `LedgerUnavailable` or `DeadlineExceeded`.
        """
        return BudgetReservation(self, call, worst_cost_micro_usd)

    @property
    def outstanding(self) -> Mapping[int, Sequence[tuple[str, int]]]:
        """The reservations that are not settled, with what each takes of which lease."""
        return {
            number: [(lease.id, amount) for _, lease in takes] for number, (takes, amount) in self._outstanding.items()
        }

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

    async def set_aside(self, call: Call, amount: int) -> tuple[int, Sequence[BudgetKey]]:
        """The number of a new reservation, and the budgets it is of."""
        if self._desk.queue.is_full:
            raise LedgerUnavailable(AGAIN_SECONDS)
        number, wanted = next(self._numbers), self._wanted(call)
        if wanted and amount:
            takes = self._purses.take(wanted, amount)
            if takes is None:
                takes = await self._take_later(wanted, amount, call)
            self._outstanding[number] = takes, amount
            self._desk.trail.reserved(number, [(lease.id, amount) for _, lease in takes])
        return number, tuple(wanted)

    def settle(self, number: int, keys: Sequence[BudgetKey], cost_micro_usd: int, entries: Sequence[Entry]) -> None:
        """A reservation ends: its cost is booked, and what is left of it is free."""
        takes, amount = self._outstanding.pop(number, ((), 0))
        if keys and cost_micro_usd > amount:
            _LOG.warning(
                "cost_above_reservation",
                tenant=keys[0].tenant,
                budgets=[key.budget for key in keys],
                reserved_micro_usd=amount,
                cost_micro_usd=cost_micro_usd,
            )
        if takes:
            changes = [change for purse, lease in takes for change in _settled(purse, lease, amount, cost_micro_usd)]
        else:
            changes = [LeaseChange("", key, beyond_micro_usd=cost_micro_usd) for key in keys if cost_micro_usd]
        if takes or entries:
            urgent = any(change.returned_micro_usd or change.beyond_micro_usd for change in changes)
            self._desk.queue.add(changes, entries, reservation=number if takes else None, urgent=urgent)

    def settle_call(
        self,
        number: int,
        call: Call,
        keys: Sequence[BudgetKey],
        attempts: Sequence[Attempt],
        *,
        estimated: bool,
    ) -> None:
        """The same from the call's attempts."""
        entries = entries_of(call, attempts, keys, self._desk.clock.now(), estimated=estimated)
        self.settle(number, keys, sum(attempt.cost_micro_usd for attempt in attempts), entries)

    def settle_unknown(self, number: int, call: Call, keys: Sequence[BudgetKey], worst_cost_micro_usd: int) -> None:
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

    async def _take_later(self, wanted: Wanted, amount: int, call: Call) -> Takes:
        time_left = call.deadline - self._desk.clock.monotonic()
        try:
            async with asyncio.timeout(min(time_left, LONGEST_LEASING_SECONDS)):
                return await self._purses.take_later(wanted, amount, call.tenant)
        except TimeoutError:
            if time_left <= LONGEST_LEASING_SECONDS:
                raise DeadlineExceeded(Step.RESERVE) from None
            raise LedgerUnavailable(AGAIN_SECONDS) from None


def _settled(purse: Purse, lease: HeldLease, reserved: int, cost: int) -> Iterator[LeaseChange]:
    change = purse.settle(lease, reserved, cost)
    if change is not None:
        yield change
        if change.beyond_micro_usd:
            # Nothing may be left in hand of a budget that may be over its limit.
            purse.is_overdrawn = True
            yield from purse.surrender()


class BudgetReservation:
    """Money set aside for one call, from entering it to leaving it; see `Reservation`."""

    __slots__ = ("_book", "_call", "_is_open", "_keys", "_number", "_worst_cost_micro_usd")

    def __init__(self, book: BudgetBook, call: Call, worst_cost_micro_usd: int) -> None:
        self._book = book
        self._call = call
        self._worst_cost_micro_usd = worst_cost_micro_usd
        self._keys: Sequence[BudgetKey] = ()
        self._number = 0
        self._is_open = False

    async def __aenter__(self) -> BudgetReservation:
        self._number, self._keys = await self._book.set_aside(self._call, self._worst_cost_micro_usd)
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_open:
            self._is_open = False
            self._book.settle_unknown(self._number, self._call, self._keys, self._worst_cost_micro_usd)

    def settle(self, attempts: Sequence[Attempt], *, estimated: bool = False) -> None:
        """See `Reservation.settle`."""
        if not self._is_open:
            raise ValueError("a reservation is settled once, before it is left")
        self._is_open = False
        self._book.settle_call(self._number, self._call, self._keys, attempts, estimated=estimated)
