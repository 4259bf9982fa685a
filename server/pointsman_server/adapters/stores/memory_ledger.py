"""A ledger in the process's memory: enough for one process that need not remember."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from pointsman_server.domain.call import Attempt, Call


class MemoryReservation:
    """Money set aside for one call."""

    def __init__(self, worst_cost_micro_usd: int) -> None:
        self.settled_micro_usd: int | None = None
        self.worst_cost_micro_usd = worst_cost_micro_usd

    async def cover(self, cost_micro_usd: int) -> None:
        """See `Reservation.cover`."""
        self.worst_cost_micro_usd = max(self.worst_cost_micro_usd, cost_micro_usd)

    def settle(self, attempts: Sequence[Attempt], *, estimated: bool = False) -> None:
        """See `Reservation.settle`."""
        if self.settled_micro_usd is not None:
            raise ValueError("a reservation is settled once")
        self.settled_micro_usd = sum(attempt.cost_micro_usd for attempt in attempts)


class MemoryLedger:
    """Keeps what is reserved now and what was booked since the start, in micro-USD."""

    def __init__(self) -> None:
        self.reserved_micro_usd = 0
        self.booked_micro_usd = 0

    @asynccontextmanager
    async def reserve(self, call: Call, worst_cost_micro_usd: int) -> AsyncGenerator[MemoryReservation, None]:
        """See `Ledger.reserve`."""
        reservation = MemoryReservation(worst_cost_micro_usd)
        self.reserved_micro_usd += worst_cost_micro_usd
        try:
            yield reservation
        finally:
            self.reserved_micro_usd -= worst_cost_micro_usd
            settled = reservation.settled_micro_usd
            self.booked_micro_usd += reservation.worst_cost_micro_usd if settled is None else settled
