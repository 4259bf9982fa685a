"""What is recorded of which calls, and what is kept of their texts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from kit.accounts import attempt, completion, decision
from kit.catalog import deployment, request
from kit.clock import FakeClock
from kit.recording import METADATA, TEXT, ListLog, recorded
from pointsman_server.adapters.telemetry.recording import Recording
from pointsman_server.domain.call import AttemptPurpose, Call
from pointsman_server.domain.errors import RouterError
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.ports import CallWatch, Operation
from pointsman_server.domain.trace import EndedCall
from pointsman_server.domain.trace_policy import TraceMode, TracePolicy

A = deployment("a")
B = deployment("b")


class House:
    """A recording with a clock and a log; errors have the names of their classes as outcomes."""

    def __init__(self, draw: float = 0.5) -> None:
        self.log, self.clock = ListLog(), FakeClock()
        self.recording = Recording(self.log, lambda error: type(error).__name__, self.clock, lambda: draw)

    def watch(self, call: Call, operation: Operation = Operation.COMPLETE) -> CallWatch:
        return self.recording.call(call, operation)

    @property
    def only(self) -> EndedCall:
        (one,) = self.log.calls
        return one


@pytest.fixture
def house() -> House:
    return House()


def tell(watch: CallWatch, shown: Call | None = None, **changes: Any) -> None:
    """The whole journey of a call that goes well."""
    if shown is not None:
        watch.prepared(shown)
    watch.decided(decision(A))
    watch.attempt(A, AttemptPurpose.FIRST).ended(attempt(A))
    watch.first_content()
    watch.completed(completion(attempt(A), **changes))


@pytest.mark.parametrize("operation", [Operation.COMPLETE, Operation.STREAM_COMPLETE, Operation.EMBED])
def test_an_answered_call_is_recorded(house: House, operation: Operation) -> None:
    asked = recorded(METADATA, request=request(labels={"agent": "a"}), request_id="req-1")
    watch = house.watch(asked, operation)
    house.clock.advance(1.5)
    answered = completion(attempt(A), cost_micro_usd=42)
    watch.decided(answered.decision)
    watch.completed(answered)
    line = house.only.line
    assert line == ("req-1", 1_750_000_000.0, 1.5, "shop", A.model.id, "OK", 42)
    assert house.only.labels == {"agent": "a"}
    assert house.only.decision is answered.decision
    assert house.only.attempts == answered.attempts
    assert house.only.policy == METADATA


def test_a_failed_call_is_recorded_with_what_was_tried(house: House) -> None:
    watch = house.watch(recorded(METADATA))
    watch.decided(decision(A))
    first, second = attempt(A, cost_micro_usd=3), attempt(B, cost_micro_usd=4)
    watch.attempt(A, AttemptPurpose.FIRST).ended(first)
    watch.attempt(B, AttemptPurpose.FALLBACK).ended(second)
    watch.failed(RouterError())
    assert house.only.line[4:] == (B.model.id, "RouterError", 7)
    assert house.only.attempts == (first, second)
    assert house.only.decision is not None


def test_a_call_that_nobody_was_asked_for(house: House) -> None:
    house.watch(recorded(METADATA)).failed(RouterError())
    assert house.only.line[4:] == ("", "RouterError", 0)
    assert house.only.decision is None


@pytest.mark.parametrize("left", [asyncio.CancelledError(), GeneratorExit()])
@pytest.mark.parametrize(("seconds", "outcome"), [(1.0, "CANCELLED"), (10.0, "DEADLINE_EXCEEDED")])
def test_who_left_and_who_ran_out_of_time(house: House, left: BaseException, seconds: float, outcome: str) -> None:
    watch = house.watch(recorded(METADATA, deadline=1_010.0))
    house.clock.advance(seconds)
    watch.failed(left)
    assert house.only.line.outcome == outcome


def test_a_call_ends_once(house: House) -> None:
    watch = house.watch(recorded(METADATA))
    tell(watch)
    watch.failed(GeneratorExit())
    watch.completed(completion(attempt(A)))
    assert house.only.line.outcome == "OK"


def test_the_headers_are_the_caller_s(house: House) -> None:
    for policy in (METADATA, TracePolicy(TraceMode.OFF)):
        watch = house.watch(recorded(policy, headers={"traceparent": "t"}))
        assert watch.attempt(A, AttemptPurpose.FIRST).headers == {"traceparent": "t"}


class TestTexts:
    def test_are_not_kept_without_the_policy_s_word(self, house: House) -> None:
        asked = recorded(METADATA)
        tell(house.watch(asked), asked)
        assert (house.only.shown, house.only.reply) == (None, None)

    def test_are_those_that_models_were_shown_and_the_caller_got(self, house: House) -> None:
        asked = recorded(TEXT)
        guarded = replace(asked, request=request("as the guards left it"))
        answered = completion(attempt(A))
        watch = house.watch(asked)
        watch.prepared(guarded)
        watch.decided(answered.decision)
        watch.completed(answered)
        assert house.only.shown is guarded
        assert house.only.reply is answered.reply

    def test_of_a_failed_call_there_is_the_prompt_alone(self, house: House) -> None:
        asked = recorded(TEXT)
        watch = house.watch(asked)
        watch.prepared(asked)
        watch.decided(decision(A))
        watch.failed(RouterError())
        assert (house.only.shown, house.only.reply) == (asked, None)

    def test_are_not_kept_of_what_no_guard_let_pass(self, house: House) -> None:
        house.watch(recorded(TEXT)).failed(RouterError())
        assert house.only.shown is None

    def test_are_not_kept_where_nothing_was_decided(self, house: House) -> None:
        asked = recorded(TEXT)
        watch = house.watch(asked)
        watch.prepared(asked)
        watch.failed(RouterError())
        assert house.only.shown is None

    def test_are_in_no_repr(self, house: House) -> None:
        asked = recorded(TEXT, request=request("a secret"))
        tell(house.watch(asked), asked)
        assert "a secret" not in repr(house.only)


@pytest.mark.parametrize(
    ("policy", "operation", "draw", "kept"),
    [
        (METADATA, Operation.ROUTE, 0.0, 0),
        (TracePolicy(TraceMode.OFF), Operation.COMPLETE, 0.0, 0),
        (TracePolicy(sample=0.25), Operation.COMPLETE, 0.25, 0),
        (TracePolicy(sample=0.25), Operation.COMPLETE, 0.24, 1),
        (TracePolicy(sample=0.0), Operation.COMPLETE, 0.0, 0),
        (TracePolicy(sample=1.0), Operation.COMPLETE, 0.999, 1),
    ],
)
def test_which_calls_are_recorded(policy: TracePolicy, operation: Operation, draw: float, kept: int) -> None:
    house = House(draw)
    asked = recorded(policy)
    watch = house.watch(asked, operation)
    tell(watch, asked)
    watch.failed(RouterError())
    assert len(house.log.calls) == kept


def test_what_is_told_of_no_call_is_nothing(house: House) -> None:
    house.recording.breaker_changed("a", BreakerState.CLOSED, BreakerState.OPEN)
    house.recording.retried(Operation.COMPLETE, 1)
    house.recording.hedged(won=True)
    house.recording.shed("queue")
    house.recording.guard_hit("sensitive", "EMAIL", "mask")
    assert house.log.calls == []
