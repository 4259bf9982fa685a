"""Processes that keep accounts over one store in memory, in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from kit.clock import CountingIds, LoopClock, in_virtual_time
from kit.ledgers import MemoryLedgerStore, asked, attempt, costs
from pointsman_server.adapters.stores.ledger_trail import NoTrails
from pointsman_server.domain.ledger import BudgetAlert, BudgetKey, BudgetView
from pointsman_server.domain.ledger_ports import Trails
from pointsman_server.execution.accounts import Accounts

TODAY, MONTH = "2025-06-15", "2025-06"
"""When the loop's clock begins: 2025-06-15 15:06:40 UTC."""

ALL = BudgetKey("t", "all", TODAY)


class JumpingClock(LoopClock):
    """The wall clock may be set."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def now(self) -> float:
        """See `Clock.now`."""
        return super().now() + self.ahead_seconds


@dataclass
class Office:
    """Processes that share a store."""

    store: MemoryLedgerStore = field(default_factory=MemoryLedgerStore)
    clock: JumpingClock = field(default_factory=JumpingClock)
    ids: CountingIds = field(default_factory=CountingIds)
    alerts: list[BudgetAlert] = field(default_factory=list)
    running: list[Accounts] = field(default_factory=list)

    async def open(self, where: Trails | None = None) -> Accounts:
        """One more process, which keeps its trail there."""
        accounts = Accounts(self.store, where or NoTrails(), self.clock, self.ids, self.alerts.append)
        await accounts.start()
        self.running.append(accounts)
        return accounts

    async def close(self) -> None:
        """All of them end in order."""
        for accounts in self.running:
            await accounts.close()

    def view(self, key: BudgetKey = ALL) -> BudgetView:
        """What the store has of a budget, but for alerts."""
        return self.store.view(key)._replace(alerted_percent=0)


def in_office(test: Callable[[Office], Awaitable[None]]) -> None:
    """Runs a test in virtual time, and looks at the end whether the books are right."""

    async def run() -> None:
        office = Office()
        await test(office)
        office.store.is_away = office.store.loses_answers = False
        office.store.seconds = 0
        await office.close()
        for key, one in office.store.budgets.items():
            assert one.leased == 0
            assert one.settled == costs(office.store.entries, key) + one.lost
        assert all(one.is_lost for one in office.store.leases.values())

    in_virtual_time(run())


async def spend(accounts: Accounts, cost: int, worst: int = 100, *budgets: Any, **about: Any) -> None:
    """One call from beginning to end."""
    async with accounts.reserve(asked(*budgets, **about), worst) as reservation:
        reservation.settle([attempt(cost)])
