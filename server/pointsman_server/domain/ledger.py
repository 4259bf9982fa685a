"""Money set aside and money spent, as the rooms and the stores speak of it. All amounts are whole micro-USD."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple


class BudgetKey(NamedTuple):
    """One budget of one tenant in one period, which is a day (2026-11-21) or a month (2026-11) of UTC."""

    tenant: str
    budget: str
    period: str


class BudgetView(NamedTuple):
    """How a budget stands. `settled` holds what is known to be spent, and what may be and nobody can tell (`lost`)."""

    settled_micro_usd: int = 0
    leased_micro_usd: int = 0
    lost_micro_usd: int = 0
    alerted_percent: int = 0

    @property
    def committed_micro_usd(self) -> int:
        """What cannot be leased any more."""
        return self.settled_micro_usd + self.leased_micro_usd


REMAINDER_SLICES = 20
"""A slice is at most this part of what remains, so that several processes can have one each."""


class LeaseWish(NamedTuple):
    """Asks for a slice of a budget while enough of it remains, near its end for as much as one call needs.

    The id is the asker's, so that he can take back a wish whose answer was lost.
    """

    id: str
    key: BudgetKey
    limit_micro_usd: int
    needed_micro_usd: int
    least_slice_micro_usd: int
    most_slice_micro_usd: int

    def granted_of(self, committed_micro_usd: int) -> int:
        """What to grant when so much of the budget cannot be leased any more; 0 if it is not enough."""
        remaining = self.limit_micro_usd - committed_micro_usd
        piece = min(self.most_slice_micro_usd, remaining // REMAINDER_SLICES)
        if piece >= self.least_slice_micro_usd:
            return piece
        return self.needed_micro_usd if self.needed_micro_usd <= remaining else 0


class Lease(NamedTuple):
    """A part of a budget that one process may spend without asking again."""

    id: str
    key: BudgetKey
    amount_micro_usd: int
    is_slice: bool


class Refusal(NamedTuple):
    """The budget that a wish did not fit; none of the wishes beside it was granted."""

    key: BudgetKey
    view: BudgetView


class LeaseChange(NamedTuple):
    """What becomes of a lease, or of a part of it.

    `spent`, `returned` and `lost` (perhaps spent, nobody can tell) leave the lease; `beyond` was spent although the
    lease did not hold it, or there was none (""). `is_doubtful`: nobody knows whether the lease was ever granted; if it
    was, all of it returns.
    """

    lease_id: str
    key: BudgetKey
    spent_micro_usd: int = 0
    returned_micro_usd: int = 0
    lost_micro_usd: int = 0
    beyond_micro_usd: int = 0
    is_doubtful: bool = False

    @property
    def left_micro_usd(self) -> int:
        """By how much the lease shrinks."""
        return self.spent_micro_usd + self.returned_micro_usd + self.lost_micro_usd

    def with_(self, later: LeaseChange) -> LeaseChange:
        """Both changes of the same lease as one."""
        return LeaseChange(
            self.lease_id,
            self.key,
            self.spent_micro_usd + later.spent_micro_usd,
            self.returned_micro_usd + later.returned_micro_usd,
            self.lost_micro_usd + later.lost_micro_usd,
            self.beyond_micro_usd + later.beyond_micro_usd,
            self.is_doubtful or later.is_doubtful,
        )


class EntryOutcome(Enum):
    """How what is booked ended. UNSETTLED: nobody said what the call cost, so its worst case is booked."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNSETTLED = "unsettled"


class Entry(NamedTuple):
    """One attempt in the ledger. `calls` is 1 for the attempt that its call ended with, 0 for those before it.

    `labels_json` is an object, `budgets_json` a list of [budget, period] that the cost was booked on.
    """

    request_id: str
    attempt: int
    at: float
    tenant: str
    deployment: str
    provider: str
    model: str
    outcome: EntryOutcome
    input_tokens: int
    cached_input_tokens: int
    cache_write_input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cost_micro_usd: int
    price_version: str
    estimated: bool
    calls: int
    labels_json: str
    budgets_json: str


@dataclass(frozen=True, slots=True)
class Booking:
    """What is written down together. Each process numbers its own from 1, so that none is written twice."""

    number: int
    changes: tuple[LeaseChange, ...] = ()
    entries: tuple[Entry, ...] = ()


class Pulse(NamedTuple):
    """What a process learns when it shows that it lives: its leases that still stand, and how the budgets stand."""

    leases: frozenset[str]
    views: Mapping[BudgetKey, BudgetView]


class BudgetAlert(NamedTuple):
    """A budget is used to so many per cent; 100 also when a call was refused for it."""

    key: BudgetKey
    percent: int
    limit_micro_usd: int
    settled_micro_usd: int


@dataclass(frozen=True, slots=True)
class Remains:
    """What a process holds and has not yet written down, as its trail tells after its end.

    `number` is that of its last booking. `leases` are with what is left of them after all bookings; `outstanding` are
    the reservations that nobody settled, with what each takes of which lease. With `is_whole` False the trail may lack
    what came last.
    """

    writer: str
    number: int = 0
    leases: Mapping[str, tuple[BudgetKey, int]] = field(default_factory=dict)
    outstanding: Mapping[int, Sequence[tuple[str, int]]] = field(default_factory=dict)
    bookings: Sequence[Booking] = ()
    is_whole: bool = True


class UsageDimension(Enum):
    """What usage is grouped by."""

    TENANT = "tenant"
    MODEL = "model"
    DAY = "day"
    LABEL = "label"


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """What to look at: whole days of UTC from `first_day` on and before `end_day` (2026-11-21), "" is no bound.

    `label` is whose values are grouped by; `tenant` "" is all.
    """

    group_by: frozenset[UsageDimension] = frozenset()
    label: str = ""
    first_day: str = ""
    end_day: str = ""
    tenant: str = ""


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one group used; what is not grouped by is "". The estimated cost is a part of the cost."""

    tenant: str = ""
    model: str = ""
    day: str = ""
    label_value: str = ""
    calls: int = 0
    input_tokens: int = 0
    cached_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost_micro_usd: int = 0
    estimated_cost_micro_usd: int = 0
