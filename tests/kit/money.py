"""The money of one call."""

from __future__ import annotations

from dataclasses import dataclass, field

from pointsman_server.domain.errors import BudgetExceeded
from pointsman_server.domain.governance import Period


@dataclass
class Money:
    """A budget with so much left, None is without end; remembers what was set aside in all, each time it grew."""

    left_micro_usd: int | None = None
    covered: list[int] = field(default_factory=list)

    async def cover(self, cost_micro_usd: int) -> None:
        """See `Reservation.cover`."""
        if self.left_micro_usd is not None and cost_micro_usd > self.left_micro_usd:
            raise BudgetExceeded("month", Period.MONTH)
        self.covered.append(cost_micro_usd)
