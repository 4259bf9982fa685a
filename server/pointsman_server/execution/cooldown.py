"""Deployments and provider accounts that are left alone for a while, for longer when it did not help."""

from __future__ import annotations

from dataclasses import dataclass, field

from pointsman_server.domain.faults import FaultKind

MAX_COOLDOWN_SECONDS = 3600.0
"""No wish of a provider goes beyond this."""

FIRST_LIMITED_SECONDS = 1.0
LONGEST_LIMITED_SECONDS = 60.0
"""After a rate limit without a time; doubled with each further one in a row."""

FIRST_REFUSED_SECONDS = 30.0
LONGEST_REFUSED_SECONDS = 600.0
"""After a refused key or a used-up quota; doubled with each further one in a row."""

_MOST_DOUBLINGS = 30

_NEWS_SECONDS = 1.0
"""Attempts at the same time are refused at the same time; an extension below this is no news to others."""


class Cooldown:
    """A pause until `until_seconds` on the monotonic clock: extended, never shortened."""

    __slots__ = ("_in_a_row", "_told_seconds", "until_seconds")

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets the pause, and how many came before."""
        self.until_seconds = 0.0
        self._in_a_row = 0
        self._told_seconds = float("-inf")

    def extend(self, until_seconds: float) -> None:
        """Pauses until then at least."""
        self.until_seconds = max(self.until_seconds, until_seconds)

    def refuse(self, admitted_at: float, first_seconds: float, longest_seconds: float) -> float:
        """An attempt that began at `admitted_at` was refused; returns the next pause, twice the last one.

        Only an attempt that began after the last pause shows that it did not help.
        """
        if admitted_at >= self.until_seconds:
            self._in_a_row += 1
        doublings = max(0, min(self._in_a_row - 1, _MOST_DOUBLINGS))
        return float(min(first_seconds * 2**doublings, longest_seconds))

    def succeed(self, admitted_at: float) -> None:
        """An attempt that began then was served: the next pause is a first one, if it began after the last pause."""
        if admitted_at >= self.until_seconds:
            self._in_a_row = 0

    def is_news(self) -> bool:
        """Whether the pause was extended by enough to be told; asks once for each extension."""
        if self.until_seconds < self._told_seconds + _NEWS_SECONDS:
            return False
        self._told_seconds = self.until_seconds
        return True


@dataclass(slots=True)
class Account:
    """A provider account: its key and its quota serve all of its deployments. `lost` are the kinds already logged."""

    id: str
    cooldown: Cooldown = field(default_factory=Cooldown)
    lost: set[FaultKind] = field(default_factory=set)

    @property
    def trouble(self) -> str:
        """What is wrong with it, to begin a sentence with."""
        if FaultKind.AUTH in self.lost:
            return "its provider refuses the key"
        if FaultKind.QUOTA in self.lost:
            return "the quota of its provider account is used up"
        return "its provider account is out of service"

    def lose(self, kind: FaultKind) -> bool:
        """The account refused a call for this; whether it is the first time in this outage."""
        is_first = kind not in self.lost
        self.lost.add(kind)
        return is_first

    def serve(self, admitted_at: float) -> None:
        """The account served a call that began then."""
        if admitted_at >= self.cooldown.until_seconds:
            self.cooldown.succeed(admitted_at)
            self.lost.clear()

    def restore(self) -> None:
        """Somebody says that it is well again."""
        self.cooldown.clear()
        self.lost.clear()
