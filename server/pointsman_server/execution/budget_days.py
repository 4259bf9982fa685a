"""Which day and month of UTC it is for budgets: neither ever begins twice."""

from __future__ import annotations

from datetime import UTC, datetime

from pointsman_server.domain.governance import Period
from pointsman_server.domain.ports import Clock

_SECONDS_PER_DAY = 86_400

CORRECTION_SECONDS = 2 * 3600.0
"""A clock that is set back by up to so much does not bring yesterday back; by more, it was wrong before."""

_LENGTHS = {Period.DAY: len("2026-11-21"), Period.MONTH: len("2026-11")}


class BudgetDays:
    """The calendar of budgets, by the wall clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._day = -1
        self._date = ""

    def name(self, period: Period) -> str:
        """Today as 2026-11-21, or the month as 2026-11."""
        now = self._clock.now()
        day = int(now // _SECONDS_PER_DAY)
        if day != self._day and not self._is_set_back(now):
            self._day = day
            self._date = datetime.fromtimestamp(now, UTC).date().isoformat()
        return self._date[: _LENGTHS[period]]

    def _is_set_back(self, now: float) -> bool:
        begun = self._day * _SECONDS_PER_DAY
        return now < begun <= now + CORRECTION_SECONDS
