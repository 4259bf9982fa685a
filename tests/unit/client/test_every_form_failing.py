"""Errors, retries, metadata and closing: both forms of the client against every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from kit.client_backends import DECISION, Answers, Backend, Decides, Fails, Takes, answer
from kit.client_callers import Caller
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteResponse
from pointsman_client import (
    BudgetExceeded,
    Cancelled,
    DeadlineExceeded,
    DecisionExpired,
    DeploymentNotFound,
    FieldViolation,
    InternalError,
    InvalidRequest,
    NoEligibleDeployment,
    PermissionDenied,
    PointsmanError,
    PreconditionViolation,
    QuotaViolation,
    RateLimited,
    RequestIdReused,
    RequestNotFound,
    RetryPolicy,
    Unauthenticated,
    Unavailable,
    assistant,
    error_from_rpc,
)

AT_ONCE = RetryPolicy(max_attempts=3, first_delay_seconds=0.0)


def overloaded(**details: Any) -> PointsmanError:
    return Unavailable("busy", reason="OVERLOADED", retry_delay_seconds=0.001, **details)


ERRORS = [
    InvalidRequest("bad role", field_violations=[FieldViolation("completion.messages[0].role", "must be set")]),
    InvalidRequest("too long", reason="CONTEXT_OVERFLOW", metadata={"inputTokens": "9"}),
    Unauthenticated("no key"),
    PermissionDenied("not yours"),
    RateLimited("slow down", retry_delay_seconds=2.5, quota_violations=[QuotaViolation("tenant:acme", "20 a minute")]),
    BudgetExceeded("spent", quota_violations=[QuotaViolation("tenant:acme", "10 USD a day")]),
    DeploymentNotFound("no such deployment"),
    NoEligibleDeployment(
        "nobody", precondition_violations=[PreconditionViolation("REGION", "deployments/haiku", "serves from us only")]
    ),
    NoEligibleDeployment("off", reason="KILL_SWITCH"),
    Unavailable("all failed", retry_delay_seconds=900.0, metadata={"attempts": "haiku:timeout"}),
    RequestIdReused("used"),
    RequestNotFound("never heard of it"),
    DecisionExpired("too old", precondition_violations=[PreconditionViolation("DECISION", "decision_id", "too old")]),
    DeadlineExceeded("too slow", metadata={"step": "dispatch"}),
    Cancelled("gone"),
    InternalError("sorry"),
    PointsmanError("a code we have no class for", code=grpc.StatusCode.NOT_FOUND, reason=""),
    PointsmanError("newer than this client", code=grpc.StatusCode.FAILED_PRECONDITION, reason="FULL_MOON"),
]


class TestErrors:
    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{type(error).__name__}-{error.reason}")
    async def test_arrive_with_their_type_and_details(
        self, backend: Backend, caller: Caller, error: PointsmanError
    ) -> None:
        error.request_id = "r9"
        backend.play(Fails(error))
        with pytest.raises(PointsmanError) as raised:
            await caller.complete("x")
        got = raised.value
        assert type(got) is type(error)
        assert vars(got) == vars(error)
        assert isinstance(got.__cause__, grpc.RpcError)

    async def test_name_the_request_id_that_was_sent(self, backend: Backend, caller: Caller) -> None:
        backend.play(Fails(InvalidRequest("bad", reason="")))
        with pytest.raises(InvalidRequest) as raised:
            await caller.complete("x", request_id="order-7")
        assert raised.value.request_id == "order-7"

    async def test_of_a_stream_before_its_first_event(self, backend: Backend, caller: Caller) -> None:
        backend.play(Fails(BudgetExceeded("spent")))
        reading = await caller.read("x")
        assert isinstance(reading.error, BudgetExceeded)
        assert reading.events == []

    async def test_of_a_route(self, backend: Backend, caller: Caller) -> None:
        backend.play(Fails(DeploymentNotFound("none"), rpc="Route"))
        with pytest.raises(DeploymentNotFound):
            await caller.route("x", deployment="nowhere")

    async def test_of_a_verdict(self, backend: Backend, caller: Caller) -> None:
        backend.play(Fails(RequestNotFound("none", request_id="r9"), rpc="RecordFeedback"))
        with pytest.raises(RequestNotFound) as raised:
            await caller.record_feedback("order-7", 1.0)
        assert raised.value.request_id == "r9"


class TestRetries:
    async def test_a_call_that_was_not_started_is_repeated_under_the_same_id(
        self, backend: Backend, connect: Callable[..., Caller]
    ) -> None:
        draining = Unavailable("going down", reason="DRAINING", retry_delay_seconds=0.001)
        backend.play(Fails(overloaded(code=grpc.StatusCode.RESOURCE_EXHAUSTED)), Fails(draining), Answers(answer("ok")))
        assert (await connect(retry=AT_ONCE).complete("x")).text == "ok"
        ids = {call.request.completion.request_id for call in backend.received}
        assert (len(backend.received), len(ids)) == (3, 1)

    async def test_attempts_are_bounded(self, backend: Backend, connect: Callable[..., Caller]) -> None:
        backend.play(*(Fails(overloaded()) for _ in range(3)))
        with pytest.raises(Unavailable):
            await connect(retry=AT_ONCE).complete("x")
        assert len(backend.received) == 3

    async def test_one_attempt_means_no_retry(self, backend: Backend, connect: Callable[..., Caller]) -> None:
        backend.play(Fails(overloaded()))
        with pytest.raises(Unavailable):
            await connect(retry=RetryPolicy(max_attempts=1)).complete("x")
        assert len(backend.received) == 1

    @pytest.mark.parametrize(
        "error",
        [
            Unavailable("all failed", retry_delay_seconds=0.001),
            Unavailable("busy, but no delay", reason="OVERLOADED"),
            Unavailable("a proxy", reason=""),
            RateLimited("slow down", retry_delay_seconds=0.001),
            InternalError("sorry"),
            DeadlineExceeded("too slow"),
        ],
        ids=lambda error: f"{type(error).__name__}-{error.reason}",
    )
    async def test_what_may_have_cost_money_is_not_repeated(
        self, backend: Backend, connect: Callable[..., Caller], error: PointsmanError
    ) -> None:
        backend.play(Fails(error), Fails(error))
        with pytest.raises(type(error)):
            await connect(retry=AT_ONCE).complete("x")
        assert isinstance((await connect(retry=AT_ONCE).read("x")).error, type(error))
        assert len(backend.received) == 2

    async def test_a_route_is_repeated_on_any_unavailability(
        self, backend: Backend, connect: Callable[..., Caller]
    ) -> None:
        backend.play(
            Fails(Unavailable("a proxy", reason=""), rpc="Route"),
            Fails(overloaded(), rpc="Route"),
            Decides(RouteResponse(decision=DECISION)),
        )
        assert (await connect(retry=AT_ONCE).route("x")).deployment == "haiku"
        assert len(backend.received) == 3

    async def test_a_route_is_not_repeated_on_other_errors(
        self, backend: Backend, connect: Callable[..., Caller]
    ) -> None:
        backend.play(Fails(InternalError("sorry"), rpc="Route"))
        with pytest.raises(InternalError):
            await connect(retry=AT_ONCE).route("x")
        assert len(backend.received) == 1

    async def test_a_verdict_is_repeated_on_any_unavailability(
        self, backend: Backend, connect: Callable[..., Caller]
    ) -> None:
        backend.play(Fails(Unavailable("a proxy", reason=""), rpc="RecordFeedback"), Takes())
        await connect(retry=AT_ONCE).record_feedback("r1", 1.0)
        backend.play(Fails(InternalError("sorry"), rpc="RecordFeedback"))
        with pytest.raises(InternalError):
            await connect(retry=AT_ONCE).record_feedback("r1", 1.0)
        assert len(backend.received) == 3

    async def test_a_stream_is_repeated_before_its_first_event(
        self, backend: Backend, connect: Callable[..., Caller]
    ) -> None:
        backend.play(Fails(overloaded()), Answers(answer("ok")))
        reading = await connect(retry=AT_ONCE).read("x")
        assert reading.answer is not None
        assert len(backend.received) == 2

    async def test_a_stream_is_never_repeated_after_it(self, backend: Backend, connect: Callable[..., Caller]) -> None:
        backend.play(Fails(overloaded(), [DECISION]))
        reading = await connect(retry=AT_ONCE).read("x")
        assert isinstance(reading.error, Unavailable)
        assert len(backend.received) == 1

    async def test_a_delay_beyond_the_deadline_is_not_waited_for(
        self, backend: Backend, connect: Callable[..., Caller]
    ) -> None:
        backend.play(Fails(Unavailable("busy", reason="OVERLOADED", retry_delay_seconds=120.0)))
        with pytest.raises(Unavailable) as raised:
            await connect(retry=AT_ONCE).complete("x", timeout_seconds=2)
        assert raised.value.retry_delay_seconds == 120


class TestMetadataAndDeadlines:
    async def test_key_and_trace_context_travel(self, backend: Backend, connect: Callable[..., Caller]) -> None:
        backend.play(Answers(answer("a")), Answers(answer("b")), Decides(RouteResponse(decision=DECISION)))
        caller = connect(api_key="pm_secret")
        trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await caller.complete("x", traceparent=trace)
        await caller.read("x", traceparent=trace)
        await caller.route("x", traceparent=trace)
        for call in backend.received:
            assert (call.metadata["authorization"], call.metadata["traceparent"]) == ("Bearer pm_secret", trace)

    async def test_the_hook_is_asked_at_every_attempt(self, backend: Backend, connect: Callable[..., Caller]) -> None:
        keys = iter(["first", "second"])
        backend.play(Fails(overloaded()), Answers(answer("ok")))
        await connect(retry=AT_ONCE, metadata=lambda: [("authorization", f"Bearer {next(keys)}")]).complete("x")
        assert [call.metadata["authorization"] for call in backend.received] == ["Bearer first", "Bearer second"]

    async def test_a_call_wins_over_the_client_and_sends_nothing_twice(
        self, backend: Backend, connect: Callable[..., Caller]
    ) -> None:
        backend.play(Answers(answer("a")))
        caller = connect(api_key="of-client", metadata=lambda: [("x-team", "client")])
        await caller.complete("x", metadata=[("Authorization", "Bearer of-call"), ("x-team", "call")])
        sent = backend.received[0].metadata
        assert (sent["authorization"], sent["x-team"]) == ("Bearer of-call", "call")

    async def test_every_call_has_a_deadline(self, backend: Backend, connect: Callable[..., Caller]) -> None:
        backend.play(*(Answers(answer("a")) for _ in range(4)))
        caller = connect(timeout_seconds=30.0)
        await caller.complete("x")
        await caller.read("x")
        await caller.complete("x", timeout_seconds=5)
        await caller.raw("Complete", CompleteRequest())
        seconds = [call.seconds or 0.0 for call in backend.received]
        assert seconds == pytest.approx([30, 300, 5, 30], abs=2)

    @pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf")])
    async def test_no_deadline_is_refused(self, caller: Caller, seconds: float) -> None:
        with pytest.raises(ValueError, match="every call has a deadline"):
            await caller.complete("x", timeout_seconds=seconds)


class TestRawStubs:
    async def test_carry_the_clients_metadata_and_raise_grpc_errors(
        self, backend: Backend, connect: Callable[..., Caller]
    ) -> None:
        backend.play(Answers(answer("raw")), Fails(RateLimited("slow down", retry_delay_seconds=1.0)))
        caller = connect(api_key="pm_secret")
        assert (await caller.raw("Complete", CompleteRequest())).message == assistant("raw")
        assert backend.received[0].metadata["authorization"] == "Bearer pm_secret"
        with pytest.raises(grpc.RpcError) as raised:
            await caller.raw("Complete", CompleteRequest())
        assert isinstance(error_from_rpc(raised.value), RateLimited)


class TestClosing:
    async def test_twice_does_no_harm_and_later_calls_say_what_is_wrong(self, backend: Backend, caller: Caller) -> None:
        backend.play(Answers(answer("a")))
        await caller.complete("x")
        await caller.close()
        await caller.close()
        with pytest.raises(RuntimeError, match="the client is closed"):
            await caller.complete("x")
        with pytest.raises(RuntimeError, match="the client is closed"):
            await caller.record_feedback("r1", 1.0)
        with pytest.raises(RuntimeError, match="the client is closed"):
            await caller.read("x")
