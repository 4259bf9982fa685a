"""What this process holds of one budget: leases, of which reservations take their parts. Nothing here waits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from pointsman_server.domain.ledger import REMAINDER_SLICES, BudgetKey, Lease, LeaseChange, LeaseWish

SLICES_PER_BUDGET = 100
"""A slice is at most this part of its budget, unless it would be too little for a few calls."""

CALLS_PER_SLICE = 4
"""A slice is enough for at least so many calls like the one it is leased for."""


@dataclass(slots=True)
class HeldLease:
    """A lease in use. What comes back to one that is `ending` is returned to the budget at once."""

    id: str
    key: BudgetKey
    free_micro_usd: int
    ending: bool
    used_at: float
    reserved_micro_usd: int = 0

    @property
    def left_micro_usd(self) -> int:
        """What it holds."""
        return self.free_micro_usd + self.reserved_micro_usd


@dataclass(slots=True)
class Purse:
    """One budget's leases in this process.

    `refused_micro_usd` did not fit when the store was asked last; until `refused_until` it is not asked for as much
    again. `alerted_percent` is what everybody was told of already. `is_overdrawn`: more was spent than the leases held,
    and the store does not know yet.
    """

    key: BudgetKey
    limit_micro_usd: int
    used_at: float = 0.0
    leases: list[HeldLease] = field(default_factory=list)
    refused_micro_usd: int = 0
    refused_until: float = 0.0
    slice_micro_usd: int = 0
    alerted_percent: int = 0
    is_overdrawn: bool = False

    def find(self, amount: int) -> HeldLease | None:
        """A lease with so much free."""
        for lease in reversed(self.leases):
            if lease.free_micro_usd >= amount:
                return lease
        return None

    def take(self, lease: HeldLease, amount: int, now: float) -> None:
        """Reserves a part of a lease."""
        lease.free_micro_usd -= amount
        lease.reserved_micro_usd += amount
        lease.used_at = self.used_at = now

    def wish(self, name: str, amount: int) -> LeaseWish:
        """What to ask the store for."""
        least = CALLS_PER_SLICE * amount
        most = max(self.limit_micro_usd // SLICES_PER_BUDGET, least)
        return LeaseWish(name, self.key, self.limit_micro_usd, amount, least, most)

    def is_near_end(self, committed: int) -> bool:
        """Whether so little remains that slices that lie idle here would be missed elsewhere."""
        # Half of what it takes to get one, so that they do not come and go all the time.
        return 2 * (self.limit_micro_usd - committed) < REMAINDER_SLICES * self.slice_micro_usd

    def refuses(self, amount: int, now: float) -> bool:
        """Whether the store refused as much a moment ago."""
        return now < self.refused_until and amount >= self.refused_micro_usd

    def add(self, lease: Lease, now: float) -> list[LeaseChange]:
        """Takes a new lease in; gives back what was too little for whoever asked for it."""
        too_little = list(self.surrender())
        self.slice_micro_usd = lease.amount_micro_usd if lease.is_slice else 0
        self.leases.append(HeldLease(lease.id, lease.key, lease.amount_micro_usd, not lease.is_slice, now))
        return too_little

    def surrender(self) -> Iterator[LeaseChange]:
        """Returns what is free, and later what comes back."""
        for lease in tuple(self.leases):
            yield from self.end(lease)

    def end(self, lease: HeldLease) -> Iterator[LeaseChange]:
        """The same for one lease."""
        lease.ending = True
        free, lease.free_micro_usd = lease.free_micro_usd, 0
        self._drop_if_empty(lease)
        if free:
            yield LeaseChange(lease.id, lease.key, returned_micro_usd=free)

    def settle(self, lease: HeldLease, reserved: int, cost: int) -> LeaseChange | None:
        """A reservation ends with this cost; None if the store need not know.

        What the cost is above the reservation comes from what is free; what is not there is spent nevertheless.
        """
        lease.reserved_micro_usd -= reserved
        spent = min(cost, reserved + lease.free_micro_usd)
        lease.free_micro_usd += reserved - spent
        returned = 0
        if lease.ending:
            returned, lease.free_micro_usd = lease.free_micro_usd, 0
        self._drop_if_empty(lease)
        change = LeaseChange(lease.id, lease.key, spent, returned, beyond_micro_usd=cost - spent)
        return change if spent or returned or cost > spent else None

    def _drop_if_empty(self, lease: HeldLease) -> None:
        if not lease.left_micro_usd and lease in self.leases:
            self.leases.remove(lease)
