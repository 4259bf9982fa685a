"""The journey of texts that become vectors, batch by batch, in virtual time."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from kit.catalog import call, deployment, model, price, snapshot
from kit.clock import CountingIds, LoopClock, in_virtual_time
from kit.dispatching import doorkeepers
from kit.guards import ATTACK, guards
from kit.remembering import Remembered
from kit.scripted import CharacterCounter
from kit.watching import SeenTelemetry
from pointsman_server.adapters.answer_checker import SchemaAnswerChecker
from pointsman_server.adapters.stores.memory_counters import MemoryCounters
from pointsman_server.adapters.stores.memory_ledger import MemoryLedger
from pointsman_server.domain.call import AttemptOutcome, AttemptPurpose, Call, Completion
from pointsman_server.domain.catalog import EmbeddingTraits
from pointsman_server.domain.control import Control, KillScope, KillSwitch
from pointsman_server.domain.errors import (
    AttemptsFailed,
    BudgetExceeded,
    DeadlineExceeded,
    KillSwitchEngaged,
    NoEligibleDeployment,
    PromptRejected,
    RateLimited,
)
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.governance import Governance, Period, RateLimit, TenantPolicy
from pointsman_server.domain.ports import Operation, ProviderCall
from pointsman_server.domain.reply import Embedded, Finished, FinishReason, ReplyEvent, Usage, UsageReport
from pointsman_server.domain.request import CompletionRequest, DataClass, EmbeddingInput, RoutingConstraints
from pointsman_server.domain.resilience import Resilience, RetryPolicy
from pointsman_server.domain.safety import InjectionMode, InjectionPolicy, Safety, SensitiveMode, SensitivePolicy
from pointsman_server.execution.batches import BATCHES_AT_ONCE
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.embedding import EmbeddingPipeline
from pointsman_server.execution.governing import Governing
from pointsman_server.execution.limits import Limits

DOWN = ProviderFault(FaultKind.UNAVAILABLE, "down")
REFUSED = ProviderFault(FaultKind.INVALID_REQUEST, "no")
TRAITS = EmbeddingTraits(dimensions=1, max_inputs_per_call=2)
VECTORS = model("vec", embedding=TRAITS, capabilities=frozenset(), price=price(1_000_000, 0), max_output_tokens=0)


def usage_of(texts: Sequence[str]) -> Usage:
    return Usage(input_tokens=sum(map(len, texts)), output_tokens=0)


@dataclass
class Provider:
    """Gives each text its length as a vector, after `seconds`; `faults` are those of its calls, by their number."""

    faults: dict[int, ProviderFault] = field(default_factory=dict)
    seconds: float = 1.0
    usage: Callable[[Sequence[str]], Usage] = usage_of
    calls: list[ProviderCall] = field(default_factory=list)
    running: int = 0
    most_running: int = 0

    async def exchange(self, asked: ProviderCall) -> AsyncGenerator[Sequence[ReplyEvent], None]:
        assert asked.embedding is not None
        number, texts = len(self.calls), asked.embedding.texts
        self.calls.append(asked)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.seconds)
            if number in self.faults:
                raise ProviderFault(self.faults[number].kind, "x")
            vectors = Embedded(tuple(array("f", [len(text)]) for text in texts))
            yield vectors, UsageReport(self.usage(texts)), Finished(FinishReason.STOP)
        finally:
            self.running -= 1

    async def close(self) -> None:
        """Nothing is open."""


class TightLedger(MemoryLedger):
    """Sets no more aside than there is."""

    left_micro_usd: int | None = None

    def reserve(self, call: Call, worst_cost_micro_usd: int) -> Any:
        self.asked = worst_cost_micro_usd
        if self.left_micro_usd is not None and worst_cost_micro_usd > self.left_micro_usd:
            raise BudgetExceeded("month", Period.MONTH)
        return super().reserve(call, worst_cost_micro_usd)


class House:
    """A pipeline over the deployments `d0` and `d1` of one model."""

    def __init__(self, *providers: Provider, **changes: Any) -> None:
        self.providers = providers or (Provider(),)
        self.clock, self.telemetry, self.ledger = LoopClock(), SeenTelemetry(), TightLedger()
        self.control = Control()
        self.policy = {"resilience": Resilience(RetryPolicy(attempts_per_deployment=1)), **changes.pop("policy", {})}
        remembered = Remembered(self.clock)
        self.health = remembered.health
        self.places = [
            replace(deployment(f"d{number}", **changes), model=VECTORS) for number in range(len(self.providers))
        ]
        governing = Governing(lambda: self.control, Limits(MemoryCounters(self.clock), self.clock, b"salt"))
        keepers = replace(
            doorkeepers(self.clock, self.telemetry),
            health=self.health,
            places=remembered.places,
            is_stopped=governing.is_stopped,
        )
        adapters: Any = {one.provider.id: it for one, it in zip(self.places, self.providers, strict=True)}
        counter = CharacterCounter()
        dispatcher = Dispatcher(adapters, keepers, SchemaAnswerChecker(), counter, self.clock)
        self.pipeline = EmbeddingPipeline(
            dispatcher,
            remembered.memory,
            governing,
            guards(self.telemetry),
            self.ledger,
            self.telemetry,
            counter,
            self.clock,
            CountingIds(),
        )

    def call(self, *texts: str, deadline: float = 1e6, **request: Any) -> Call:
        policy = snapshot(*self.places, **self.policy)
        asked = CompletionRequest((), **request)
        return call(policy, deadline, request=asked, embedding=EmbeddingInput(texts))

    async def embed(self, *texts: str, **changes: Any) -> Completion:
        return await self.pipeline.embed(self.call(*texts, **changes))


def numbered(count: int) -> list[str]:
    return ["x" * number for number in range(1, count + 1)]


def lengths(completion: Completion) -> list[float]:
    return [vector[0] for vector in completion.reply.vectors]


def run(work: Awaitable[Any]) -> Any:
    async def go() -> Any:
        return await work

    return in_virtual_time(go())


class TestBatches:
    def test_order_bounds_and_accounts(self) -> None:
        house = House()
        done: Completion = run(house.embed(*numbered(19)))
        (provider,) = house.providers
        assert lengths(done) == list(range(1, 20))
        assert len(provider.calls) == 10
        assert provider.most_running == BATCHES_AT_ONCE
        assert len(done.attempts) == 10
        assert done.usage.input_tokens == sum(range(1, 20)) == done.cost_micro_usd
        assert not done.estimated
        assert house.ledger.booked_micro_usd == done.cost_micro_usd
        assert house.ledger.reserved_micro_usd == 0
        assert house.ledger.asked >= done.cost_micro_usd
        (seen,) = house.telemetry.calls
        assert (seen.operation, seen.completion) == (Operation.EMBED, done)
        assert [one.account for one in seen.attempts] != []

    def test_the_first_goes_alone(self) -> None:
        async def watch() -> list[int]:
            house = House(Provider(seconds=1.0))
            task = asyncio.create_task(house.embed(*numbered(6)))
            seen = []
            for _ in range(2):
                await asyncio.sleep(0.9)
                seen.append(house.providers[0].running)
            await task
            return seen

        assert in_virtual_time(watch()) == [1, 2]

    def test_no_more_at_once_than_a_deployment_takes(self) -> None:
        house = House(max_concurrent_calls=1)
        done: Completion = run(house.embed(*numbered(9)))
        assert lengths(done) == list(range(1, 10))
        assert house.providers[0].most_running == 1

    def test_attempts_are_told_in_the_order_in_which_they_ended(self) -> None:
        house = House(Provider({1: DOWN, 2: DOWN}), Provider(seconds=0.5))
        done: Completion = run(house.embed(*numbered(8)))
        assert lengths(done) == list(range(1, 9))
        told = [(one.deployment.id, one.outcome) for one in done.attempts]
        assert told.count(("d0", AttemptOutcome.FAILED)) == 2
        assert told.count(("d1", AttemptOutcome.SUCCEEDED)) == 2
        (seen,) = house.telemetry.calls
        ended = [one.account for one in seen.attempts if one.account]
        assert len(ended) == len(done.attempts) == 6
        assert all(any(told is account for account in ended) for told in done.attempts)


class TestFailures:
    def test_falls_over_to_another_deployment_of_the_model(self) -> None:
        house = House(Provider({0: DOWN}), Provider())
        done: Completion = run(house.embed("a", "bb"))
        assert [(one.deployment.id, one.purpose) for one in done.attempts] == [
            ("d0", AttemptPurpose.FIRST),
            ("d1", AttemptPurpose.FALLBACK),
        ]
        assert done.answered_by.deployment.id == "d1"

    def test_retries_are_told_as_such(self) -> None:
        house = House(Provider({0: DOWN}), policy={"resilience": Resilience(RetryPolicy(attempts_per_deployment=2))})
        run(house.embed("a"))
        assert house.telemetry.retries == [(Operation.EMBED, 1)]

    def test_a_refused_first_batch_spares_the_others(self) -> None:
        house = House(Provider({0: REFUSED}))
        with pytest.raises(AttemptsFailed):
            run(house.embed(*numbered(9)))
        assert len(house.providers[0].calls) == 1

    def test_a_refused_later_batch_ends_the_others_and_what_was_answered_is_booked(self) -> None:
        silent = Provider({2: REFUSED}, usage=lambda texts: Usage(output_tokens=0))
        house = House(silent)
        with pytest.raises(AttemptsFailed) as caught:
            run(house.embed(*numbered(9)))
        assert caught.value.__cause__ is not None
        assert silent.running == 0
        assert house.ledger.booked_micro_usd > 0  # by our own count, for the provider gave none
        assert house.ledger.reserved_micro_usd == 0
        (seen,) = house.telemetry.calls
        assert isinstance(seen.error, AttemptsFailed)

    def test_the_deadline_ends_all(self) -> None:
        house = House(Provider(seconds=3.0))
        with pytest.raises(DeadlineExceeded):
            run(house.embed(*numbered(9), deadline=4.5))
        assert house.providers[0].running == 0

    def test_a_caller_who_leaves_ends_all(self) -> None:
        async def leave() -> House:
            house = House(Provider(seconds=2.0))
            task = asyncio.create_task(house.embed(*numbered(9)))
            await asyncio.sleep(3.0)
            assert house.providers[0].running == 4
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return house

        house = in_virtual_time(leave())
        assert house.providers[0].running == 0
        assert house.ledger.reserved_micro_usd == 0
        assert house.ledger.booked_micro_usd == 3  # the first batch: texts of one character and of two

    def test_no_texts_are_a_mistake_of_ours(self) -> None:
        house = House()
        with pytest.raises(ValueError, match="at least one text"):
            run(house.embed())


class TestCounts:
    @pytest.mark.parametrize("told", [Usage(output_tokens=0), Usage(input_tokens=7, output_tokens=0, implausible=True)])
    def test_what_is_missing_is_ours_and_marked(self, told: Usage) -> None:
        house = House(Provider(usage=lambda texts: told))
        done: Completion = run(house.embed("x" * 400, "y" * 40))
        assert done.estimated
        assert all(one.estimated for one in done.attempts)
        assert done.usage.input_tokens == 110  # a quarter of the bytes
        assert house.ledger.booked_micro_usd == done.cost_micro_usd == 110


class TestGuards:
    TEXTS = ("write to ann@example.org", f"the sign says: {ATTACK}")

    def test_what_is_sensitive_is_masked_and_what_is_hostile_is_only_text(self) -> None:
        safety = Safety(SensitivePolicy(mode=SensitiveMode.MASK), InjectionPolicy(mode=InjectionMode.BLOCK))
        house = House(policy={"safety": safety})
        done: Completion = run(house.embed(*self.TEXTS))
        assert done.redactions == {"EMAIL": 1}
        ((first, second),) = [asked.embedding.texts for asked in house.providers[0].calls if asked.embedding]
        assert "ann@example.org" not in first
        assert first.startswith("write to ")
        assert second == self.TEXTS[1]
        assert not house.providers[0].calls[0].messages

    def test_it_raises_the_data_class(self) -> None:
        safety = Safety(SensitivePolicy(mode=SensitiveMode.DETECT, raises_to=DataClass.CONFIDENTIAL))
        house = House(policy={"safety": safety})
        with pytest.raises(NoEligibleDeployment):
            run(house.embed(*self.TEXTS))
        assert run(house.embed(self.TEXTS[1]))

    def test_what_is_blocked_is_named(self) -> None:
        house = House(policy={"safety": Safety(SensitivePolicy(mode=SensitiveMode.BLOCK))})
        with pytest.raises(PromptRejected) as caught:
            run(house.embed("harmless", self.TEXTS[0]))
        assert [problem.field for problem in caught.value.problems] == ["inputs[1]"]
        assert not house.providers[0].calls


class TestGovernance:
    def test_money_comes_first(self) -> None:
        house = House()
        house.ledger.left_micro_usd = 10
        with pytest.raises(BudgetExceeded):
            run(house.embed("x" * 11))
        assert not house.providers[0].calls

    def test_a_fallback_is_booked_beside_the_other_batches(self) -> None:
        house = House(Provider({1: DOWN}), Provider())
        run(house.embed(*["xx"] * 6))
        assert house.ledger.booked_micro_usd == 12

    def test_limits_count_what_is_sent(self) -> None:
        limit = TenantPolicy(limit=RateLimit(tokens_per_minute=20))
        house = House(policy={"governance": Governance(others=limit)})
        run(house.embed("x" * 40))
        with pytest.raises(RateLimited):
            run(house.embed("x" * 40))

    def test_kill_switches_stop_all_or_a_provider(self) -> None:
        house = House(Provider(), Provider())
        house.control = Control(kill_switches=frozenset({KillSwitch(KillScope.PROVIDER, "d0-provider")}))
        done: Completion = run(house.embed("a"))
        assert done.answered_by.deployment.id == "d1"
        house.control = Control(kill_switches=frozenset({KillSwitch(KillScope.GLOBAL, "")}))
        with pytest.raises(KillSwitchEngaged):
            run(house.embed("a"))

    def test_constraints_hold(self) -> None:
        house = House()
        with pytest.raises(NoEligibleDeployment):
            run(house.embed("a", constraints=RoutingConstraints(regions=frozenset({"eu"}))))
