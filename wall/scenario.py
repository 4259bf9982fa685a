"""What a scenario is: upstreams with a plan, callers with habits, and what must be found in the wall log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from wall.asks import Ask
from wall.log import Hit, Outcome, WallLog
from wall.targets.target import Ability
from wall.texts import answer, in_pieces, seeded
from wall.upstream import Plan

PRIMARY, FALLBACK = "primary", "fallback"
ROLES = (PRIMARY, FALLBACK)

PATIENCE_SECONDS: Mapping[str, float] = {"connect": 3, "first token": 10, "between chunks": 15, "total": 120}
"""Timeouts that every gateway is told to have; what a scenario needs beyond them only pointsman can be given."""

_LEAST_PATIENCE_SECONDS = 1.0

QUICK_SCALE = 1 / 20
QUICK_MANY = 50


@dataclass(frozen=True, slots=True)
class Setting:
    """How a run is done: its chance, its pace (`scale` of all durations) and its size (`many`, of random scenarios)."""

    seed: int = 1
    scale: float = 1.0
    many: int = 1_000

    def seconds(self, in_full: float) -> float:
        """A duration of the full run at this run's pace."""
        return in_full * self.scale

    def patience_seconds(self, of: str) -> float:
        """One of `PATIENCE_SECONDS` at this run's pace; a busy machine must not look like a silent upstream."""
        return max(_LEAST_PATIENCE_SECONDS, self.seconds(PATIENCE_SECONDS[of]))

    def text(self, scenario: str, number: int, characters: int = 200) -> str:
        """The answer to a call."""
        return answer(self.seed, scenario, number, characters)

    def pieces(self, scenario: str, number: int, text: str) -> list[str]:
        """The same as it is streamed."""
        return in_pieces(text, seeded("pieces", self.seed, scenario, number))


QUICK = Setting(scale=QUICK_SCALE, many=QUICK_MANY)


@dataclass(frozen=True, slots=True)
class Lane:
    """A primary and a fallback of their own in the gateway; timeouts beyond the stage's."""

    prefill: bool = False
    timeouts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """A scenario in one setting.

    Asks begin at their times or, with `callers`, one after the other among so many callers. `resilience` and
    `settings` (environment variables) are what pointsman has to be started with, beyond `wall.policy`'s.
    `answering` gives the text that a call should get.
    """

    plans: Mapping[str, Plan]
    asks: Sequence[Ask]
    answering: Callable[[int], str]
    lanes: Mapping[str, Lane] = field(default_factory=lambda: {"main": Lane()})
    timeouts: Mapping[str, float] = field(default_factory=dict)
    resilience: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    callers: int | None = None
    settle_seconds: float = 0.0


class Verdict(Enum):
    """What a finding comes to."""

    KEPT = "kept"
    BROKEN = "BROKEN"
    NOT_APPLICABLE = "not applicable"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: what was expected, what was measured. `needs` is what a target must be able to."""

    name: str
    kept: bool
    measured: str
    expected: str
    needs: frozenset[Ability] = frozenset()

    def verdict(self, abilities: frozenset[Ability]) -> Verdict:
        """Of a target with these abilities."""
        if not self.needs <= abilities:
            return Verdict.NOT_APPLICABLE
        return Verdict.KEPT if self.kept else Verdict.BROKEN


@dataclass(frozen=True, slots=True)
class Evidence:
    """The wall log of a scenario, and questions to it."""

    setting: Setting
    stage: Stage
    log: WallLog

    def hits(self, role: str | None = None, lane: str | None = None) -> list[Hit]:
        """Requests that reached the upstream in this role, in the order of their arrival."""
        hits = self.log.hits
        return [hit for hit in hits if role in (None, hit.upstream) and lane in (None, hit.lane)]

    def outcomes(self, lane: str | None = None) -> list[Outcome]:
        """What the callers got, in the order of the asks."""
        found = [outcome for outcome in self.log.outcomes if lane in (None, outcome.ask.lane)]
        return sorted(found, key=lambda outcome: (outcome.ask.at_seconds, outcome.ask.number))

    def served(self) -> list[Outcome]:
        """Those that got a whole answer, by their own word."""
        return [outcome for outcome in self.outcomes() if outcome.served]

    def hits_of(self, ask: Ask) -> list[Hit]:
        """Requests that were made for this call."""
        return [hit for hit in self.log.hits if hit.number == ask.number and hit.lane == ask.lane]


Judge = Callable[[Evidence], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """A named trial. `promise` is what it holds a gateway to; `slow` ones take long at any pace."""

    id: str
    title: str
    promise: str
    stage: Callable[[Setting], Stage]
    judge: Judge
    needs: frozenset[Ability] = frozenset()
    slow: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a scenario. `note` says why it was not run, or what disturbed it."""

    scenario: Scenario
    findings: Sequence[tuple[Finding, Verdict]]
    seconds: float
    log: WallLog | None = None
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """The worst of the findings; not applicable when nothing could be judged."""
        verdicts = {verdict for _, verdict in self.findings}
        if Verdict.BROKEN in verdicts:
            return Verdict.BROKEN
        return Verdict.KEPT if Verdict.KEPT in verdicts else Verdict.NOT_APPLICABLE
