"""How long to wait before a deployment is asked once more, and how often that may happen in the whole process."""

from __future__ import annotations

from random import Random

from pointsman_server.domain.ports import Clock
from pointsman_server.domain.resilience import RetryPolicy

BUDGET_WINDOW_SECONDS = 60
"""What happened in the last so many seconds counts towards a budget."""


def pause_seconds(policy: RetryPolicy, number: int, random: Random) -> float:
    """The pause before retry `number` (1 is the first): drawn evenly from 0 to the doubling limit.

    "Full jitter": callers that failed together come back apart.
    """
    return random.uniform(0.0, min(policy.cap_seconds, policy.base_seconds * 2 ** (number - 1)))


class ShareBudget:
    """Extra attempts as a share of the calls of the last minute, counted second by second. One for the process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._second = 0
        self._calls = [0] * BUDGET_WINDOW_SECONDS
        self._extras = [0] * BUDGET_WINDOW_SECONDS
        self._calls_in_window = 0
        self._extras_in_window = 0

    def called(self) -> None:
        """A call begins; it may never need more than one attempt."""
        self._calls[self._place()] += 1
        self._calls_in_window += 1

    def spend(self, floor: int, share: float) -> bool:
        """Whether one more is within `floor` plus `share` of the calls; if so, it is counted."""
        place = self._place()
        if self._extras_in_window >= floor + share * self._calls_in_window:
            return False
        self._extras[place] += 1
        self._extras_in_window += 1
        return True

    def _place(self) -> int:
        second = int(self._clock.monotonic())
        for passed in range(self._second + 1, min(second, self._second + BUDGET_WINDOW_SECONDS) + 1):
            place = passed % BUDGET_WINDOW_SECONDS
            self._calls_in_window -= self._calls[place]
            self._extras_in_window -= self._extras[place]
            self._calls[place] = self._extras[place] = 0
        self._second = max(second, self._second)
        return self._second % BUDGET_WINDOW_SECONDS
