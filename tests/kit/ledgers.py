"""Accounts for tests: a store in memory that can be away, calls that cost what they are told to, processes that die."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kit.catalog import call, deployment, request, snapshot
from pointsman_server.adapters.stores.ledger_trail import FolderTrails
from pointsman_server.domain.call import Attempt, AttemptOutcome, Call
from pointsman_server.domain.governance import Budget, Governance, Period, TenantPolicy
from pointsman_server.domain.ledger import (
    Booking,
    BudgetKey,
    BudgetView,
    Entry,
    EntryOutcome,
    Lease,
    LeaseChange,
    LeaseWish,
    Pulse,
    Refusal,
)
from pointsman_server.domain.ledger_ports import LeftTrail
from pointsman_server.domain.ports import StoreUnavailableError
from pointsman_server.domain.reply import Usage
from pointsman_server.execution.accounts import Accounts

MODEL = deployment("d", of={"id": "m"}, by={"id": "p"})
POLICY = snapshot(MODEL)


def budget(limit: int, name: str = "all", period: Period = Period.DAY, **labels: str) -> Budget:
    """A budget for the calls that carry these labels."""
    return Budget(name, period, limit, tuple(labels.items()))


def asked(*budgets: Budget, tenant: str = "t", deadline: float = 1e9, **labels: str) -> Call:
    """A call of a tenant that has these budgets; its labels are given by name."""
    governance = Governance({tenant: TenantPolicy(budgets=budgets)})
    policy = snapshot(MODEL, governance=governance)
    return call(policy, deadline, tenant=tenant, request=request(labels=labels))


def attempt(cost: int, outcome: AttemptOutcome = AttemptOutcome.SUCCEEDED, **changes: Any) -> Attempt:
    """An attempt that cost so much."""
    fields: dict[str, Any] = {
        "deployment": MODEL,
        "latency_seconds": 0.1,
        "first_token_seconds": None,
        "outcome": outcome,
        "usage": Usage(input_tokens=10, output_tokens=5),
        "cost_micro_usd": cost,
    }
    return Attempt(**{**fields, **changes})


def entry(cost: int = 0, *keys: BudgetKey, **changes: Any) -> Entry:
    """An entry of one attempt, booked on these budgets."""
    fields: dict[str, Any] = {
        "request_id": "req_1",
        "attempt": 1,
        "at": 1_750_000_000.0,
        "tenant": "t",
        "deployment": "d",
        "provider": "p",
        "model": "m",
        "outcome": EntryOutcome.SUCCEEDED,
        "input_tokens": 10,
        "cached_input_tokens": 4,
        "cache_write_input_tokens": 2,
        "output_tokens": 5,
        "reasoning_tokens": 3,
        "cost_micro_usd": cost,
        "price_version": "v",
        "estimated": False,
        "calls": 1,
        "labels_json": "{}",
        "budgets_json": "[" + ",".join(f'["{key.budget}","{key.period}"]' for key in keys) + "]",
    }
    return Entry(**{**fields, **changes})


@dataclass
class _Budget:
    settled: int = 0
    leased: int = 0
    lost: int = 0
    alerted: int = 0

    @property
    def view(self) -> BudgetView:
        return BudgetView(self.settled, self.leased, self.lost, self.alerted)


@dataclass
class _Lease:
    writer: str
    key: BudgetKey
    left: int
    is_lost: bool = False


@dataclass
class MemoryLedgerStore:
    """See `LedgerStore`, in the simplest words. `is_away` refuses everything; `loses_answers` does it, and then fails.

    Each operation takes `seconds`.
    """

    is_away: bool = False
    loses_answers: bool = False
    seconds: float = 0.0
    budgets: dict[BudgetKey, _Budget] = field(default_factory=dict)
    leases: dict[str, _Lease] = field(default_factory=dict)
    beats: Counter[str] = field(default_factory=Counter)
    applied: Counter[str] = field(default_factory=Counter)
    entries: list[Entry] = field(default_factory=list)
    asked: int = 0

    async def lease(self, writer: str, wishes: Sequence[LeaseWish]) -> tuple[Lease, ...] | Refusal:
        """See `LedgerStore.lease`."""
        await self._begin()
        granted: list[Lease] = []
        for wish in sorted(wishes, key=lambda one: one.key):
            budget = self.budgets.get(wish.key, _Budget())
            amount = wish.granted_of(budget.view.committed_micro_usd)
            if not amount:
                for lease in granted:
                    self._apply(LeaseChange(lease.id, lease.key, returned_micro_usd=lease.amount_micro_usd))
                return Refusal(wish.key, budget.view)
            self.budgets[wish.key] = budget
            budget.leased += amount
            self.leases[wish.id] = _Lease(writer, wish.key, amount)
            granted.append(Lease(wish.id, wish.key, amount, amount >= wish.least_slice_micro_usd))
        self._end()
        return tuple(granted)

    async def book(self, writer: str, bookings: Sequence[Booking]) -> Mapping[BudgetKey, BudgetView]:
        """See `LedgerStore.book`."""
        await self._begin()
        touched = set[BudgetKey]()
        for booking in bookings:
            if booking.number > self.applied[writer]:
                self.applied[writer] = booking.number
                self.entries.extend(booking.entries)
                for change in booking.changes:
                    touched.add(change.key)
                    self._apply(change)
        self.beats[writer] += 1
        self._end()
        return {key: self.budgets[key].view for key in touched if key in self.budgets}

    async def pulse(self, writer: str, keys: Collection[BudgetKey]) -> Pulse:
        """See `LedgerStore.pulse`."""
        await self._begin()
        self.beats[writer] += 1
        held = frozenset(name for name, one in self.leases.items() if one.writer == writer and not one.is_lost)
        self._end()
        return Pulse(held, {key: self.budgets[key].view for key in keys if key in self.budgets})

    async def mark_alerted(self, key: BudgetKey, percent: int) -> bool:
        """See `LedgerStore.mark_alerted`."""
        await self._begin()
        budget = self.budgets.setdefault(key, _Budget())
        before, budget.alerted = budget.alerted, max(budget.alerted, percent)
        self._end()
        return before < percent

    async def lessees(self) -> Mapping[str, int]:
        """See `LedgerStore.lessees`."""
        await self._begin()
        return {one.writer: self.beats.get(one.writer, -1) for one in self.leases.values() if not one.is_lost}

    async def take_away(self, writer: str, beats: int | None) -> int:
        """See `LedgerStore.take_away`."""
        await self._begin()
        if beats is not None and self.beats.get(writer, -1) != beats:
            return 0
        mine = [one for one in self.leases.values() if one.writer == writer and not one.is_lost]
        for one in mine:
            one.is_lost = True
            budget = self.budgets[one.key]
            budget.settled += one.left
            budget.leased -= one.left
            budget.lost += one.left
        self._end()
        return sum(one.left for one in mine)

    async def give_back(self, writer: str) -> int:
        """See `LedgerStore.give_back`."""
        await self._begin()
        mine = [(name, one) for name, one in self.leases.items() if one.writer == writer]
        returned = sum(one.left for _, one in mine)
        for name, one in mine:
            self._apply(LeaseChange(name, one.key, returned_micro_usd=one.left))
        self._end()
        return returned

    async def forget(self, before: float) -> None:
        """See `LedgerStore.forget`."""
        await self._begin()
        self.entries = [one for one in self.entries if one.at >= before]

    def view(self, key: BudgetKey) -> BudgetView:
        """How a budget stands."""
        return self.budgets.get(key, _Budget()).view

    async def _begin(self) -> None:
        self.asked += 1
        await asyncio.sleep(self.seconds)
        if self.is_away:
            raise StoreUnavailableError("away")

    def _end(self) -> None:
        if self.loses_answers:
            raise StoreUnavailableError("cut")

    def _apply(self, change: LeaseChange) -> None:
        budget, lease = self.budgets.setdefault(change.key, _Budget()), self.leases.get(change.lease_id)
        if change.is_doubtful:
            change = LeaseChange(change.lease_id, change.key, returned_micro_usd=lease.left if lease else 0)
        spent, returned, lost = change.spent_micro_usd, change.returned_micro_usd, change.lost_micro_usd
        budget.settled += change.beyond_micro_usd
        if lease is not None and lease.is_lost:
            budget.settled -= returned
            budget.lost -= spent + returned
        else:
            budget.settled += spent + lost
            budget.lost += lost
        if lease is not None:
            budget.leased -= 0 if lease.is_lost else change.left_micro_usd
            lease.left -= change.left_micro_usd
            if not lease.left:
                del self.leases[change.lease_id]


class SameThreadTrails(FolderTrails):
    """Looks for trails without a thread, which virtual time does not wait for."""

    async def left_behind(self) -> Sequence[LeftTrail]:
        """See `Trails.left_behind`."""
        return list(self._left_behind())


def trails(folder: Path) -> SameThreadTrails:
    """The trails of a machine."""
    return SameThreadTrails(folder)


def trail_files(folder: Path) -> list[Path]:
    """The files of the trails there."""
    return sorted(folder.rglob("*.trail"))


def costs(entries: Iterable[Entry], key: BudgetKey) -> int:
    """What the entries say was booked on a budget."""
    mark = f'["{key.budget}","{key.period}"]'
    return sum(one.cost_micro_usd for one in entries if one.tenant == key.tenant and mark in one.budgets_json)


async def kill(accounts: Accounts) -> None:
    """Ends a process's accounts as kill -9 does: what it has in memory is gone."""
    task = accounts._keeper._task
    assert task is not None
    task.cancel()
    await asyncio.wait([task])
    accounts._keeper._desk.trail.leave()
