"""Who is asked again, how often, after which pause, and within which budget."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from kit.catalog import call, deployment, plan, snapshot
from kit.clock import LoopClock, in_virtual_time
from kit.dispatching import Dispatched, dispatch, doorkeepers
from kit.money import Money
from kit.scripted import CharacterCounter, ScriptedAdapter, Step, Wait, answers
from kit.watching import SeenTelemetry
from pointsman_server.adapters.answer_checker import SchemaAnswerChecker
from pointsman_server.domain.call import AttemptPurpose
from pointsman_server.domain.errors import AttemptsFailed, NobodyHealthy, Overloaded, RouterError
from pointsman_server.domain.faults import FAULT_RULES, FaultKind, ProviderFault
from pointsman_server.domain.ports import Operation
from pointsman_server.domain.resilience import BreakerPolicy, Resilience, RetryPolicy
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.dispatch_record import DispatchRecord
from pointsman_server.execution.health import Admission

FIRST, RETRY, FALLBACK = AttemptPurpose.FIRST, AttemptPurpose.RETRY, AttemptPurpose.FALLBACK
DOWN = ProviderFault(FaultKind.UNAVAILABLE, "down")
AGAIN = sorted((kind for kind, rule in FAULT_RULES.items() if rule.retry_here), key=str)
NOT_AGAIN = sorted((kind for kind, rule in FAULT_RULES.items() if not rule.retry_here), key=str)


def run(scripts: Mapping[str, tuple[Step, ...]], **options: Any) -> Dispatched:
    return dispatch([(deployment(name), steps) for name, steps in scripts.items()], **options)


def purposes(ran: Dispatched) -> list[AttemptPurpose]:
    return [attempt.purpose for attempt in ran.record.attempts]


def limited(seconds: float) -> ProviderFault:
    return ProviderFault(FaultKind.RATE_LIMITED, "limited", retry_after_seconds=seconds)


class TestWho:
    @pytest.mark.parametrize("kind", AGAIN)
    def test_a_passing_fault_is_worth_three_attempts(self, kind: FaultKind) -> None:
        ran = run({"a": (ProviderFault(kind, "x"),)})
        assert (ran.asked, purposes(ran)) == (["a", "a", "a"], [FIRST, RETRY, RETRY])
        assert isinstance(ran.error, AttemptsFailed)
        assert ran.error.kind is kind

    @pytest.mark.parametrize("kind", NOT_AGAIN)
    def test_a_lasting_one_is_not(self, kind: FaultKind) -> None:
        assert run({"a": (ProviderFault(kind, "x"),)}).asked == ["a"]

    def test_others_come_before_a_second_try(self) -> None:
        ran = run({"a": (DOWN,), "b": (DOWN,)})
        assert ran.asked[:2] == ["a", "b"]
        assert sorted(ran.asked) == ["a"] * 3 + ["b"] * 3
        assert purposes(ran) == [FIRST, FALLBACK, RETRY, RETRY, RETRY, RETRY]

    def test_six_attempts_are_the_most(self) -> None:
        assert len(run({name: (DOWN,) for name in "abcd"}).asked) == 6

    def test_only_those_with_a_passing_fault_are_asked_again(self) -> None:
        ran = run({"a": (ProviderFault(FaultKind.MODEL_MISSING, "x"),), "b": (DOWN,)})
        assert ran.asked == ["a", "b", "b", "b"]

    def test_the_policy_may_ask_for_less(self) -> None:
        policy = {"resilience": Resilience(retries=RetryPolicy(attempts_per_deployment=2, attempts_per_call=3))}
        ran = run({"a": (DOWN,), "b": (DOWN,)}, policy=policy)
        assert len(ran.asked) == 3
        assert max(ran.asked.count(name) for name in "ab") == 2

    def test_a_deployment_whose_breaker_opened_meanwhile_is_left_alone(self) -> None:
        policy = {"resilience": Resilience(breaker=BreakerPolicy(failures_in_a_row=2))}
        assert run({"a": (DOWN,)}, policy=policy).asked == ["a", "a"]


class TestPause:
    def test_it_grows_and_is_jittered(self) -> None:
        ran = run({"a": (DOWN,)})
        assert 0.0 < ran.seconds <= 0.2 + 0.4

    def test_a_retry_after_is_waited_for(self) -> None:
        ran = run({"a": (limited(7.0),)}, deadline=60.0)
        assert ran.asked == ["a", "a", "a"]
        assert ran.seconds == pytest.approx(14.0)

    def test_one_that_does_not_fit_the_deadline_is_not(self) -> None:
        ran = run({"a": (limited(86_400.0),)}, deadline=60.0)
        assert (ran.asked, ran.seconds) == (["a"], 0.0)
        assert isinstance(ran.error, AttemptsFailed)
        assert ran.error.retry_after_seconds == 86_400.0

    def test_nor_when_somebody_else_can_answer(self) -> None:
        ran = run({"a": (limited(2.0),), "b": answers("B")}, deadline=60.0)
        assert (ran.text, ran.seconds) == ("B", 0.0)

    def test_the_one_that_is_back_first_is_asked_first(self) -> None:
        ran = run({"a": (limited(9.0),), "b": (limited(2.0),)}, deadline=10.0)
        assert ran.asked[2] == "b"

    def test_no_pause_goes_beyond_the_deadline(self) -> None:
        ran = run({"a": (Wait(0.9), DOWN)}, deadline=1.0)
        assert ran.seconds <= 1.0


class TestBudget:
    def test_when_everything_fails_retries_do_not_double_the_load(self) -> None:
        """1,000 calls to a lone deployment that fails every time: at most 1,103 attempts."""
        adapter = ScriptedAdapter([DOWN])
        errors: list[RouterError] = []
        telemetry = SeenTelemetry()

        async def go() -> None:
            one, clock = deployment("a"), LoopClock()
            keepers = doorkeepers(clock, telemetry)
            dispatcher = Dispatcher({"a-provider": adapter}, keepers, SchemaAnswerChecker(), CharacterCounter(), clock)
            never_open = BreakerPolicy(failures_in_a_row=100_000, least_attempts=100_000)
            policy = snapshot(one, resilience=Resilience(breaker=never_open))

            async def ask() -> None:
                one_call = call(policy, 60.0)
                watch = telemetry.call(one_call, Operation.COMPLETE)
                try:
                    async for _ in dispatcher.run(
                        one_call, plan([one]), DispatchRecord(), watch, Money().cover, stream=False
                    ):
                        pass
                except RouterError as error:
                    errors.append(error)

            for _ in range(1_000):
                await asyncio.gather(ask(), asyncio.sleep(0.05))

        in_virtual_time(go())
        assert len(errors) == 1_000
        assert 1_050 <= len(adapter.calls) <= 1_103
        assert len(telemetry.retries) == len(adapter.calls) - 1_000
        assert set(telemetry.retries) == {(Operation.COMPLETE, 1), (Operation.COMPLETE, 2)}


class TestNobody:
    def test_when_all_places_are_taken_the_call_is_told_to_come_back(self) -> None:
        telemetry = SeenTelemetry()
        adapter = ScriptedAdapter([Wait(1.0), *answers("A")])
        errors: list[RouterError] = []

        async def go() -> None:
            one, clock = deployment("a", max_concurrent_calls=2), LoopClock()
            keepers = doorkeepers(clock, telemetry)
            dispatcher = Dispatcher({"a-provider": adapter}, keepers, SchemaAnswerChecker(), CharacterCounter(), clock)

            async def ask() -> None:
                one_call = call(snapshot(one), 60.0)
                watch = telemetry.call(one_call, Operation.COMPLETE)
                try:
                    async for _ in dispatcher.run(
                        one_call, plan([one]), DispatchRecord(), watch, Money().cover, stream=False
                    ):
                        pass
                except RouterError as error:
                    errors.append(error)

            await asyncio.gather(*(ask() for _ in range(5)))
            await ask()

        in_virtual_time(go())
        assert [type(error) for error in errors] == [Overloaded] * 3
        assert (len(adapter.calls), telemetry.sheds) == (3, ["deployment"] * 3)

    def test_a_breaker_that_opened_since_the_decision(self) -> None:
        telemetry, adapter = SeenTelemetry(), ScriptedAdapter(answers("A"))

        async def go() -> None:
            one, clock = deployment("a"), LoopClock()
            keepers = doorkeepers(clock, telemetry)
            policy = snapshot(one, resilience=Resilience(breaker=BreakerPolicy(failures_in_a_row=1)))
            admission = keepers.health.admit(one, policy)
            assert isinstance(admission, Admission)
            admission.failed(DOWN)
            dispatcher = Dispatcher({"a-provider": adapter}, keepers, SchemaAnswerChecker(), CharacterCounter(), clock)
            one_call = call(policy, 60.0)
            watch = telemetry.call(one_call, Operation.COMPLETE)
            with pytest.raises(NobodyHealthy) as caught:
                async for _ in dispatcher.run(
                    one_call, plan([one]), DispatchRecord(), watch, Money().cover, stream=False
                ):
                    pass
            assert caught.value.retry_after_seconds == 30.0

        in_virtual_time(go())
        assert adapter.calls == []
