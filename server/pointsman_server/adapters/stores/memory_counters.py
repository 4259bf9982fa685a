"""Counters of one process alone, for a server that shares none."""

from __future__ import annotations

from collections.abc import Sequence

from pointsman_server.domain.ports import Clock
from pointsman_server.execution.counters import GRAIN_SECONDS, HELD_GRAINS, Corrections, Grant, Want, WindowCount


class MemoryCounters:
    """See `Counters`. What does not count any more is forgotten once a minute."""

    patience_seconds = 1.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: dict[str, WindowCount] = {}
        self._forget_at_grain = 0

    def __len__(self) -> int:
        return len(self._counts)

    async def take(self, wants: Sequence[Want], corrections: Corrections) -> Sequence[Grant]:
        """See `Counters.take`."""
        moment = self._clock.monotonic() / GRAIN_SECONDS
        self._forget(int(moment))
        for (name, grain), amount in corrections.items():
            if name in self._counts:
                self._counts[name].correct(grain, amount)
        return [self._take(want, moment) for want in wants]

    async def check(self) -> None:
        """See `Counters.check`; they are always there."""

    def _take(self, want: Want, moment: float) -> Grant:
        count = self._counts.setdefault(want.name, WindowCount())
        count.look(int(moment))
        return count.take(want, moment)

    def _forget(self, grain: int) -> None:
        if grain < self._forget_at_grain:
            return
        self._forget_at_grain = grain + HELD_GRAINS
        for name, count in list(self._counts.items()):
            count.look(grain)
            if not count.counts:
                del self._counts[name]
