"""How calls went under a canary and beside it, in this process and in the others, and what follows from that."""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

LEAST_SAMPLES = 50
MOST_SAMPLES = 1_000
"""Of each side the latest count, so that a canary that was well for long is not forgiven for as long."""

WORSE_FACTOR = 2.0
LEAST_ERROR_RATE = 0.01
"""What a control without errors counts as; otherwise the first error of a canary would end it."""

LATENCY_QUANTILE = 0.95

_SHORTEST_SECONDS = 0.001
_RATIO = 1.05
"""Processes tell each other times in steps of so much; that is at most 2.5 % off."""


class Tally(NamedTuple):
    """Calls of one process under one policy. `seconds` counts answers by the step in which their time lies."""

    calls: int
    failed: int
    seconds: Mapping[int, int]


class Tallies(NamedTuple):
    """What a process tells of both sides."""

    canary: Tally
    control: Tally


class TallyExchange(Protocol):
    """Where processes tell each other how their calls went. Everything raises `StoreUnavailableError`."""

    async def exchange(self, trial: str, own: Tallies) -> Sequence[Tallies]:
        """Tells the others, and gives what they told lately of the same trial."""
        ...

    async def withdraw(self) -> None:
        """What this process told counts no more."""
        ...


class Side(Protocol):
    """One side of the comparison."""

    @property
    def calls(self) -> int:
        """How many calls ended."""
        ...

    @property
    def answers(self) -> int:
        """How many of them with an answer, in a time that is known."""
        ...

    @property
    def error_rate(self) -> float:
        """The share that failed, 0 of none."""
        ...

    @property
    def slow_seconds(self) -> float:
        """The time within which 95 % of the answers came, 0 of none."""
        ...


@dataclass(slots=True)
class Samples:
    """See `Side`. The latest calls of this process under one policy: whether each failed, and the seconds of each
    answer."""

    failed: deque[bool] = field(default_factory=lambda: deque(maxlen=MOST_SAMPLES))
    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=MOST_SAMPLES))

    @property
    def calls(self) -> int:
        """See `Side.calls`."""
        return len(self.failed)

    @property
    def answers(self) -> int:
        """See `Side.answers`."""
        return len(self.seconds)

    @property
    def error_rate(self) -> float:
        """See `Side.error_rate`."""
        return _share(sum(self.failed), self.calls)

    @property
    def slow_seconds(self) -> float:
        """See `Side.slow_seconds`."""
        return _slow([(one, 1) for one in self.seconds])

    def tally(self) -> Tally:
        """What other processes are told."""
        return Tally(self.calls, sum(self.failed), Counter(map(_step, self.seconds)))


@dataclass(frozen=True, slots=True)
class Together:
    """See `Side`. The calls of all processes; each counts with its latest, so the busy ones count more."""

    own: Samples
    others: Sequence[Tally] = ()

    @property
    def calls(self) -> int:
        """See `Side.calls`."""
        return self.own.calls + sum(one.calls for one in self.others)

    @property
    def answers(self) -> int:
        """See `Side.answers`."""
        return self.own.answers + sum(sum(one.seconds.values()) for one in self.others)

    @property
    def error_rate(self) -> float:
        """See `Side.error_rate`."""
        return _share(sum(self.own.failed) + sum(one.failed for one in self.others), self.calls)

    @property
    def slow_seconds(self) -> float:
        """See `Side.slow_seconds`."""
        return _slow([*((one, 1) for one in self.own.seconds), *_told(self.others)])


def verdict_on(canary: Side, control: Side) -> str:
    """Why the canary has to end, "" as long as it may go on."""
    if canary.calls >= LEAST_SAMPLES:
        allowed = WORSE_FACTOR * max(control.error_rate, LEAST_ERROR_RATE)
        if canary.error_rate > allowed:
            return f"{canary.error_rate:.1%} of its calls failed, {control.error_rate:.1%} of the others"
    if min(canary.answers, control.answers) >= LEAST_SAMPLES:
        slow, usual = canary.slow_seconds, control.slow_seconds
        if slow > WORSE_FACTOR * usual:
            return f"95 % of its answers came within {slow:.2f} s, those of the others within {usual:.2f} s"
    return ""


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _slow(times: list[tuple[float, int]]) -> float:
    """The time within which 95 % came, of times with how often there were."""
    count = sum(number for _, number in times)
    left = min(count - 1, int(count * LATENCY_QUANTILE))
    for seconds, number in sorted(times):
        if left < number:
            return seconds
        left -= number
    return 0.0


def _step(seconds: float) -> int:
    return round(math.log(max(seconds, _SHORTEST_SECONDS) / _SHORTEST_SECONDS, _RATIO))


def _told(others: Sequence[Tally]) -> Iterator[tuple[float, int]]:
    for one in others:
        for step, number in one.seconds.items():
            yield _SHORTEST_SECONDS * _RATIO**step, number
