from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from kit.catalog import call, deployment, judged, price, request, snapshot
from kit.clock import CountingIds, LoopClock, in_virtual_time
from kit.dispatching import doorkeepers
from kit.guards import guards
from kit.remembering import Remembered
from kit.scripted import END, CharacterCounter, Hang, ScriptedAdapter, Step, Wait, answers, says, used
from kit.watching import SeenTelemetry
from pointsman_server.adapters.answer_checker import SchemaAnswerChecker
from pointsman_server.adapters.stores.memory_counters import MemoryCounters
from pointsman_server.adapters.stores.memory_ledger import MemoryLedger
from pointsman_server.domain.call import (
    AttemptOutcome,
    Call,
    CallEvent,
    Completed,
    Completion,
    Decided,
    Decision,
    Relay,
)
from pointsman_server.domain.control import Control, KillScope, KillSwitch
from pointsman_server.domain.errors import (
    AttemptsFailed,
    DeadlineExceeded,
    DecisionExpired,
    KillSwitchEngaged,
    NoEligibleDeployment,
    Overloaded,
    RateLimited,
    RouteOnly,
    StreamInterrupted,
)
from pointsman_server.domain.errors import Step as Journey
from pointsman_server.domain.experience import Lesson
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.governance import Governance, RateLimit, TenantPolicy
from pointsman_server.domain.plan import Complexity, ExclusionReason, TaskType
from pointsman_server.domain.ports import Operation
from pointsman_server.domain.record import PlanSummary, summarise
from pointsman_server.domain.request import RoutingConstraints, Tier
from pointsman_server.domain.resilience import Resilience, RetryPolicy
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.governing import Governing
from pointsman_server.execution.health import Admission
from pointsman_server.execution.limits import Limits
from pointsman_server.execution.pipeline import Pipeline

DOWN = ProviderFault(FaultKind.UNAVAILABLE, "down")
LIMITED = ProviderFault(FaultKind.RATE_LIMITED, "x", retry_after_seconds=9.0)
ONCE = Resilience(RetryPolicy(attempts_per_deployment=1))


@dataclass
class WatchedLedger(MemoryLedger):
    """Remembers what was set aside for whom."""

    reserved: list[tuple[str, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def reserve(self, call: Call, worst_cost_micro_usd: int) -> Any:
        self.reserved.append((call.request_id, worst_cost_micro_usd))
        return super().reserve(call, worst_cost_micro_usd)


@dataclass
class House:
    """A pipeline over deployments `d0`, `d1`, … which follow scripts; the cheaper ones come first."""

    scripts: Sequence[Sequence[Step]]
    ledger: WatchedLedger = field(default_factory=WatchedLedger)
    counter: CharacterCounter = field(default_factory=CharacterCounter)
    complexity: Complexity = field(default_factory=judged)
    policy: dict[str, Any] = field(default_factory=lambda: {"resilience": ONCE})
    most_calls: int = 0
    control: Control = field(default_factory=Control)

    def __post_init__(self) -> None:
        self.adapters = [ScriptedAdapter(script) for script in self.scripts]
        self.clock = LoopClock()
        self.remembered = Remembered(self.clock)
        self.health = self.remembered.health
        prices = [(place + 1) * 1_000_000 for place in range(len(self.scripts))]
        self.deployments = [
            deployment(f"d{n}", of={"price": price(rate, rate)}, max_concurrent_calls=self.most_calls)
            for n, rate in enumerate(prices)
        ]
        by_provider = {one.provider.id: adapter for one, adapter in zip(self.deployments, self.adapters, strict=True)}
        self.telemetry = SeenTelemetry()
        governing = Governing(lambda: self.control, Limits(MemoryCounters(self.clock), self.clock, b"salt"))
        keepers = replace(
            doorkeepers(self.clock, self.telemetry),
            health=self.health,
            places=self.remembered.places,
            is_stopped=governing.is_stopped,
            may_hedge=governing.may_hedge,
        )
        dispatcher = Dispatcher(by_provider, keepers, SchemaAnswerChecker(), self.counter, self.clock)
        self.pipeline = Pipeline(
            dispatcher,
            lambda asked: self.complexity,
            self.remembered.memory,
            governing,
            guards(self.telemetry),
            self.ledger,
            self.telemetry,
            self.counter,
            self.clock,
            CountingIds(),
        )

    def call(self, deadline: float = 1e6, **changes: Any) -> Call:
        """A call of this house."""
        return call(snapshot(*self.deployments, **self.policy), deadline, **changes)

    def fails(self, place: int, fault: ProviderFault) -> None:
        """An attempt at this deployment fails elsewhere."""
        admission = self.health.admit(self.deployments[place], snapshot(*self.deployments))
        assert isinstance(admission, Admission)
        admission.failed(fault)

    @property
    def calls(self) -> int:
        """How many calls were made to providers."""
        return sum(len(adapter.calls) for adapter in self.adapters)

    def holds_nothing(self) -> bool:
        """Whether no money is set aside and no connection is open."""
        return not self.ledger.reserved_micro_usd and not any(adapter.open_exchanges for adapter in self.adapters)


def do(work: Callable[[], Awaitable[Any]]) -> Any:
    async def go() -> Any:
        return await work()

    return in_virtual_time(go())


def complete(house: House, **changes: Any) -> Completion:
    done = do(lambda: house.pipeline.complete(house.call(**changes)))
    assert isinstance(done, Completion)
    return done


def stream(house: House, **changes: Any) -> list[CallEvent]:
    events: list[CallEvent] = []

    async def go() -> None:
        async with aclosing(house.pipeline.stream(house.call(**changes))) as running:
            async for event in running:
                events.append(event)

    in_virtual_time(go())
    return events


class TestRoute:
    def test_it_decides_and_nothing_else(self) -> None:
        house = House([answers("A"), answers("B")])
        decision = do(lambda: house.pipeline.route(house.call()))
        assert [one.deployment.id for one in decision.plan.candidates] == ["d0", "d1"]
        assert (decision.id, decision.latency_seconds) == ("dec_1", 0.0)
        assert (house.calls, house.ledger.reserved, house.ledger.booked_micro_usd) == (0, [], 0)

    def test_health_is_looked_at(self) -> None:
        house = House([answers("A"), answers("B")])

        async def go() -> Any:
            house.fails(0, LIMITED)
            return await house.pipeline.route(house.call())

        decision = in_virtual_time(go())
        assert [one.deployment_id for one in decision.plan.rejections] == ["d0"]

    @pytest.mark.parametrize("deadline", [0.0, -1.0])
    def test_too_late(self, deadline: float) -> None:
        house = House([answers("A")])
        with pytest.raises(DeadlineExceeded) as caught:
            do(lambda: house.pipeline.route(house.call(deadline)))
        assert caught.value.step is Journey.DECIDE


class TestComplete:
    def test_the_whole_answer(self) -> None:
        house = House([answers("Hello")])
        done = complete(house)
        assert (done.reply.text, done.request_id, done.cost_micro_usd) == ("Hello", "req_test", 150)
        assert [attempt.outcome for attempt in done.attempts] == [AttemptOutcome.SUCCEEDED]
        assert not house.adapters[0].calls[0].stream
        assert house.holds_nothing()

    def test_money_is_set_aside_for_the_dearest_candidate_and_the_cost_is_booked(self) -> None:
        house = House([answers("A"), answers("B")])
        done = complete(house)
        dearest = max(one.worst_cost_micro_usd for one in done.decision.plan.candidates)
        assert house.ledger.reserved == [("req_test", dearest)]
        assert house.ledger.booked_micro_usd == done.cost_micro_usd == 150

    def test_a_fallback_is_booked_with_what_the_first_cost(self) -> None:
        house = House([(used(10, 0), DOWN), answers("B")])
        done = complete(house)
        assert done.reply.text == "B"
        assert house.ledger.booked_micro_usd == done.cost_micro_usd == 10 + 300

    def test_a_failure_books_what_was_reported(self) -> None:
        house = House([(used(10, 5), DOWN), (DOWN,)])
        with pytest.raises(AttemptsFailed):
            complete(house)
        assert house.ledger.booked_micro_usd == 15
        assert house.holds_nothing()

    def test_nobody_to_ask_sets_nothing_aside(self) -> None:
        house = House([answers("A")])
        limits = RoutingConstraints(denied_deployments=frozenset({"d0"}))
        with pytest.raises(NoEligibleDeployment):
            complete(house, request=request(constraints=limits))
        assert (house.ledger.reserved, house.calls) == ([], 0)

    def test_a_deadline_in_the_middle_books_what_was_reported(self) -> None:
        house = House([(used(8, None), Hang())])
        with pytest.raises(DeadlineExceeded):
            complete(house, deadline=5.0)
        assert house.ledger.booked_micro_usd == 8
        assert house.holds_nothing()

    def test_an_unforeseen_error_holds_nothing_either(self) -> None:
        house = House([(used(8, None), RuntimeError("bug"))])
        with pytest.raises(RuntimeError, match="bug"):
            complete(house)
        assert house.ledger.booked_micro_usd == 8
        assert house.holds_nothing()


class TestStream:
    def test_the_decision_first_the_whole_answer_last(self) -> None:
        house = House([(says("Hel"), says("lo"), used(100, 50), *answers("!"))])
        events = stream(house)
        assert [type(event) for event in events] == [Decided, Relay, Relay, Relay, Completed]
        last = events[-1]
        assert isinstance(last, Completed)
        assert last.completion.reply.text == "Hello!"
        assert house.ledger.booked_micro_usd == last.completion.cost_micro_usd == 150
        assert house.holds_nothing()

    def test_it_tells_the_same_as_a_whole_answer(self) -> None:
        last = stream(House([answers("Hello")]))[-1]
        assert isinstance(last, Completed)
        whole = complete(House([answers("Hello")]))
        assert (last.completion.reply, last.completion.usage) == (whole.reply, whole.usage)

    def test_an_interruption_books_what_was_reported(self) -> None:
        house = House([(says("Hel"), used(100, 3), DOWN)])
        with pytest.raises(StreamInterrupted) as caught:
            stream(house)
        assert house.ledger.booked_micro_usd == caught.value.cost_micro_usd == 103
        assert house.holds_nothing()


def leave(house: House, seconds: float, work: Callable[[], Awaitable[Any]]) -> None:
    """Cancels the work after so long; the check is made at once, before any clean-up in the background."""

    async def go() -> None:
        task = asyncio.ensure_future(work())
        await asyncio.sleep(seconds)
        assert house.ledger.reserved_micro_usd > 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert house.holds_nothing()

    in_virtual_time(go())


class TestLeaving:
    def test_a_cancelled_answer(self) -> None:
        house = House([(used(20, None), Wait(5.0), *answers("x"))])
        leave(house, 2.0, lambda: house.pipeline.complete(house.call()))
        assert house.ledger.booked_micro_usd == 20

    def test_a_cancelled_stream(self) -> None:
        house = House([(used(20, None), says("x"), Hang())])

        async def consume() -> None:
            async with aclosing(house.pipeline.stream(house.call())) as events:
                async for _ in events:
                    pass

        leave(house, 2.0, consume)
        assert house.ledger.booked_micro_usd == 20 + 1

    def test_a_stream_closed_between_events(self) -> None:
        house = House([(used(20, None), says("x"), Hang())])

        async def go() -> None:
            events = house.pipeline.stream(house.call())
            assert isinstance(await anext(events), Decided)
            assert isinstance(await anext(events), Relay)
            assert house.ledger.reserved_micro_usd > 0
            await events.aclose()
            assert house.holds_nothing()

        in_virtual_time(go())
        assert house.ledger.booked_micro_usd == 20 + 1

    def test_what_was_seen_is_paid_for_even_if_nothing_was_reported(self) -> None:
        """Hanging up one piece before the end is no way to get an answer for nothing."""
        house = House([(says("12345"), Hang())])

        async def go() -> None:
            async with aclosing(house.pipeline.stream(house.call())) as events:
                assert isinstance(await anext(events), Decided)

        in_virtual_time(go())
        assert house.ledger.booked_micro_usd > 5


class TestWatching:
    def test_an_answer(self) -> None:
        house = House([(DOWN,), answers("B")])
        done = complete(house)
        (seen,) = house.telemetry.calls
        assert (seen.operation, seen.decisions, seen.completion) == (Operation.COMPLETE, [done.decision], done)
        assert [(one.deployment_id, one.purpose.value) for one in seen.attempts] == [
            ("d0", "first"),
            ("d1", "fallback"),
        ]
        assert [one.account and one.account.outcome for one in seen.attempts] == [
            AttemptOutcome.FAILED,
            AttemptOutcome.SUCCEEDED,
        ]
        assert (seen.error, seen.first_contents) == (None, 0)

    def test_a_stream_tells_when_the_first_piece_goes_out(self) -> None:
        house = House([answers("A")])
        stream(house)
        assert (house.telemetry.calls[0].first_contents, house.telemetry.calls[0].error) == (1, None)

    def test_a_refusal(self) -> None:
        house = House([answers("A")])
        with pytest.raises(NoEligibleDeployment):
            complete(house, request=request(constraints=RoutingConstraints(denied_deployments=frozenset({"d0"}))))
        (seen,) = house.telemetry.calls
        assert isinstance(seen.error, NoEligibleDeployment)
        assert (seen.decisions, seen.completion) == ([], None)

    def test_a_decision_alone(self) -> None:
        house = House([answers("A")])
        decision = do(lambda: house.pipeline.route(house.call()))
        (seen,) = house.telemetry.calls
        assert (seen.operation, seen.decisions, seen.error) == (Operation.ROUTE, [decision], None)

    def test_telemetrys_headers_go_to_the_provider(self) -> None:
        house = House([answers("A")])
        house.telemetry.headers = {"traceparent": "ours"}
        complete(house, headers={"traceparent": "the caller's"})
        assert house.adapters[0].calls[0].headers == {"traceparent": "ours"}

    def test_without_any_the_callers_trace_context_does(self) -> None:
        house = House([answers("A")])
        complete(house, headers={"traceparent": "the caller's"})
        assert house.adapters[0].calls[0].headers == {"traceparent": "the caller's"}


class TestPlaces:
    def test_a_full_deployment_is_left_out_of_decisions(self) -> None:
        house = House([(Wait(1.0), *answers("A")), answers("B")], most_calls=1)

        async def go() -> Decision:
            first = asyncio.ensure_future(house.pipeline.complete(house.call()))
            await asyncio.sleep(0.5)
            decision = await house.pipeline.route(house.call())
            await first
            return decision

        decision = in_virtual_time(go())
        assert [(one.deployment_id, one.reason) for one in decision.plan.rejections] == [("d0", ExclusionReason.BUSY)]

    def test_when_all_are_full_callers_are_told_to_come_back(self) -> None:
        house = House([(Wait(1.0), *answers("A"))], most_calls=1)

        async def go() -> None:
            first = asyncio.ensure_future(house.pipeline.complete(house.call()))
            await asyncio.sleep(0.5)
            with pytest.raises(Overloaded):
                await house.pipeline.complete(house.call())
            await first

        in_virtual_time(go())


def test_many_calls_at_once_keep_their_accounts_apart() -> None:
    house = House([(Wait(1.0), *answers("Hello"))])

    async def go() -> list[Completion]:
        return await asyncio.gather(*(house.pipeline.complete(house.call()) for _ in range(20)))

    done = in_virtual_time(go())
    assert {one.reply.text for one in done} == {"Hello"}
    assert len({one.decision.id for one in done}) == 20
    assert house.ledger.booked_micro_usd == 20 * 150
    assert house.holds_nothing()


class TestCounting:
    """Loading what counting needs takes time, so it happens only where something must be counted, and in a thread."""

    async def test_reported_usage_needs_none(self) -> None:
        house = House([answers("Hello")], counter=CharacterCounter(is_ready=False))
        await house.pipeline.complete(house.call())
        assert house.counter.warmed_in == []

    async def test_a_gap_does(self) -> None:
        house = House([(says("Hello"), END)], counter=CharacterCounter(is_ready=False))
        done = await house.pipeline.complete(house.call())
        assert (done.usage.output_tokens, done.estimated) == (5, True)
        assert house.counter.warmed_in
        assert threading.current_thread() not in house.counter.warmed_in

    async def test_so_does_an_interruption(self) -> None:
        house = House([(says("Hel"), DOWN)], counter=CharacterCounter(is_ready=False))
        with pytest.raises(StreamInterrupted) as caught:
            async for _ in house.pipeline.stream(house.call()):
                pass
        assert caught.value.output_tokens == 3
        assert threading.current_thread() not in house.counter.warmed_in


class TestFollowing:
    """A decision that `route` gave, named by a later call."""

    @staticmethod
    def route(house: House, **changes: Any) -> str:
        return str(do(lambda: house.pipeline.route(house.call(request_digest=b"same", **changes))).id)

    def test_the_plan_is_followed_and_not_made_again(self) -> None:
        house = House([answers("A"), answers("B")])
        named = self.route(house)
        done = complete(house, request_digest=b"same", decision_id=named)
        assert done.decision.id == named
        assert len(house.remembered.decided.kept) == 1

    def test_a_stream_follows_it_too(self) -> None:
        house = House([answers("A")])
        named = self.route(house)
        first = stream(house, request_digest=b"same", decision_id=named)[0]
        assert isinstance(first, Decided)
        assert first.decision.id == named

    def test_health_that_changed_meanwhile_counts(self) -> None:
        house = House([answers("A"), answers("B")])
        named = self.route(house)

        async def go() -> Completion:
            house.fails(0, LIMITED)
            return await house.pipeline.complete(house.call(request_digest=b"same", decision_id=named))

        assert in_virtual_time(go()).answered_by.deployment.id == "d1"

    @pytest.mark.parametrize("changes", [{"decision_id": "dec_99"}, {"request_digest": b"other"}])
    def test_what_cannot_be_followed_calls_nobody(self, changes: dict[str, Any]) -> None:
        house = House([answers("A")])
        asked = {"decision_id": self.route(house), "request_digest": b"same", **changes}
        with pytest.raises(DecisionExpired):
            complete(house, **asked)
        with pytest.raises(DecisionExpired):
            stream(house, **asked)
        assert (house.calls, house.ledger.reserved) == (0, [])

    def test_only_routes_can_be_named(self) -> None:
        house = House([answers("A")])
        named = complete(house, request_digest=b"same").decision.id
        with pytest.raises(DecisionExpired):
            complete(house, request_digest=b"same", decision_id=named)


class TestRecords:
    def test_every_decision_is_recorded_with_what_came_of_it(self) -> None:
        house = House([answers("A"), answers("B")])
        done = complete(house)
        (record,) = house.remembered.decided.kept
        assert (record.decision_id, record.request_id, record.policy_version) == ("dec_1", "req_test", "v1")
        assert record.outcome == summarise(done.decision.plan)
        assert record.outcome.chosen == "d0"
        assert record.decided_at == house_time()
        assert record.circumstances.facts.complexity == house.complexity

    def test_refusals_too(self) -> None:
        house = House([answers("A")])
        with pytest.raises(NoEligibleDeployment):
            complete(house, request=request(constraints=RoutingConstraints(denied_deployments=frozenset({"d0"}))))
        (record,) = house.remembered.decided.kept
        assert record.outcome == PlanSummary(refusal="NoEligibleDeployment")

    def test_no_word_of_the_prompt_is_in_them(self) -> None:
        house = House([answers("canary of the answer")])
        complete(house, request=request("canary of the prompt", session_id="canary-session", end_user="canary-user"))
        assert "canary" not in str(house.remembered.decided.kept)


def house_time() -> float:
    async def now() -> float:
        return LoopClock().now()

    return in_virtual_time(now())


class TestSessions:
    TURN = request(session_id="s")

    def test_the_next_turn_goes_where_the_last_went(self) -> None:
        house = House([(DOWN,), answers("B")])

        async def go() -> list[str]:
            first = await house.pipeline.complete(house.call(request=self.TURN))
            second = await house.pipeline.route(house.call(request=self.TURN))
            other = await house.pipeline.route(house.call(request=request(session_id="t")))
            return [first.answered_by.deployment.id, *nearest_to_last(second), *nearest_to_last(other)]

        def nearest_to_last(decision: Decision) -> list[str]:
            found = decision.plan.candidates
            return [one.deployment.id for one in found if "affinity" in {part.name for part in one.score_parts}]

        assert in_virtual_time(go()) == ["d1", "d1"]

    def test_a_decision_alone_is_no_turn(self) -> None:
        house = House([answers("A")])
        do(lambda: house.pipeline.route(house.call(request=self.TURN)))
        do(lambda: house.pipeline.route(house.call(request=self.TURN)))
        assert {one.circumstances.session_deployment_id for one in house.remembered.decided.kept} == {""}


def condemn(house: House) -> None:
    async def judge() -> None:
        house.remembered.feedback.judge("req_test", "", 0.0, "")

    do(judge)


class TestVerdicts:
    @staticmethod
    def house(**policy: Any) -> House:
        complexity = judged(Tier.LIGHT, task=TaskType.CODE)
        return House([answers("A"), answers("B")], complexity=complexity, policy=policy)

    def test_an_answer_can_be_judged_for_what_it_was_asked(self) -> None:
        house = self.house()
        complete(house)
        condemn(house)
        (verdict,) = house.remembered.judged.kept
        assert verdict.lesson == Lesson("d0-model", TaskType.CODE, Tier.LIGHT)

    @pytest.mark.parametrize("learns", [True, False])
    def test_verdicts_change_what_is_expected_unless_that_is_off(self, learns: bool) -> None:
        house = self.house(learn_from_feedback=learns)
        before = complete(house).answered_by.expected_quality
        condemn(house)
        after = complete(house).answered_by.expected_quality
        assert after == pytest.approx(before * 20 / 21 if learns else before)


def stopping(scope: KillScope, target: str = "") -> Control:
    return Control(kill_switches=frozenset({KillSwitch(scope, target)}))


class TestGoverning:
    """What operators and limits say; each has tests of its own, here is that they are asked."""

    @pytest.mark.parametrize("scope", [KillScope.GLOBAL, KillScope.TENANT])
    def test_a_kill_switch_stops_calls_before_anything_is_spent(self, scope: KillScope) -> None:
        house = House([answers("A")], control=stopping(scope, "t" if scope is KillScope.TENANT else ""))
        for work in (house.pipeline.complete, house.pipeline.route):
            with pytest.raises(KillSwitchEngaged):
                do(lambda work=work: work(house.call(tenant="t")))  # type: ignore[misc]
        with pytest.raises(KillSwitchEngaged):
            stream(house, tenant="t")
        assert (house.calls, house.ledger.reserved) == (0, [])

    def test_that_of_another_tenant_does_not(self) -> None:
        house = House([answers("A")], control=stopping(KillScope.TENANT, "other"))
        assert complete(house, tenant="t").reply.text == "A"

    def test_a_stopped_provider_is_left_out_with_its_reason(self) -> None:
        house = House([answers("A"), answers("B")], control=stopping(KillScope.PROVIDER, "d0-provider"))
        decision = do(lambda: house.pipeline.route(house.call()))
        assert [(one.deployment_id, one.reason) for one in decision.plan.rejections] == [
            ("d0", ExclusionReason.KILL_SWITCH)
        ]
        assert complete(house).reply.text == "B"

    def test_one_that_is_stopped_after_the_decision_is_not_asked(self) -> None:
        house = House([(Wait(1.0), DOWN), answers("B"), answers("C")])

        async def go() -> Completion:
            running = asyncio.ensure_future(house.pipeline.complete(house.call()))
            await asyncio.sleep(0.5)
            house.control = stopping(KillScope.PROVIDER, "d1-provider")
            return await running

        assert in_virtual_time(go()).reply.text == "C"

    def test_flags_change_what_is_decided(self) -> None:
        house = House([answers("A")], control=Control(flags={("max_output_tokens_cap", ""): 7}))
        assert complete(house).answered_by.max_output_tokens == 7

    def test_a_flag_leaves_decisions_unrecorded(self) -> None:
        house = House([answers("A")], control=Control(flags={("record_decisions", "t"): False}))
        complete(house, tenant="t")
        assert house.remembered.decided.kept == []

    def test_a_flag_leaves_route_alone(self) -> None:
        house = House([answers("A")], control=Control(flags={("route_only", "t"): True}))
        assert do(lambda: house.pipeline.route(house.call(tenant="t"))).plan.candidates
        with pytest.raises(RouteOnly):
            complete(house, tenant="t")

    def test_requests_are_counted(self) -> None:
        limited = Governance({"t": TenantPolicy(limit=RateLimit(requests_per_minute=2))})
        house = House([answers("A")], policy={"resilience": ONCE, "governance": limited})

        async def go() -> None:
            await house.pipeline.complete(house.call(tenant="t"))
            await house.pipeline.route(house.call(tenant="t"))
            with pytest.raises(RateLimited):
                await house.pipeline.complete(house.call(tenant="t"))

        in_virtual_time(go())
        assert house.calls == 1

    def test_tokens_are_counted_and_what_was_not_used_comes_back(self) -> None:
        limited = Governance({"t": TenantPolicy(limit=RateLimit(tokens_per_minute=6_000))})
        house = House([answers("A")], policy={"resilience": ONCE, "governance": limited})

        async def go() -> None:
            for _ in range(12):
                await house.pipeline.complete(house.call(tenant="t"))

        in_virtual_time(go())
        assert house.calls == 12
