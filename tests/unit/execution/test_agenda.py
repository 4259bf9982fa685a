"""Who is asked next: small windows, wishes to be left alone, and what others did during a pause."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from kit.catalog import call, deployment, plan, request, snapshot
from kit.clock import LoopClock, in_virtual_time
from kit.dispatching import Dispatched, dispatch, doorkeepers
from kit.money import Money
from kit.scripted import CharacterCounter, ScriptedAdapter, Step, Wait, answers
from kit.stage import Stage
from kit.watching import SeenTelemetry
from kit.witness import Reader, WitnessedCall
from pointsman_server.adapters.answer_checker import SchemaAnswerChecker
from pointsman_server.domain.call import AttemptPurpose
from pointsman_server.domain.catalog import Timeouts
from pointsman_server.domain.errors import AnswerInvalid, AttemptsFailed
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.ports import Clock, Operation
from pointsman_server.domain.request import GenerationConfig
from pointsman_server.domain.resilience import HedgePolicy, Resilience, RetryPolicy
from pointsman_server.execution.agenda import Doorkeepers
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.dispatch_record import DispatchRecord
from pointsman_server.execution.health import Admission

DOWN = ProviderFault(FaultKind.UNAVAILABLE, "down")
TOO_LONG = ProviderFault(FaultKind.CONTEXT_WINDOW, "too long")
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


def run(scripts: Mapping[str, Sequence[Step]], windows: Mapping[str, int] | None = None, **options: Any) -> Dispatched:
    of = {name: {"context_window_tokens": size} for name, size in (windows or {}).items()}
    timeouts = Timeouts(first_token_seconds=50.0)
    return dispatch(
        [(deployment(name, of=of.get(name), timeouts=timeouts), s) for name, s in scripts.items()], **options
    )


def wish(kind: FaultKind, seconds: float) -> ProviderFault:
    return ProviderFault(kind, "later", retry_after_seconds=seconds)


class TestWindow:
    def test_no_second_try_where_the_input_is_known_not_to_fit(self) -> None:
        ran = run({"small": (DOWN,), "large": (TOO_LONG,)}, {"small": 1_000, "large": 2_000})
        assert ran.asked == ["small", "large"]
        assert isinstance(ran.error, AttemptsFailed)

    def test_one_that_would_not_be_asked_leaves_all_the_time_to_the_last(self) -> None:
        scripts = {"middle": (TOO_LONG,), "large": (Wait(8.0), *answers("A")), "small": answers("B")}
        ran = run(scripts, {"middle": 2_000, "large": 3_000, "small": 1_000}, deadline=10.0)
        assert (ran.asked, ran.text) == (["middle", "large"], "A")


class TestWish:
    @pytest.mark.parametrize("kind", [FaultKind.OVERLOADED, FaultKind.UNAVAILABLE, FaultKind.RATE_LIMITED])
    def test_the_time_that_a_provider_asks_for_is_waited(self, kind: FaultKind) -> None:
        ran = run({"a": (wish(kind, 7.0),)}, then={"a": answers("A")}, deadline=60.0)
        assert (ran.asked, ran.text, ran.seconds) == (["a", "a"], "A", 7.0)

    def test_it_is_counted_from_the_fault(self) -> None:
        scripts = {"a": (wish(FaultKind.OVERLOADED, 7.0),), "b": (Wait(5.0), TOO_LONG)}
        ran = run(scripts, {"a": 2_000, "b": 1_000}, then={"a": answers("A")}, deadline=60.0)
        assert (ran.asked, ran.text, ran.seconds) == (["a", "b", "a"], "A", 7.0)

    def test_one_that_does_not_fit_the_deadline_is_not_waited_for(self) -> None:
        ran = run({"a": (wish(FaultKind.OVERLOADED, 7.0),)}, deadline=5.0)
        assert (ran.asked, ran.seconds) == (["a"], 0.0)


class TestRepair:
    ASKED = request(generation=GenerationConfig(response_schema=SCHEMA))

    def test_it_is_an_attempt_like_others_where_they_are_counted(self) -> None:
        """Three at one deployment are the most; here two failed before the answer that does not fit."""
        adapter = Series([[DOWN], [DOWN], answers("no JSON"), answers('{"n": 1}')])
        record, error = lone(adapter, request=self.ASKED)
        assert isinstance(error, AnswerInvalid)
        assert len(record.attempts) == 3

    def test_without_time_for_it_the_answer_is_told_as_it_is(self) -> None:
        adapter = Series([[Wait(9.96), *answers("no JSON")]])
        record, error = lone(adapter, request=self.ASKED, deadline=10.0)
        assert isinstance(error, AnswerInvalid)
        assert (error.text, len(record.attempts)) == ("no JSON", 1)

    def test_a_policy_that_retries_nothing_has_it(self) -> None:
        once = {"resilience": Resilience(RetryPolicy(attempts_per_deployment=1))}
        ran = run({"a": answers("no JSON")}, then={"a": answers('{"n": 1}')}, policy=once, request=self.ASKED)
        assert ran.text == '{"n": 1}'


class Series(ScriptedAdapter):
    """Another script for every call."""

    def __init__(self, scripts: Sequence[Sequence[Step]]) -> None:
        super().__init__(scripts[0])
        self._scripts = iter(scripts)

    async def exchange(self, call: Any) -> AsyncGenerator[Any, None]:
        """See `ProviderAdapter.exchange`."""
        self.steps = next(self._scripts)
        async with aclosing(super().exchange(call)) as batches:
            async for batch in batches:
                yield batch


class TestHedge:
    def test_it_is_an_attempt_like_others_where_they_are_counted(self) -> None:
        """Two failed and the third is silent: with it there are three, and more there may not be."""
        silent = (Wait(5.0), *answers("C"))
        scripts: dict[str, Sequence[Step]] = {"a": (DOWN,), "b": (DOWN,), "c": silent, "d": answers("D")}
        all_four = [deployment(name) for name in scripts]
        policy = snapshot(*all_four, resilience=Resilience(RetryPolicy(1, 3), hedging=HedgePolicy(0.5, 1.0, 1)))

        async def go() -> WitnessedCall:
            stage = Stage(policy, lambda provider_call: scripts[provider_call.deployment.id], seed=7, close_seconds=0.0)
            stage.warm_up([0.1])
            seen = WitnessedCall(call(policy, 60.0), plan(all_four), True, stage.referee)
            await stage.serve(seen, Reader())
            stage.check_all()
            return seen

        seen = in_virtual_time(go())
        assert [attempt.deployment.id for attempt in seen.attempts] == ["a", "b", "c"]
        assert seen.record.reply is not None


class EarlyTimers:
    """A clock that is a little behind the timers of the event loop, as they are where they count in milliseconds."""

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return asyncio.get_running_loop().time() * 0.9999

    def now(self) -> float:
        """See `Clock.now`."""
        return self.monotonic()


def lone(adapter: ScriptedAdapter, clock: Clock | None = None, **changes: Any) -> tuple[DispatchRecord, object]:
    """What came of one call to one deployment."""
    record = DispatchRecord()

    async def go() -> object:
        return await ask(adapter, record, doorkeepers(clock or LoopClock(), SeenTelemetry()), clock, **changes)

    return record, in_virtual_time(go())


async def ask(
    adapter: ScriptedAdapter, record: DispatchRecord, keepers: Doorkeepers, clock: Clock | None = None, **changes: Any
) -> object:
    """Asks deployment "a" and returns the error, if any."""
    one = deployment("a", max_concurrent_calls=1)
    dispatcher = Dispatcher(
        {"a-provider": adapter}, keepers, SchemaAnswerChecker(), CharacterCounter(), clock or LoopClock()
    )
    one_call = call(snapshot(one), **{"deadline": 60.0, **changes})
    watch = SeenTelemetry().call(one_call, Operation.COMPLETE)
    try:
        async for _ in dispatcher.run(one_call, plan([one]), record, watch, Money().cover, stream=False):
            pass
    except (AttemptsFailed, AnswerInvalid) as error:
        return error
    return None


class TestAfterThePause:
    def test_timers_that_fire_early_do_not_make_it_come_too_early(self) -> None:
        adapter = Series([[wish(FaultKind.RATE_LIMITED, 7.0)], answers("A")])
        record, error = lone(adapter, EarlyTimers())
        assert error is None
        assert record.reply is not None
        assert record.reply.text == "A"

    def test_a_cooldown_that_grew_meanwhile_is_waited_for_too(self) -> None:
        record = DispatchRecord()
        adapter = Series([[wish(FaultKind.RATE_LIMITED, 2.0)], answers("A")])

        async def go() -> None:
            keepers = doorkeepers(LoopClock(), SeenTelemetry())
            one = deployment("a")
            beside = keepers.health.admit(one, snapshot(one))
            assert isinstance(beside, Admission)
            asking = asyncio.create_task(ask(adapter, record, keepers))
            await asyncio.sleep(1.0)
            beside.failed(wish(FaultKind.RATE_LIMITED, 4.0))
            assert await asking is None
            assert asyncio.get_running_loop().time() == pytest.approx(5.0)

        in_virtual_time(go())
        assert [attempt.purpose for attempt in record.attempts] == [AttemptPurpose.FIRST, AttemptPurpose.RETRY]

    def test_a_place_that_somebody_else_took_is_not_waited_for(self) -> None:
        record = DispatchRecord()
        adapter = Series([[wish(FaultKind.RATE_LIMITED, 2.0)], answers("A")])

        async def go() -> None:
            keepers = doorkeepers(LoopClock(), SeenTelemetry())
            asking = asyncio.create_task(ask(adapter, record, keepers))
            await asyncio.sleep(1.0)
            assert keepers.places.take(deployment("a", max_concurrent_calls=1)) is not None
            assert isinstance(await asking, AttemptsFailed)
            assert asyncio.get_running_loop().time() == pytest.approx(2.0)

        in_virtual_time(go())
        assert len(record.attempts) == 1

    def test_one_that_could_not_be_asked_before_goes_before_a_second_try(self) -> None:
        record = DispatchRecord()
        limited = ScriptedAdapter([wish(FaultKind.RATE_LIMITED, 5.0)])
        adapters = {"a-provider": limited, "b-provider": ScriptedAdapter(answers("B"))}

        async def go() -> None:
            clock, telemetry = LoopClock(), SeenTelemetry()
            keepers = doorkeepers(clock, telemetry)
            both = [deployment("a"), deployment("b", max_concurrent_calls=1)]
            taken = keepers.places.take(both[1])
            assert taken is not None
            asyncio.get_running_loop().call_later(1.0, taken.give_back)
            dispatcher = Dispatcher(adapters, keepers, SchemaAnswerChecker(), CharacterCounter(), clock)
            one_call = call(snapshot(*both), 60.0)
            watch = telemetry.call(one_call, Operation.COMPLETE)
            async for _ in dispatcher.run(one_call, plan(both), record, watch, Money().cover, stream=False):
                pass

        in_virtual_time(go())
        assert [(one.deployment.id, one.purpose) for one in record.attempts] == [
            ("a", AttemptPurpose.FIRST),
            ("b", AttemptPurpose.FALLBACK),
        ]
