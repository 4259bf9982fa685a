from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

import pytest

from kit.catalog import EVERYTHING, call, deployment, plan, snapshot
from kit.clock import LoopClock, in_virtual_time
from kit.dispatching import Dispatched, dispatch, doorkeepers
from kit.money import Money
from kit.scripted import (
    END,
    PING,
    CharacterCounter,
    Hang,
    ScriptedAdapter,
    Step,
    Wait,
    answers,
    says,
    used,
)
from kit.watching import SeenCall, SeenTelemetry
from pointsman_server.adapters.answer_checker import SchemaAnswerChecker
from pointsman_server.domain.call import AttemptOutcome, Call, FailedOver, FailoverMode, Relay
from pointsman_server.domain.catalog import Deployment, Timeouts
from pointsman_server.domain.errors import AttemptsFailed, DeadlineExceeded, StreamInterrupted
from pointsman_server.domain.errors import Step as Journey
from pointsman_server.domain.faults import FAULT_RULES, FaultKind, ProviderFault
from pointsman_server.domain.plan import ExclusionReason
from pointsman_server.domain.ports import Operation
from pointsman_server.domain.reply import OpaqueDelta, ReasoningDelta, TextDelta, ToolCallDelta, Usage
from pointsman_server.domain.request import Capability
from pointsman_server.domain.resilience import Resilience, RetryPolicy
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.dispatch_record import DispatchRecord

SUCCEEDED, FAILED, CANCELLED = AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED, AttemptOutcome.CANCELLED
DOWN = ProviderFault(FaultKind.UNAVAILABLE, "down")
LIMITED = ProviderFault(FaultKind.RATE_LIMITED, "limited", retry_after_seconds=7.0)
TOO_LONG = ProviderFault(FaultKind.CONTEXT_WINDOW, "too long")
INVALID = ProviderFault(FaultKind.INVALID_REQUEST, "invalid")
NEXT = sorted((kind for kind, rule in FAULT_RULES.items() if rule.try_next and not rule.larger_window_only), key=str)
TIMEOUTS = Timeouts(first_token_seconds=10.0, idle_seconds=4.0, total_seconds=60.0)
NOT_STREAMING = EVERYTHING - {Capability.STREAMING}

ONCE = {"resilience": Resilience(retries=RetryPolicy(attempts_per_deployment=1))}
"""Nobody is asked twice: what follows a retry is told in test_retries.py."""

Changes = Mapping[str, Mapping[str, Any]]


def run(scripts: Mapping[str, tuple[Step, ...]], of: Changes | None = None, **options: Any) -> Dispatched:
    """A dispatch over deployments with these names; `of` changes their models."""
    models = of or {}
    named = [(deployment(name, of=models.get(name), timeouts=TIMEOUTS), steps) for name, steps in scripts.items()]
    return dispatch(named, **{"policy": ONCE, **options})


def streamed(scripts: Mapping[str, tuple[Step, ...]], of: Changes | None = None, **options: Any) -> Dispatched:
    return run(scripts, of, stream=True, **options)


class TestFallback:
    def test_the_first_answers_and_nobody_else_is_asked(self) -> None:
        ran = run({"a": answers("A"), "b": answers("B")})
        assert (ran.asked, ran.outcomes, ran.text) == (["a"], [SUCCEEDED], "A")
        assert ran.record.answered_by is not None
        assert ran.record.answered_by.deployment.id == "a"
        assert ran.events == []

    @pytest.mark.parametrize("kind", NEXT)
    def test_the_next_is_asked_in_the_plans_order(self, kind: FaultKind) -> None:
        ran = run({"a": (ProviderFault(kind, "x"),), "b": (DOWN,), "c": answers("C"), "d": answers("D")})
        assert (ran.asked, ran.outcomes, ran.text) == (["a", "b", "c"], [FAILED, FAILED, SUCCEEDED], "C")
        assert [attempt.fault and attempt.fault.kind for attempt in ran.record.attempts] == [kind, DOWN.kind, None]

    def test_an_invalid_request_ends_it(self) -> None:
        ran = run({"a": (DOWN,), "b": (INVALID,), "c": answers("C")})
        assert ran.asked == ["a", "b"]
        assert isinstance(ran.error, AttemptsFailed)
        assert ran.error.kind is FaultKind.INVALID_REQUEST
        assert ran.error.__cause__ is ran.record.attempts[-1].fault

    def test_all_failed(self) -> None:
        ran = run({"a": (LIMITED,), "b": (ProviderFault(FaultKind.RATE_LIMITED, "x", retry_after_seconds=3.0),)})
        assert type(ran.error) is AttemptsFailed
        assert [(one.deployment_id, one.detail) for one in ran.error.attempts] == [("a", "limited"), ("b", "x")]
        assert ran.error.retry_after_seconds == 3.0

    def test_nobody_said_when_to_try_again(self) -> None:
        ran = run({"a": (DOWN,)})
        assert isinstance(ran.error, AttemptsFailed)
        assert ran.error.retry_after_seconds is None

    def test_there_is_a_most_of_attempts(self) -> None:
        ran = run({name: (DOWN,) for name in "abcdefgh"})
        assert ran.asked == list("abcdef")
        assert len(ran.asked) == RetryPolicy().attempts_per_call
        assert isinstance(ran.error, AttemptsFailed)

    def test_the_last_attempt_may_still_answer(self) -> None:
        ran = run({**{name: (DOWN,) for name in "abcde"}, "f": answers("F")})
        assert ran.text == "F"


class TestWindow:
    @pytest.mark.parametrize("kind", [FaultKind.CONTEXT_WINDOW, FaultKind.REQUEST_TOO_LARGE])
    def test_only_a_larger_one_is_asked(self, kind: FaultKind) -> None:
        of = {name: {"context_window_tokens": size} for name, size in zip("abcd", (100, 100, 50, 101), strict=True)}
        scripts = {"a": (ProviderFault(kind, "x"),), **{name: answers(name) for name in "bcd"}}
        ran = run(scripts, of)
        assert (ran.asked, ran.text) == (["a", "d"], "d")

    def test_larger_than_all_that_were_too_small(self) -> None:
        of = {name: {"context_window_tokens": size} for name, size in zip("abc", (100, 200, 150), strict=True)}
        ran = run({"a": (TOO_LONG,), "b": (TOO_LONG,), "c": answers("C")}, of)
        assert ran.asked == ["a", "b"]
        assert isinstance(ran.error, AttemptsFailed)
        assert ran.error.kind is FaultKind.CONTEXT_WINDOW

    def test_other_faults_leave_smaller_ones_in(self) -> None:
        of = {"b": {"context_window_tokens": 50}}
        assert run({"a": (DOWN,), "b": answers("B")}, of).text == "B"


class TestTime:
    @pytest.mark.parametrize(("left", "begins"), [(0.05, True), (0.049, False), (0.0, False), (-1.0, False)])
    def test_fifty_milliseconds_are_enough(self, left: float, begins: bool) -> None:
        ran = run({"a": answers("A")}, deadline=left)
        assert ran.asked == (["a"] if begins else [])
        if not begins:
            assert isinstance(ran.error, DeadlineExceeded)
            assert (ran.error.step, ran.error.attempts) == (Journey.DISPATCH, ())

    def test_a_stream_that_fails_late_leaves_no_time_for_another(self) -> None:
        late = (says("x"), Wait(0.97), DOWN)
        ran = streamed({"a": late, "b": answers("B")}, deadline=1.0, failover=FailoverMode.RESTART)
        assert ran.asked == ["a"]
        assert isinstance(ran.error, DeadlineExceeded)
        assert [one.deployment_id for one in ran.error.attempts] == ["a"]

    def test_the_deadline_in_the_middle_of_an_attempt_tells_of_those_before(self) -> None:
        ran = run({"a": (DOWN,), "b": (Hang(),)}, deadline=5.0)
        assert isinstance(ran.error, DeadlineExceeded)
        assert [(one.deployment_id, one.kind) for one in ran.error.attempts] == [("a", FaultKind.UNAVAILABLE)]
        assert ran.outcomes == [FAILED, CANCELLED]
        assert ran.seconds == 5.0
        assert "b" not in ran.out

    def test_a_whole_answer_leaves_time_for_the_next(self) -> None:
        ran = run({"a": (Hang(),), "b": answers("B")}, deadline=10.0)
        assert (ran.text, ran.seconds) == ("B", 6.0)
        assert ran.record.attempts[0].fault is not None
        assert ran.record.attempts[0].fault.kind is FaultKind.TIMEOUT

    def test_so_does_a_model_that_cannot_stream(self) -> None:
        of = {"a": {"capabilities": NOT_STREAMING}}
        ran = streamed({"a": (Hang(),), "b": answers("B")}, of, deadline=10.0)
        assert (ran.text, ran.seconds) == ("B", 6.0)

    def test_the_last_has_all_the_time_that_is_left(self) -> None:
        ran = run({"a": (Hang(),), "b": (Wait(3.9), *answers("B"))}, deadline=10.0)
        assert ran.text == "B"

    def test_a_silent_stream_leaves_it_too(self) -> None:
        ran = streamed({"a": (Hang(),), "b": answers("B")}, deadline=10.0)
        assert (ran.text, ran.seconds) == ("B", 6.0)

    def test_a_stream_that_speaks_may_use_all_the_time(self) -> None:
        ran = streamed({"a": (Wait(5.9), says("A"), Wait(3.9), says("A"), END), "b": answers("B")}, deadline=10.0)
        assert (ran.asked, ran.text) == (["a"], "AA")

    def test_the_deployments_own_total_counts_as_well(self) -> None:
        ran = run({"a": (Hang(),)}, deadline=1_000.0)
        assert ran.seconds == TIMEOUTS.total_seconds
        assert isinstance(ran.error, AttemptsFailed)

    def test_the_time_left_shrinks_from_attempt_to_attempt(self) -> None:
        ran = streamed({"a": (Wait(2.0), DOWN), "b": (Wait(2.0), DOWN), "c": answers("C")}, deadline=20.0)
        allowed = [ran.adapters[name].calls[0].timeout_seconds for name in "abc"]
        assert allowed == [20.25, 18.25, 16.25]


class TestStream:
    def test_pieces_come_as_they_came(self) -> None:
        ran = streamed({"a": (says("Hel"), PING, says("lo"), used(1, 2), END)})
        assert ran.events == [Relay(((0, TextDelta(0, "Hel")),)), Relay(((0, TextDelta(0, "lo")),))]
        assert ran.text == "Hello"

    def test_pieces_of_one_batch_are_joined(self) -> None:
        batch = (TextDelta(0, "a"), TextDelta(0, "b"), ReasoningDelta(1, "c"), TextDelta(0, "d"))
        ran = streamed({"a": (batch, END)})
        assert ran.events == [Relay(((0, TextDelta(0, "ab")), (1, ReasoningDelta(1, "c")), (0, TextDelta(0, "d"))))]

    def test_every_kind_of_piece_has_its_part(self) -> None:
        batch = (ReasoningDelta("r", "a"), ToolCallDelta("t", "i", "f", "{}"), OpaqueDelta(5, "d", "k", "{}"))
        ran = streamed({"a": (batch, END)})
        assert ran.deltas == list(enumerate(batch))

    def test_a_model_that_cannot_stream_gives_all_of_it_at_once(self) -> None:
        ran = streamed({"a": answers("whole")}, {"a": {"capabilities": NOT_STREAMING}})
        assert ran.relayed == "whole"
        assert not ran.adapters["a"].calls[0].stream

    def test_a_whole_answer_relays_nothing(self) -> None:
        ran = run({"a": (says("a"), says("b"), END)})
        assert (ran.events, ran.text) == ([], "ab")
        assert not ran.adapters["a"].calls[0].stream

    @pytest.mark.parametrize("steps", [(DOWN,), (PING, DOWN), (used(5, 0), DOWN), (Hang(),)])
    def test_before_the_first_piece_another_takes_over_unseen(self, steps: tuple[Step, ...]) -> None:
        ran = streamed({"a": steps, "b": answers("B")})
        assert ran.events == [Relay(((0, TextDelta(0, "B")),))]
        assert ran.outcomes == [FAILED, SUCCEEDED]


class TestInterruption:
    @pytest.mark.parametrize("end", [(DOWN,), (Hang(),), ()], ids=["fault", "silence", "no end"])
    def test_after_the_first_piece_nobody_takes_over(self, end: tuple[Step, ...]) -> None:
        ran = streamed({"a": (says("Hel"), used(100, 7), *end), "b": answers("B")})
        assert isinstance(ran.error, StreamInterrupted)
        assert ran.asked == ["a"]
        assert (ran.relayed, ran.failovers) == ("Hel", [])
        assert ran.error.output_tokens == 3
        assert ran.error.cost_micro_usd == ran.record.cost_micro_usd == 100 + 14
        assert ran.error.__cause__ is ran.record.attempts[0].fault

    def test_the_account_has_the_attempts_before(self) -> None:
        ran = streamed({"a": (used(10, None), DOWN), "b": (says("Hel"), used(None, 5), DOWN)})
        assert isinstance(ran.error, StreamInterrupted)
        assert [one.deployment_id for one in ran.error.attempts] == ["a", "b"]
        assert ran.error.cost_micro_usd == 10 + 10

    def test_a_whole_answer_that_breaks_off_is_asked_for_elsewhere(self) -> None:
        ran = run({"a": (says("Hel"), DOWN), "b": answers("B")})
        assert ran.text == "B"


class TestRestart:
    def test_the_answer_begins_again(self) -> None:
        ran = streamed({"a": (says("Hel"), DOWN), "b": answers("Good")}, failover=FailoverMode.RESTART)
        assert ran.events == [
            Relay(((0, TextDelta(0, "Hel")),)),
            FailedOver("a", "b", FailoverMode.RESTART, 0),
            Relay(((0, TextDelta(0, "Good")),)),
        ]
        assert ran.text == "Good"

    def test_what_failed_before_its_first_piece_is_not_announced(self) -> None:
        scripts = {"a": (says("x"), DOWN), "b": (DOWN,), "c": (says("y"), DOWN), "d": answers("D")}
        ran = streamed(scripts, failover=FailoverMode.RESTART)
        assert [(one.from_deployment_id, one.to_deployment_id) for one in ran.failovers] == [("a", "c"), ("c", "d")]
        assert (ran.relayed, ran.text) == ("D", "D")

    def test_with_nobody_left_it_is_interrupted(self) -> None:
        ran = streamed({"a": (says("Hel"), DOWN)}, failover=FailoverMode.RESTART)
        assert isinstance(ran.error, StreamInterrupted)
        assert ran.relayed == "Hel"

    def test_what_was_sent_stands_until_something_takes_its_place(self) -> None:
        ran = streamed({"a": (says("Hel"), DOWN), "b": (DOWN,)}, failover=FailoverMode.RESTART)
        assert isinstance(ran.error, StreamInterrupted)
        assert (ran.relayed, ran.failovers, ran.error.output_tokens) == ("Hel", [], 3)

    def test_an_invalid_request_ends_it_there(self) -> None:
        ran = streamed({"a": (says("Hel"), INVALID), "b": answers("B")}, failover=FailoverMode.RESTART)
        assert isinstance(ran.error, StreamInterrupted)
        assert ran.asked == ["a"]


class TestHealth:
    def test_every_failure_is_learnt(self) -> None:
        ran = run({"a": (LIMITED,), "b": (ProviderFault(FaultKind.QUOTA, "x"),), "c": answers("C")})
        assert ran.out == {"a": ExclusionReason.COOLDOWN, "b": ExclusionReason.COOLDOWN}

    def test_an_answer_that_breaks_off_is_a_failure(self) -> None:
        ran = streamed({"a": (says("x"), LIMITED)})
        assert ran.out == {"a": ExclusionReason.COOLDOWN}


def leaving(one: Deployment, adapter: ScriptedAdapter) -> tuple[Call, SeenCall, Dispatcher]:
    """What a dispatch needs that nobody waits for to its end."""
    clock, telemetry, one_call = LoopClock(), SeenTelemetry(), call(snapshot(one))
    adapters, keepers = {one.provider.id: adapter}, doorkeepers(clock, telemetry)
    watch = telemetry.call(one_call, Operation.STREAM_COMPLETE)
    return one_call, watch, Dispatcher(adapters, keepers, SchemaAnswerChecker(), CharacterCounter(), clock)


class TestLeaving:
    @staticmethod
    def leave_after(adapter: ScriptedAdapter, seconds: float) -> DispatchRecord:
        """Cancels a streaming dispatch after so long."""
        record = DispatchRecord()

        async def go() -> None:
            one = deployment("a")
            one_call, watch, dispatcher = leaving(one, adapter)

            async def consume() -> None:
                async with aclosing(
                    dispatcher.run(one_call, plan([one]), record, watch, Money().cover, stream=True)
                ) as events:
                    async for _ in events:
                        pass

            task = asyncio.create_task(consume())
            await asyncio.sleep(seconds)
            assert adapter.open_exchanges == 1
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        in_virtual_time(go())
        return record

    @pytest.mark.parametrize("seconds", [0.5, 1.5], ids=["before the first piece", "after it"])
    def test_a_cancelled_call_closes_the_connection_and_is_accounted(self, seconds: float) -> None:
        adapter = ScriptedAdapter([used(40, None), Wait(1.0), says("x"), Hang()])
        record = self.leave_after(adapter, seconds)
        assert adapter.open_exchanges == 0
        (attempt,) = record.attempts
        assert (attempt.outcome, attempt.fault) == (CANCELLED, None)
        seen = 0 if seconds < 1.0 else 1
        assert attempt.usage == Usage(40, output_tokens=seen or None)
        assert record.cost_micro_usd == attempt.cost_micro_usd == 40 + 2 * seen
        assert (record.answered_by, record.reply, record.failures) == (None, None, ())

    def test_a_reader_that_leaves_between_pieces_closes_it_too(self) -> None:
        adapter, record = ScriptedAdapter([says("x"), Hang()]), DispatchRecord()

        async def go() -> None:
            one = deployment("a")
            one_call, watch, dispatcher = leaving(one, adapter)
            async with aclosing(
                dispatcher.run(one_call, plan([one]), record, watch, Money().cover, stream=True)
            ) as events:
                await anext(events)
            assert adapter.open_exchanges == 0

        in_virtual_time(go())
        assert [attempt.outcome for attempt in record.attempts] == [CANCELLED]

    def test_an_error_in_an_adapter_is_not_taken_for_a_providers_fault(self) -> None:
        with pytest.raises(RuntimeError, match="bug"):
            run({"a": (RuntimeError("bug"),), "b": answers("B")})
