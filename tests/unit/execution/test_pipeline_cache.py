"""The cache on a call's way: what is decided, reserved and told when an answer comes out of it, and what goes in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from kit.caching import ON, DictCache, always
from kit.catalog import call, deployment, judged, price, request, snapshot
from kit.clock import CountingIds, LoopClock, in_virtual_time
from kit.dispatching import doorkeepers
from kit.guards import ATTACK, guards
from kit.remembering import Remembered
from kit.scripted import CharacterCounter, ScriptedAdapter, Step, answers
from kit.watching import SeenTelemetry
from pointsman_server.adapters.answer_checker import SchemaAnswerChecker
from pointsman_server.adapters.embedders.local import LocalEmbedder
from pointsman_server.adapters.stores.memory_counters import MemoryCounters
from pointsman_server.adapters.stores.memory_ledger import MemoryLedger
from pointsman_server.domain.cache import CacheOutcome, Caching
from pointsman_server.domain.call import Call, Completed, Decided, Relay
from pointsman_server.domain.control import Control, KillScope, KillSwitch
from pointsman_server.domain.errors import NoEligibleDeployment
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.resilience import BreakerPolicy, Resilience, RetryPolicy
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.governing import Governing
from pointsman_server.execution.limits import Limits
from pointsman_server.execution.pipeline import Pipeline
from pointsman_server.execution.recall import Recall

EXACT, SEMANTIC, MISS, BYPASS = CacheOutcome
QUESTION = "How do I reset my password?"
DOWN = ProviderFault(FaultKind.UNAVAILABLE, "down")
STRICT = Resilience(RetryPolicy(attempts_per_deployment=1), BreakerPolicy(failures_in_a_row=1))


class CountingLedger(MemoryLedger):
    """Counts reservations."""

    def __init__(self) -> None:
        super().__init__()
        self.reservations = 0

    def reserve(self, call: Call, worst_cost_micro_usd: int) -> Any:
        self.reservations += 1
        return super().reserve(call, worst_cost_micro_usd)


@dataclass
class House:
    """A pipeline with a cache, over deployments that follow scripts; the cheaper ones come first."""

    scripts: Sequence[Sequence[Step]]
    then: Sequence[Step] | None = None
    control: Control = field(default_factory=Control)

    def __post_init__(self) -> None:
        clock = LoopClock()
        self.adapters = [ScriptedAdapter(script, self.then) for script in self.scripts]
        self.deployments = [
            deployment(f"d{n}", of={"price": price((n + 1) * 1_000_000, (n + 1) * 1_000_000)})
            for n in range(len(self.scripts))
        ]
        self.remembered, self.ledger, self.telemetry = Remembered(clock), CountingLedger(), SeenTelemetry()
        governing = Governing(lambda: self.control, Limits(MemoryCounters(clock), clock, b"salt"))
        keepers = replace(
            doorkeepers(clock, self.telemetry), health=self.remembered.health, places=self.remembered.places
        )
        by_provider = {one.provider.id: it for one, it in zip(self.deployments, self.adapters, strict=True)}
        counter = CharacterCounter()
        self.recall = Recall(clock, DictCache(), always(LocalEmbedder()), b"salt")
        self.pipeline = Pipeline(
            Dispatcher(by_provider, keepers, SchemaAnswerChecker(), counter, clock),
            lambda asked: judged(),
            self.remembered.memory,
            governing,
            guards(self.telemetry),
            self.ledger,
            self.telemetry,
            counter,
            clock,
            CountingIds(),
            self.recall,
        )

    def call(self, text: str = QUESTION, **changes: Any) -> Call:
        policy = snapshot(*self.deployments, resilience=STRICT, caching=Caching(ON))
        return call(policy, 1e6, request=request(text), tenant="shop", **changes)

    async def ask(self, text: str = QUESTION, **changes: Any) -> Any:
        return await self.pipeline.complete(self.call(text, **changes))

    @property
    def asked(self) -> list[int]:
        """How often each deployment was asked."""
        return [len(adapter.calls) for adapter in self.adapters]


def in_house(steps: Callable[[House], Awaitable[None]], *scripts: Sequence[Step], **changes: Any) -> None:
    async def go() -> None:
        house = House(scripts or (answers("Like this."),), **changes)
        house.recall.start()
        await steps(house)
        await house.recall.close()

    in_virtual_time(go())


def test_nothing_is_asked_or_reserved_for_a_hit() -> None:
    async def steps(house: House) -> None:
        first, hit = await house.ask(), await house.ask()
        assert (first.cache, hit.cache) == (MISS, EXACT)
        assert house.asked == [1]
        assert house.ledger.reservations == 1
        assert hit.reply.text == first.reply.text == "Like this."
        assert hit.decision.id != first.decision.id
        assert len(house.remembered.decided.kept) == 2

    in_house(steps)


def test_a_hit_is_streamed_in_one_go() -> None:
    async def steps(house: House) -> None:
        await house.ask()
        events = [event async for event in house.pipeline.stream(house.call("how can I reset my password"))]
        assert [type(event) for event in events] == [Decided, Relay, Completed]
        assert events[-1].completion.cache is SEMANTIC  # type: ignore[union-attr]
        assert house.asked == [1]

    in_house(steps)


def test_a_reader_who_leaves_keeps_nothing() -> None:
    async def steps(house: House) -> None:
        events = house.pipeline.stream(house.call())
        async for event in events:
            if isinstance(event, Relay):
                break
        await events.aclose()
        assert (await house.ask()).cache is MISS

    in_house(steps)


@pytest.mark.parametrize("text", ["What is the balance of jane@example.com?", f"Please {ATTACK} and reset it."])
def test_what_the_guards_found_something_in_goes_past_the_cache(text: str) -> None:
    async def steps(house: House) -> None:
        assert [(await house.ask(text)).cache for _ in range(2)] == [BYPASS, BYPASS]
        assert house.asked == [2]

    in_house(steps)


def test_an_answer_with_somebodys_data_is_not_kept() -> None:
    async def steps(house: House) -> None:
        assert [(await house.ask()).cache for _ in range(2)] == [MISS, MISS]

    in_house(steps, answers("Write to jane@example.com."))


def test_it_is_given_while_its_deployment_is_down() -> None:
    async def steps(house: House) -> None:
        await house.ask()
        with pytest.raises(Exception, match="failed"):
            await house.ask("Something else?")
        hit = await house.ask()
        assert (hit.cache, hit.answered_by.deployment.id) == (EXACT, "d0")

    in_house(steps, then=[DOWN])


def test_who_was_stopped_does_not_answer_out_of_it_either() -> None:
    stopped = Control(kill_switches=frozenset({KillSwitch(KillScope.PROVIDER, "d0-provider", "")}))

    async def steps(house: House) -> None:
        assert (await house.ask()).answered_by.deployment.id == "d0"
        house.control = stopped
        other = await house.ask()
        assert (other.cache, other.answered_by.deployment.id) == (MISS, "d1")
        house.control = Control()
        again = await house.ask()
        # What was asked last counts; who answered is told, for it is not who would be asked now.
        assert (again.cache, again.answered_by.deployment.id) == (EXACT, "d1")
        assert [warning.code for warning in again.warnings] == ["cached"]

    in_house(steps, answers("d0 says"), answers("d1 says"))


def test_an_error_of_the_decision_is_one_with_and_without_the_cache() -> None:
    stopped = Control(kill_switches=frozenset({KillSwitch(KillScope.PROVIDER, "d0-provider", "")}))

    async def steps(house: House) -> None:
        await house.ask()
        house.control = stopped
        with pytest.raises(NoEligibleDeployment):
            await house.ask()

    in_house(steps)


def test_a_decision_can_be_followed_to_a_hit() -> None:
    async def steps(house: House) -> None:
        await house.ask()
        decision = await house.pipeline.route(house.call())
        hit = await house.ask(decision_id=decision.id)
        assert (hit.cache, hit.decision.id) == (EXACT, decision.id)

    in_house(steps)


def test_a_hit_can_be_judged_by_its_caller() -> None:
    async def steps(house: House) -> None:
        await house.ask()
        await house.ask(request_id="req_hit")
        house.remembered.feedback.judge("req_hit", "shop", 1.0, "")
        assert len(house.remembered.judged.kept) == 1

    in_house(steps)
