"""A second deployment beside a silent first."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest

from kit.catalog import call, deployment, plan, snapshot
from kit.clock import LoopClock, in_virtual_time
from kit.dispatching import doorkeepers
from kit.money import Money
from kit.scripted import CharacterCounter, Hang, ScriptedAdapter, Step, Wait, answers, says
from kit.watching import SeenCall, SeenTelemetry
from pointsman_server.adapters.answer_checker import SchemaAnswerChecker
from pointsman_server.domain.call import AttemptOutcome, AttemptPurpose, FailedOver, Relay
from pointsman_server.domain.catalog import Timeouts
from pointsman_server.domain.errors import AttemptsFailed, DeadlineExceeded, RouterError
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.ports import Operation
from pointsman_server.domain.resilience import HedgePolicy, Resilience, RetryPolicy
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.dispatch_record import DispatchRecord
from pointsman_server.execution.health import Admission

FIRST, HEDGE, FALLBACK = AttemptPurpose.FIRST, AttemptPurpose.HEDGE, AttemptPurpose.FALLBACK
SUCCEEDED, FAILED, CANCELLED = AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED, AttemptOutcome.CANCELLED
DOWN = ProviderFault(FaultKind.UNAVAILABLE, "down")
USUAL_SECONDS = 0.5
TIMEOUTS = Timeouts(first_token_seconds=10.0, idle_seconds=4.0, total_seconds=60.0)


@dataclass
class Raced:
    """What came of a stream whose deployments usually begin within half a second."""

    adapters: list[ScriptedAdapter]
    telemetry: SeenTelemetry = field(default_factory=SeenTelemetry)
    record: DispatchRecord = field(default_factory=DispatchRecord)
    events: list[Relay | FailedOver] = field(default_factory=list)
    error: RouterError | None = None
    seconds: float = 0.0

    @property
    def course(self) -> list[tuple[str, AttemptPurpose, AttemptOutcome]]:
        """All attempts in the order of their ends."""
        return [(one.deployment.id, one.purpose, one.outcome) for one in self.record.attempts]

    @property
    def text(self) -> str:
        """The answer."""
        assert self.record.reply is not None
        return self.record.reply.text


def race(
    *scripts: Sequence[Step],
    hedging: HedgePolicy | None = None,
    stream: bool = True,
    observed: int = 50,
    calls: int = 1,
    deadline: float = 1e6,
    money_micro_usd: int | None = None,
) -> Raced:
    """Asks deployments d0, d1, … of which the first is known to begin within half a second.

    Each attempt costs at most 100 micro-USD.
    """
    done = Raced([ScriptedAdapter(script) for script in scripts])

    async def go() -> None:
        clock = LoopClock()
        keepers = doorkeepers(clock, done.telemetry)
        deployments = [deployment(f"d{n}", timeouts=TIMEOUTS) for n in range(len(scripts))]
        once = RetryPolicy(attempts_per_deployment=1)
        policy = snapshot(*deployments, resilience=Resilience(once, hedging=hedging or HedgePolicy(0.95)))
        for _ in range(observed):
            admission = keepers.health.admit(deployments[0], policy)
            assert isinstance(admission, Admission)
            admission.succeeded(USUAL_SECONDS)
        adapters = {one.provider.id: adapter for one, adapter in zip(deployments, done.adapters, strict=True)}
        dispatcher = Dispatcher(adapters, keepers, SchemaAnswerChecker(), CharacterCounter(), clock)
        for _ in range(calls):
            done.record, done.events = DispatchRecord(), []
            one_call = call(policy, deadline)
            watch = done.telemetry.call(one_call, Operation.STREAM_COMPLETE)
            running = dispatcher.run(
                one_call, plan(deployments), done.record, watch, Money(money_micro_usd).cover, stream=stream
            )
            try:
                async with aclosing(running) as events:
                    async for event in events:
                        done.events.append(event)
            except RouterError as error:
                done.error = error
        done.seconds = clock.monotonic()

    in_virtual_time(go())
    assert not any(adapter.open_exchanges for adapter in done.adapters), "a connection was left open"
    return done


def calls_of(raced: Raced) -> list[int]:
    return [len(adapter.calls) for adapter in raced.adapters]


def test_a_silent_first_gets_company_and_loses() -> None:
    raced = race((Wait(5.0), *answers("A")), (Wait(0.2), *answers("B")))
    assert raced.text == "B"
    assert raced.course == [("d0", FIRST, CANCELLED), ("d1", HEDGE, SUCCEEDED)]
    assert raced.seconds == pytest.approx(USUAL_SECONDS + 0.2, rel=0.15)
    assert raced.telemetry.hedges == [True]
    assert not any(isinstance(event, FailedOver) for event in raced.events)


def test_the_first_may_still_win() -> None:
    raced = race((Wait(0.8), *answers("A")), (Wait(5.0), *answers("B")))
    assert raced.text == "A"
    assert raced.course == [("d1", HEDGE, CANCELLED), ("d0", FIRST, SUCCEEDED)]
    assert raced.telemetry.hedges == [False]


def test_one_that_speaks_in_its_usual_time_stays_alone() -> None:
    raced = race((Wait(0.3), *answers("A")), answers("B"))
    assert (raced.text, calls_of(raced), raced.telemetry.hedges) == ("A", [1, 0], [])


def test_what_the_loser_had_reported_is_accounted() -> None:
    raced = race((Wait(5.0), *answers("A")), (Wait(0.2), *answers("B")))
    assert raced.record.cost_micro_usd == sum(one.cost_micro_usd for one in raced.record.attempts) == 100 + 100


def test_company_that_there_is_no_money_for_is_not_asked() -> None:
    raced = race((Wait(5.0), *answers("A")), (Wait(0.2), *answers("B")), money_micro_usd=199)
    assert (raced.text, calls_of(raced), raced.telemetry.hedges) == ("A", [1, 0], [])
    assert race((Wait(5.0), *answers("A")), (Wait(0.2), *answers("B")), money_micro_usd=200).text == "B"


def test_when_the_first_fails_the_hedge_goes_on() -> None:
    raced = race((Wait(0.9), DOWN), (Wait(1.0), *answers("B")))
    assert (raced.text, raced.course) == ("B", [("d0", FIRST, FAILED), ("d1", HEDGE, SUCCEEDED)])


def test_when_both_fail_the_next_is_asked() -> None:
    raced = race((Wait(0.9), DOWN), (Wait(0.1), DOWN), answers("C"))
    assert raced.text == "C"
    assert raced.course == [("d1", HEDGE, FAILED), ("d0", FIRST, FAILED), ("d2", FALLBACK, SUCCEEDED)]


def test_when_all_fail_the_error_names_all() -> None:
    raced = race((Wait(0.9), DOWN), (Wait(0.1), DOWN))
    assert isinstance(raced.error, AttemptsFailed)
    assert {one.deployment_id for one in raced.error.attempts} == {"d0", "d1"}


def test_the_deadline_ends_both() -> None:
    raced = race((Hang(),), (Hang(),), deadline=1.0)
    assert isinstance(raced.error, (AttemptsFailed, DeadlineExceeded))
    assert raced.seconds <= 1.0 + 0.01


def test_without_the_policys_wish_nobody_is_hedged() -> None:
    raced = race((Wait(5.0), *answers("A")), answers("B"), hedging=HedgePolicy())
    assert (raced.text, calls_of(raced)) == ("A", [1, 0])


def test_nor_before_enough_was_observed() -> None:
    raced = race((Wait(5.0), *answers("A")), answers("B"), observed=10)
    assert (raced.text, calls_of(raced)) == ("A", [1, 0])


def test_nor_when_nobody_else_can_be_asked() -> None:
    raced = race((Wait(5.0), *answers("A")))
    assert (raced.text, raced.telemetry.hedges) == ("A", [])


def test_a_whole_answer_is_not_hedged() -> None:
    raced = race((Wait(5.0), *answers("A")), answers("B"), stream=False)
    assert (raced.text, calls_of(raced)) == ("A", [1, 0])


def test_hedges_are_a_small_share_of_the_calls() -> None:
    mostly_quick = HedgePolicy(0.5, most_share=0.05)
    raced = race((Wait(0.9), *answers("A")), (Wait(3.0), *answers("B")), hedging=mostly_quick, calls=45)
    assert calls_of(raced) == [45, 3]


def test_a_reader_who_leaves_during_the_race_ends_both() -> None:
    adapters = [ScriptedAdapter([Wait(5.0), *answers("A")]), ScriptedAdapter([says("B"), Hang()])]
    record = DispatchRecord()

    async def go() -> None:
        clock, telemetry = LoopClock(), SeenTelemetry()
        keepers = doorkeepers(clock, telemetry)
        deployments = [deployment("d0"), deployment("d1")]
        policy = snapshot(*deployments, resilience=Resilience(hedging=HedgePolicy(0.95, least_answers=1)))
        admission = keepers.health.admit(deployments[0], policy)
        assert isinstance(admission, Admission)
        admission.succeeded(USUAL_SECONDS)
        by_provider = {one.provider.id: adapter for one, adapter in zip(deployments, adapters, strict=True)}
        dispatcher = Dispatcher(by_provider, keepers, SchemaAnswerChecker(), CharacterCounter(), clock)
        one_call = call(policy)
        watch: SeenCall = telemetry.call(one_call, Operation.STREAM_COMPLETE)
        running = dispatcher.run(one_call, plan(deployments), record, watch, Money().cover, stream=True)
        async with aclosing(running) as events:
            await anext(events)

    in_virtual_time(go())
    assert [adapter.open_exchanges for adapter in adapters] == [0, 0]
    assert [one.outcome for one in record.attempts] == [CANCELLED, CANCELLED]
