"""The accounts of one process, put together: budgets, ledger, and the work in the background."""

from __future__ import annotations

from collections.abc import Callable

from pointsman_server.domain.call import Call
from pointsman_server.domain.ledger import BudgetAlert
from pointsman_server.domain.ledger_ports import LedgerStore, Trails
from pointsman_server.domain.ports import Clock, Ids
from pointsman_server.execution.booking import BookingQueue
from pointsman_server.execution.bookkeeping import Bookkeeper
from pointsman_server.execution.budgets import BudgetBook, BudgetReservation
from pointsman_server.execution.purses import Desk, Purses


class Accounts:
    """See `Ledger`; `start` comes before the first call and `close` after the last one has ended.

    `on_alert` is told of each budget that is used to 80 or 100 per cent, once over all processes; it must not block.
    """

    def __init__(
        self, store: LedgerStore, trails: Trails, clock: Clock, ids: Ids, on_alert: Callable[[BudgetAlert], None]
    ) -> None:
        writer = ids.new("writer")
        trail = trails.open(writer)
        self._queue = BookingQueue(store, writer, trail, clock)
        desk = Desk(store, self._queue, trail, writer, clock, ids)
        self._purses = Purses(desk)
        self._book = BudgetBook(desk, self._purses)
        self._keeper = Bookkeeper(desk, self._purses, self._book, trails, on_alert)

    def reserve(self, call: Call, worst_cost_micro_usd: int) -> BudgetReservation:
        """See `Ledger.reserve`."""
        return self._book.reserve(call, worst_cost_micro_usd)

    async def start(self) -> None:
        """Takes up what this machine's processes left behind, and begins."""
        await self._keeper.start()

    async def close(self) -> None:
        """Writes everything down and returns what is left; takes at most a few seconds."""
        await self._keeper.close()

    @property
    def waiting(self) -> int:
        """Bookings that are not yet written down."""
        return len(self._queue.waiting)

    @property
    def held_micro_usd(self) -> int:
        """What this process holds of all budgets together, reserved or not."""
        return sum(lease.left_micro_usd for _, lease in self._purses.held().values())
