"""Counters that all processes share: how they count, and what a store has to do for it.

Time is cut into grains, counted by a clock that is the same for everybody who shares a counter. What is taken in one
grain may be used until the end of the next, and counts for a minute from then on. So whatever is used within any minute
was counted within it too, wherever the minute begins, and a permit is out of use for at most half a second more than a
minute, which is less than 1 % of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

GRAIN_SECONDS = 0.25
USABLE_GRAINS = 2
"""The grain in which something was taken, and one more."""

HELD_GRAINS = USABLE_GRAINS + round(60 / GRAIN_SECONDS)
"""How many grains, the one that runs among them, count against a limit."""

Held = Sequence[tuple[int, int]]
"""What counts against a limit, by the grain in which it was taken, oldest first."""

Corrections = Mapping[tuple[str, int], int]
"""What a counter's grain is to be lowered by, by name and grain; less than zero raises it."""


@dataclass(frozen=True, slots=True)
class Want:
    """Takes `amount` of a counter, or less where the limit leaves less; nothing where it leaves less than `least`."""

    name: str
    least: int
    amount: int
    limit: int


@dataclass(frozen=True, slots=True)
class Grant:
    """What was taken, in this grain; it may be used for `usable_seconds` from the moment at which it was taken.

    `left` is what the limit left afterwards. `held` is told where less was given than wanted.
    """

    amount: int
    grain: int
    usable_seconds: float
    left: int
    held: Held = ()


class Counters(Protocol):
    """Counts for all processes. Errors of any kind say that the store cannot be reached now."""

    @property
    def patience_seconds(self) -> float:
        """How long calls may wait for an answer before the store counts as out of reach."""
        ...

    async def take(self, wants: Sequence[Want], corrections: Corrections) -> Sequence[Grant]:
        """Corrects what was counted before, then grants the wants, in their order; no name comes twice."""
        ...

    async def check(self) -> None:
        """Raises if the store cannot be reached."""
        ...


def seconds_until_free(need: int, limit: int, grant: Grant) -> float | None:
    """How long after the grant so much could be had, if nobody else took any; None if never.

    Only for what the grant told not to be there.
    """
    if need > limit:
        return None
    missing = need + sum(count for _, count in grant.held) - limit
    freed = accumulate(count for _, count in grant.held)
    last = next((grain for (grain, _), total in zip(grant.held, freed, strict=True) if total >= missing), grant.grain)
    return (last + HELD_GRAINS - grant.grain - USABLE_GRAINS) * GRAIN_SECONDS + grant.usable_seconds


class WindowCount:
    """What was taken of one counter, by grain, as far as it counts."""

    def __init__(self, counts: Iterable[tuple[int, int]] = ()) -> None:
        self.counts = dict(counts)

    def look(self, grain: int) -> None:
        """Sees to it that nothing counts that is too old.

        A clock that was set back leaves counts of grains that are to come: they count as taken now, so that nothing is
        forgotten, and nobody waits until the clock is there again.
        """
        to_come = sum(count for one, count in self.counts.items() if one > grain)
        self.counts = {one: count for one, count in self.counts.items() if grain - HELD_GRAINS < one <= grain}
        if to_come:
            self.counts[grain] = self.counts.get(grain, 0) + to_come

    def correct(self, grain: int, amount: int) -> None:
        """Lowers what was taken in a grain, if that still counts."""
        if grain in self.counts:
            self.counts[grain] -= amount

    def take(self, want: Want, moment_in_grains: float) -> Grant:
        """Grants at this moment as much of the want as the limit leaves, or nothing if that is too little."""
        grain = int(moment_in_grains)
        left = want.limit - sum(self.counts.values())
        amount = min(want.amount, left) if left >= want.least else 0
        if amount:
            self.counts[grain] = self.counts.get(grain, 0) + amount
        held = tuple(sorted(self.counts.items())) if amount < want.amount else ()
        usable_seconds = (grain + USABLE_GRAINS - moment_in_grains) * GRAIN_SECONDS
        return Grant(amount, grain, usable_seconds, max(0, left - amount), held)
