"""All purses of a process, and how they are filled: the only place where a call may wait for the store."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias
from weakref import WeakValueDictionary

from pointsman_server.domain.errors import BudgetExceeded, LedgerUnavailable
from pointsman_server.domain.governance import Budget
from pointsman_server.domain.ledger import BudgetKey, BudgetView, Lease, LeaseChange, LeaseWish, Refusal
from pointsman_server.domain.ledger_ports import LedgerStore, Trail
from pointsman_server.domain.ports import Clock, Ids, StoreUnavailableError
from pointsman_server.execution.booking import BookingQueue
from pointsman_server.execution.purse import HeldLease, Purse

AGAIN_SECONDS = 0.25
"""What the store refused, or did not answer, is not asked for again for so long."""

IDLE_SECONDS = 5.0
"""A lease that nothing was taken from for so long goes back."""

Wanted: TypeAlias = Mapping[BudgetKey, Budget]
Takes: TypeAlias = Sequence[tuple[Purse, HeldLease]]


@dataclass(frozen=True, slots=True)
class Desk:
    """What everybody who keeps the accounts of a process works with; `writer` is the process's name."""

    store: LedgerStore
    queue: BookingQueue
    trail: Trail
    writer: str
    clock: Clock
    ids: Ids


class Purses:
    """What this process holds of all budgets."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._purses: dict[BudgetKey, Purse] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._asking: set[asyncio.Task[tuple[Lease, ...] | Refusal]] = set()
        self._away_until = 0.0
        self.exhausted: dict[BudgetKey, BudgetView] = {}
        """Budgets that calls were refused for, and nobody was told of yet."""

    def __iter__(self) -> Iterator[Purse]:
        return iter(tuple(self._purses.values()))

    def of(self, key: BudgetKey) -> Purse:
        """The purse of a budget that is in use."""
        return self._purses[key]

    def __contains__(self, key: BudgetKey) -> bool:
        return key in self._purses

    def held(self) -> dict[str, tuple[Purse, HeldLease]]:
        """All leases, by id."""
        return {lease.id: (purse, lease) for purse in self for lease in purse.leases}

    def take(self, wanted: Wanted, amount: int) -> Takes | None:
        """So much of all of these budgets at once, from what is held of them; None if that does not do."""
        takes: list[tuple[Purse, HeldLease]] = []
        for key, budget in wanted.items():
            purse = self._purses.get(key)
            if purse is None or purse.limit_micro_usd != budget.limit_micro_usd:
                return None
            lease = purse.find(amount)
            if lease is None:
                return None
            takes.append((purse, lease))
        now = self._desk.clock.monotonic()
        for purse, lease in takes:
            purse.take(lease, amount, now)
        return takes

    async def take_later(self, wanted: Wanted, amount: int, tenant: str) -> Takes:
        """The same after asking the store; raises `BudgetExceeded` or `LedgerUnavailable`.

        The calls of a tenant ask one after the other, since what one leases often does for those behind it.
        """
        async with self._turns.setdefault(tenant, asyncio.Lock()):
            await self._follow_limits(wanted)
            while (takes := self.take(wanted, amount)) is None:
                await self._fill(wanted, amount)
            return takes

    def surrender(self, changes: Iterable[LeaseChange], *, urgent: bool = False) -> None:
        """Writes down what goes back."""
        returned = tuple(changes)
        if returned:
            self._desk.queue.add(returned, urgent=urgent)

    def tidy(self) -> None:
        """Gives back what lies idle, and forgets budgets that nothing was asked of lately."""
        now = self._desk.clock.monotonic()
        for purse in self:
            idle = [lease for lease in purse.leases if lease.free_micro_usd and now >= lease.used_at + IDLE_SECONDS]
            self.surrender(change for lease in idle for change in purse.end(lease))
            is_needed = purse.leases or purse.key in self.exhausted or self._asking
            if not is_needed and now >= purse.used_at + IDLE_SECONDS:
                del self._purses[purse.key]

    async def settle_down(self) -> None:
        """Waits for what is still being asked for, and gives back all that is free."""
        if self._asking:
            await asyncio.wait(self._asking)
            await asyncio.sleep(0)  # lets late leases come in
        for purse in self:
            self.surrender(purse.surrender())

    async def _follow_limits(self, wanted: Wanted) -> None:
        lowered = []
        for key, budget in wanted.items():
            purse = self._purses.setdefault(key, Purse(key, budget.limit_micro_usd))
            if purse.limit_micro_usd > budget.limit_micro_usd:
                lowered.append(purse)
            if purse.limit_micro_usd != budget.limit_micro_usd:
                purse.limit_micro_usd, purse.refused_until = budget.limit_micro_usd, 0.0
        if lowered:
            # What was leased under the old limit must be back before the store can say what the new one allows.
            self.surrender(change for purse in lowered for change in purse.surrender())
            with suppress(StoreUnavailableError):
                await self._desk.queue.write_all()

    async def _fill(self, wanted: Wanted, amount: int) -> None:
        now, ids = self._desk.clock.monotonic(), self._desk.ids
        purses = [self._purses.setdefault(key, Purse(key, budget.limit_micro_usd)) for key, budget in wanted.items()]
        for purse in purses:
            purse.used_at = now
            if purse.refuses(amount, now):
                raise BudgetExceeded(purse.key.budget, wanted[purse.key].period)
        if now < self._away_until:
            raise LedgerUnavailable(AGAIN_SECONDS)
        await self._tell_overdrafts(purses)
        wishes = [purse.wish(ids.new("lease"), amount) for purse in purses if purse.find(amount) is None]
        answer = await self._ask(wishes)
        if isinstance(answer, Refusal):
            self._refused(answer, amount)
            raise BudgetExceeded(answer.key.budget, wanted[answer.key].period)
        for lease in answer:
            self._take_in(lease, self._purses[lease.key])

    async def _tell_overdrafts(self, purses: Sequence[Purse]) -> None:
        """The store must know of them before it can say what remains."""
        overdrawn = [purse for purse in purses if purse.is_overdrawn]
        if overdrawn:
            try:
                await self._desk.queue.write_all()
            except StoreUnavailableError as error:
                raise self._away() from error
            for purse in overdrawn:
                purse.is_overdrawn = False

    async def _ask(self, wishes: Sequence[LeaseWish]) -> tuple[Lease, ...] | Refusal:
        task = asyncio.ensure_future(self._desk.store.lease(self._desk.writer, wishes))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)
        try:
            # Who hangs up now must not leave anybody in doubt about what was granted.
            return await asyncio.shield(task)
        except StoreUnavailableError as error:
            self._doubt(wishes)
            raise self._away() from error
        except asyncio.CancelledError:
            task.add_done_callback(partial(self._came_late, wishes))
            raise

    def _away(self) -> LedgerUnavailable:
        self._away_until = self._desk.clock.monotonic() + AGAIN_SECONDS
        return LedgerUnavailable(AGAIN_SECONDS)

    def _refused(self, refusal: Refusal, amount: int) -> None:
        purse = self._purses[refusal.key]
        purse.refused_micro_usd = amount
        purse.refused_until = self._desk.clock.monotonic() + AGAIN_SECONDS
        self.exhausted[refusal.key] = refusal.view

    def _came_late(self, wishes: Sequence[LeaseWish], task: asyncio.Task[tuple[Lease, ...] | Refusal]) -> None:
        if task.cancelled() or task.exception() is not None:
            self._doubt(wishes)
            return
        answer = task.result()
        limits = {wish.key: wish.limit_micro_usd for wish in wishes}
        for lease in () if isinstance(answer, Refusal) else answer:
            purse = self._purses.setdefault(lease.key, Purse(lease.key, limits[lease.key]))
            self._take_in(lease, purse)
            if not lease.is_slice:
                self.surrender(purse.surrender(), urgent=True)

    def _take_in(self, lease: Lease, purse: Purse) -> None:
        self._desk.trail.leased(lease)
        self.surrender(purse.add(lease, self._desk.clock.monotonic()))

    def _doubt(self, wishes: Sequence[LeaseWish]) -> None:
        self._desk.queue.add([LeaseChange(wish.id, wish.key, is_doubtful=True) for wish in wishes])
