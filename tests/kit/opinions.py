"""A pipeline over deployments of several tiers that follow scripts, for tests of what is asked beside an answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from kit.catalog import call, deployment, judged, price, snapshot
from kit.clock import CountingIds, LoopClock, in_virtual_time
from kit.dispatching import doorkeepers
from kit.guards import guards
from kit.remembering import Remembered
from kit.scripted import CharacterCounter, ScriptedAdapter, Step
from kit.watching import SeenTelemetry
from pointsman_server.adapters.answer_checker import SchemaAnswerChecker
from pointsman_server.adapters.stores.memory_counters import MemoryCounters
from pointsman_server.adapters.stores.memory_ledger import MemoryLedger
from pointsman_server.domain.call import AttemptPurpose, Call, CallEvent, Completed, Completion
from pointsman_server.domain.confidence_policy import ConfidencePolicy
from pointsman_server.domain.control import Control
from pointsman_server.domain.errors import BudgetExceeded
from pointsman_server.domain.governance import Period
from pointsman_server.domain.request import Tier
from pointsman_server.domain.resilience import Resilience, RetryPolicy
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.governing import Governing
from pointsman_server.execution.limits import Limits
from pointsman_server.execution.pipeline import Pipeline

UNSURE = "I'm not sure, perhaps Lyon."
SURE = "The capital of France is Paris."


class BoundedLedger(MemoryLedger):
    """Has only so much for what comes after the first attempt, None is without end; remembers what was covered."""

    def __init__(self, most_micro_usd: int | None = None) -> None:
        super().__init__()
        self.most_micro_usd = most_micro_usd
        self.covered: list[int] = []

    def reserve(self, call: Call, worst_cost_micro_usd: int) -> Any:
        return _Bounded(super().reserve(call, worst_cost_micro_usd), self)


class _Bounded:
    def __init__(self, inner: Any, ledger: BoundedLedger) -> None:
        self._inner = inner
        self._ledger = ledger
        self._reservation: Any = None

    async def __aenter__(self) -> _Bounded:
        self._reservation = await self._inner.__aenter__()
        self.settle = self._reservation.settle
        return self

    async def __aexit__(self, *error: object) -> Any:
        return await self._inner.__aexit__(*error)

    async def cover(self, cost_micro_usd: int) -> None:
        most = self._ledger.most_micro_usd
        if most is not None and cost_micro_usd > most:
            raise BudgetExceeded("month", Period.MONTH)
        self._ledger.covered.append(cost_micro_usd)
        await self._reservation.cover(cost_micro_usd)


@dataclass
class House:
    """A pipeline over `d0`, `d1`, …, each with its tier and script; earlier ones are cheaper and asked first."""

    scripts: Sequence[tuple[Tier, Sequence[Step]]]
    confidence: ConfidencePolicy = field(default_factory=ConfidencePolicy)
    most_micro_usd: int | None = None
    policy: dict[str, Any] = field(default_factory=dict)
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Fields of deployments, by id."""

    def __post_init__(self) -> None:
        self.adapters = [ScriptedAdapter(script) for _, script in self.scripts]
        self.clock, self.telemetry = LoopClock(), SeenTelemetry()
        self.ledger = BoundedLedger(self.most_micro_usd)
        self.remembered = Remembered(self.clock)
        self.deployments = [
            deployment(
                f"d{place}",
                **{
                    "of": {"tier": tier, "price": price((place + 1) * 1_000_000, (place + 1) * 1_000_000)},
                    **self.changes.get(f"d{place}", {}),
                },
            )
            for place, (tier, _) in enumerate(self.scripts)
        ]
        by_provider = {one.provider.id: adapter for one, adapter in zip(self.deployments, self.adapters, strict=True)}
        governing = Governing(Control, Limits(MemoryCounters(self.clock), self.clock, b"salt"))
        keepers = replace(
            doorkeepers(self.clock, self.telemetry), health=self.remembered.health, places=self.remembered.places
        )
        counter = CharacterCounter()
        self.pipeline = Pipeline(
            Dispatcher(by_provider, keepers, SchemaAnswerChecker(), counter, self.clock),
            lambda asked: judged(Tier.LIGHT, difficulty=0.0),
            self.remembered.memory,
            governing,
            guards(self.telemetry),
            self.ledger,
            self.telemetry,
            counter,
            self.clock,
            CountingIds(),
        )

    def call(self, deadline: float = 1e6, **changes: Any) -> Call:
        """A call of this house; nobody is asked twice."""
        resilience = Resilience(RetryPolicy(attempts_per_deployment=1))
        policy = {"resilience": resilience, "confidence": self.confidence, **self.policy}
        return call(snapshot(*self.deployments, **policy), deadline, **changes)

    def complete(self, deadline: float = 1e6, **changes: Any) -> Completion:
        """The whole answer."""
        return in_virtual_time(self._complete(deadline, changes))

    def stream(self, **changes: Any) -> list[CallEvent]:
        """What a stream tells."""
        return in_virtual_time(self._stream(changes))

    @property
    def asked(self) -> list[int]:
        """How often each was asked."""
        return [len(adapter.calls) for adapter in self.adapters]

    @property
    def holds_nothing(self) -> bool:
        """Whether no money is set aside and no connection is open."""
        return not self.ledger.reserved_micro_usd and not any(adapter.open_exchanges for adapter in self.adapters)

    async def _complete(self, deadline: float, changes: dict[str, Any]) -> Completion:
        return await self.pipeline.complete(self.call(deadline, **changes))

    async def _stream(self, changes: dict[str, Any]) -> list[CallEvent]:
        return [event async for event in self.pipeline.stream(self.call(**changes))]


def purposes(completion: Completion) -> list[tuple[str, AttemptPurpose]]:
    """Who was asked and why, in the order in which the caller is told."""
    return [(one.deployment.id, one.purpose) for one in completion.attempts]


def last(events: Sequence[CallEvent]) -> Completion:
    """The whole answer of a stream."""
    assert isinstance(events[-1], Completed)
    return events[-1].completion
