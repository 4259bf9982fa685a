"""Every attempt is ended, also when its end is interrupted."""

from __future__ import annotations

import asyncio

import pytest

from kit.catalog import call, candidate, deployment, plan, request, snapshot
from kit.clock import LoopClock, in_virtual_time
from kit.dispatching import doorkeepers
from kit.exchanges import Wires
from kit.scripted import CharacterCounter, Hang, Step, Wait, answers, says
from kit.stage import Stage
from kit.watching import SeenTelemetry
from kit.witness import Reader, WitnessedCall
from pointsman_server.adapters.answer_checker import SchemaAnswerChecker
from pointsman_server.domain.call import AttemptOutcome, AttemptPurpose
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.errors import AttemptsFailed
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.ports import Operation, ProviderCall
from pointsman_server.domain.resilience import HedgePolicy, Resilience
from pointsman_server.execution.agenda import Turn
from pointsman_server.execution.attempt import Assignment
from pointsman_server.execution.dispatch_record import DispatchRecord
from pointsman_server.execution.health import Admission
from pointsman_server.execution.journal import Equipment, Journal

FIRST, HEDGE = AttemptPurpose.FIRST, AttemptPurpose.HEDGE
CANCELLED, FAILED = AttemptOutcome.CANCELLED, AttemptOutcome.FAILED
INVALID = ProviderFault(FaultKind.INVALID_REQUEST, "invalid")
DOWN = ProviderFault(FaultKind.UNAVAILABLE, "down")


def hedged(scripts: dict[str, tuple[Step, ...]], *leaves_after_seconds: float) -> tuple[WitnessedCall, Wires]:
    """A stream whose deployments usually begin within a tenth of a second, and take as long to be hung up on."""
    both = tuple(deployment(name, max_concurrent_calls=1) for name in scripts)

    async def go() -> tuple[WitnessedCall, Wires]:
        policy = snapshot(*both, resilience=Resilience(hedging=HedgePolicy(0.5, 1.0, 1)))

        def answer(provider_call: ProviderCall) -> tuple[Step, ...]:
            return scripts[provider_call.deployment.id]

        stage = Stage(policy, answer, seed=7, close_seconds=0.01)
        stage.warm_up([0.1, 0.1])
        seen = WitnessedCall(call(policy, 60.0), plan(both), True, stage.referee)
        await stage.serve(seen, Reader(), leaves_after_seconds)
        await asyncio.sleep(1.0)
        stage.check_all()
        return seen, stage.wires

    return in_virtual_time(go())


def course(seen: WitnessedCall) -> set[tuple[str, AttemptPurpose, AttemptOutcome]]:
    return {(one.deployment.id, one.purpose, one.outcome) for one in seen.record.attempts}


def test_a_caller_who_hangs_up_twice_leaves_nothing_behind() -> None:
    """The second time comes while the first of two connections is being closed."""
    seen, _ = hedged({"a": (Hang(),), "b": (Hang(),)}, 1.0, 0.005)
    assert course(seen) == {("a", FIRST, CANCELLED), ("b", HEDGE, CANCELLED)}


def test_a_caller_who_hangs_up_during_a_race_that_is_won() -> None:
    seen, wires = hedged({"a": (Hang(),), "b": (Wait(0.5), *answers("B"))}, 0.605, 0.0)
    assert seen.left
    assert all(exchange.ended_at is not None for exchange in wires.exchanges)


def test_the_loser_of_a_race_may_have_said_that_nobody_else_needs_to_be_asked() -> None:
    scripts = {"a": (Wait(0.5), INVALID), "b": (Wait(1.0), DOWN), "c": answers("C")}
    seen, _ = hedged(scripts)
    assert isinstance(seen.error, AttemptsFailed)
    assert course(seen) == {("a", FIRST, FAILED), ("b", HEDGE, FAILED)}


def test_two_that_run_are_both_ended_although_the_end_of_the_first_is_interrupted() -> None:
    both = [deployment(name, max_concurrent_calls=1) for name in "ab"]
    wires = Wires(lambda _: [says("Hello"), Hang()], close_seconds=0.01)
    record = DispatchRecord()

    async def go() -> None:
        clock, telemetry = LoopClock(), SeenTelemetry()
        keepers = doorkeepers(clock, telemetry)
        one_call = call(snapshot(*both))
        watch = telemetry.call(one_call, Operation.STREAM_COMPLETE)
        adapters = {one.provider.id: wires for one in both}
        equipment = Equipment(adapters, keepers, SchemaAnswerChecker(), CharacterCounter(), clock)
        journal = Journal(one_call, plan(both), record, watch, equipment)
        for one in both:
            admission, place = keepers.health.admit(one, one_call.snapshot), keepers.places.take(one)
            assert isinstance(admission, Admission)
            assert place is not None
            turn = Turn(candidate(one), FIRST, admission, place)
            await journal.start(turn, journal.watch(turn), assignment(one)).begin()
        assert len(keepers.places.full) == 2
        ending = asyncio.create_task(journal.end_all())
        await asyncio.sleep(0.005)
        ending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ending
        assert not keepers.places.full

    in_virtual_time(go())
    assert [one.outcome for one in record.attempts] == [CANCELLED, CANCELLED]
    assert all(exchange.ended_at is not None for exchange in wires.exchanges)


def assignment(one: Deployment) -> Assignment:
    return Assignment(
        deployment=one,
        purpose=FIRST,
        messages=request().messages,
        generation=request().generation,
        max_output_tokens=100,
        stream=True,
        allowed_seconds=60.0,
        patience_seconds=10.0,
        deadline=60.0,
        headers={"x-attempt": one.id},
    )
