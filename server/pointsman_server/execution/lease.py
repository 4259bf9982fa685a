"""What a process holds of a shared counter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from pointsman_server.execution.counters import Grant, seconds_until_free

LEAST_CHUNK_AHEAD = 16
"""Chunks of fewer permits are only asked for when they are wanted."""

AHEAD_SECONDS = 0.1
"""So long before the time of those at hand is over new permits are asked for; also when a quarter of them is left.
Other counters whose time is over in twice as long are asked in the same question."""

KEPT_SECONDS = 5.0
"""How long it is remembered that a counter's permits were used up fast, when nobody uses any."""

_ROUNDING_SECONDS = 0.001
"""Times go to callers in whole milliseconds; none of them may be too short."""


class Permit(NamedTuple):
    """Something that was taken of a counter, in this grain."""

    lease: Lease
    grain: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """The limit leaves too little; after so many seconds it leaves enough, if nobody else comes. None is never."""

    seconds: float | None


Answer = Permit | Refusal | None
"""None: the counters cannot be reached."""


class Lease:
    """What this process holds of one counter, and what it last heard of it. Times are on the monotonic clock."""

    __slots__ = (
        "amount",
        "chunk",
        "grain",
        "grant",
        "granted_at",
        "is_asking",
        "limit",
        "name",
        "short_until",
        "usable_until",
        "used",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.limit = 0
        self.amount = self.used = 0
        self.grain = 0
        self.usable_until = -math.inf
        self.chunk = 1
        self.is_asking = False
        self.grant: Grant | None = None
        self.granted_at = 0.0
        self.short_until = -math.inf
        """Until then the counter is known to have no more than `grant.left`."""

    def take(self, amount: int, now: float) -> Permit | None:
        """So much of what is at hand, None if there is less."""
        if self.amount < amount or now >= self.usable_until:
            return None
        self.amount -= amount
        self.used += amount
        return Permit(self, self.grain)

    def refusal(self, amount: int, limit: int, now: float) -> Refusal | None:
        """Why asking the counter would be in vain, None if it would not."""
        if amount > limit:
            return Refusal(None)
        if self.grant is None or now >= self.short_until or amount <= self.amount + self.grant.left:
            return None
        return self.shortage(amount, limit, self.grant, now)

    def shortage(self, amount: int, limit: int, grant: Grant, now: float) -> Refusal:
        """The refusal of what this grant left too little for."""
        seconds = seconds_until_free(amount, limit, grant)
        if seconds is None:
            return Refusal(None)
        return Refusal(max(0.0, seconds - (now - self.granted_at)) + _ROUNDING_SECONDS)

    def is_due(self, now: float) -> bool:
        """Whether so little is left, or for so short a time, that new permits are to be asked for."""
        if self.is_asking or now < self.short_until:
            return False
        return self.amount * 4 < self.chunk or self.ends_within(AHEAD_SECONDS, now)

    def ends_within(self, seconds: float, now: float) -> bool:
        """Whether the time of what is at hand is over so soon, and not yet."""
        return now < self.usable_until <= now + seconds

    def is_over(self, now: float) -> bool:
        """Whether nothing is held any more."""
        return not self.is_asking and now >= self.usable_until and now >= self.short_until

    def is_forgotten(self, now: float) -> bool:
        """Whether nothing needs to be known any more."""
        return self.is_over(now) and (self.chunk < LEAST_CHUNK_AHEAD or now >= self.granted_at + KEPT_SECONDS)
