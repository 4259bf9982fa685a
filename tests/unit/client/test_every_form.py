"""One suite for both forms of the client against every backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from kit.client_backends import Answers, Backend, Caller, Decides, Ends, Fails
from pointsman.v1.answer_pb2 import (
    FINISH_REASON_STOP,
    STREAM_FAILOVER_CONTINUE,
    STREAM_FAILOVER_RESTART,
    CompleteResponse,
    Delta,
    Failover,
    ToolCallDelta,
    Usage,
    Warning,
)
from pointsman.v1.completion_pb2 import TIER_ADVANCED, Reasoning
from pointsman.v1.decision_pb2 import ChosenDeployment, RouteDecision
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteResponse
from pointsman_client import (
    BudgetExceeded,
    Cancelled,
    ContractViolation,
    DeadlineExceeded,
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
    RetryPolicy,
    StreamEvent,
    StreamInterrupted,
    Unauthenticated,
    Unavailable,
    assistant,
    error_from_rpc,
    tool_call,
    user,
)

AT_ONCE = RetryPolicy(max_attempts=3, first_delay_seconds=0.0)
DECISION = RouteDecision(decision_id="d1", chosen=ChosenDeployment(deployment="haiku"))


def answer(*content: Any, **fields: Any) -> CompleteResponse:
    response = CompleteResponse(request_id="r1", finish_reason=FINISH_REASON_STOP, decision=DECISION, **fields)
    response.message.CopyFrom(assistant(*content))
    return response


def text(piece: str, index: int = 0) -> Delta:
    return Delta(text=piece, part_index=index)


def overloaded(**details: Any) -> PointsmanError:
    return Unavailable("busy", reason="OVERLOADED", retry_delay_seconds=0.001, **details)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another thread
            await asyncio.sleep(0.005)


class TestComplete:
    async def test_gives_the_answer_with_all_the_server_said(self, backend: Backend, caller: Caller) -> None:
        response = answer("Paris", usage=Usage(input_tokens=8, output_tokens=1, cost_micro_usd=12))
        backend.play(Answers(response))
        got = await caller.complete("What is the capital of France?")
        assert got.text == "Paris"
        assert got.response == response
        assert (got.usage.cost_micro_usd, got.decision.chosen.deployment) == (12, "haiku")

    async def test_sends_prompt_and_options(self, backend: Backend, caller: Caller) -> None:
        backend.play(Answers(answer("Bonjour")))
        await caller.complete([user("Hello")], system="Translate to French.", tier="advanced", temperature=0)
        sent = backend.received[0].request.completion
        assert [message.parts[0].text for message in sent.messages] == ["Translate to French.", "Hello"]
        assert sent.tier == TIER_ADVANCED
        assert sent.generation.HasField("temperature")

    async def test_gives_tool_calls(self, backend: Backend, caller: Caller) -> None:
        message = ("Let me see.", tool_call("c1", "weather", {"city": "Paris"}))
        backend.play(Answers(answer(*message)))
        got = await caller.complete("Weather?")
        assert [(call.id, call.name, call.arguments_json) for call in got.tool_calls] == [
            ("c1", "weather", '{"city": "Paris"}')
        ]
        assert got.text == "Let me see."

    async def test_reads_json(self, backend: Backend, caller: Caller) -> None:
        backend.play(Answers(answer('{"city": "Paris"}')))
        assert (await caller.complete("Capital?", response_schema={"type": "object"})).json() == {"city": "Paris"}

    async def test_makes_a_request_id_for_each_call(self, backend: Backend, caller: Caller) -> None:
        backend.play(Answers(answer("a")), Answers(answer("b")))
        await caller.complete("x")
        await caller.complete("x")
        ids = [call.request.completion.request_id for call in backend.received]
        assert all(ids)
        assert len(set(ids)) == 2

    async def test_keeps_a_given_request_id(self, backend: Backend, caller: Caller) -> None:
        backend.play(Answers(answer("a")))
        await caller.complete("x", request_id="order-7")
        assert backend.received[0].request.completion.request_id == "order-7"

    async def test_many_at_a_time(self, backend: Backend, caller: Caller) -> None:
        backend.play(*(Answers(answer("same")) for _ in range(40)))
        answers = await asyncio.gather(*(caller.complete(f"q{number}") for number in range(40)))
        assert {got.text for got in answers} == {"same"}
        asked = {call.request.completion.messages[0].parts[0].text for call in backend.received}
        assert asked == {f"q{number}" for number in range(40)}


class TestRoute:
    async def test_gives_the_decision(self, backend: Backend, caller: Caller) -> None:
        backend.play(Decides(RouteResponse(decision=DECISION, request_id="r1")))
        got = await caller.route("Hard question", quality_bias=0.9)
        assert (got.deployment, got.request_id) == ("haiku", "r1")
        assert backend.received[0].request.completion.quality_bias == 0.9


class TestStream:
    async def test_gives_every_event_and_the_answer(self, backend: Backend, caller: Caller) -> None:
        response = answer("Once upon a time")
        events: list[StreamEvent] = [
            DECISION,
            text("Once upon"),
            Warning(code="w", message="m"),
            text(" a time"),
            response,
        ]
        backend.play(Answers(response, events))
        reading = await caller.read("A story")
        assert reading.events == events
        assert reading.answer is not None
        assert reading.answer.response == response

    async def test_gives_the_text_piece_by_piece(self, backend: Backend, caller: Caller) -> None:
        response = answer("Once upon a time", tool_call("c1", "end", {}))
        call = ToolCallDelta(id="c1", name="end", arguments_json="{}")
        events: list[StreamEvent] = [
            DECISION,
            text("Once upon"),
            text(" a time"),
            Delta(tool_call=call, part_index=1),
            response,
        ]
        backend.play(Answers(response, events))
        reading = await caller.read_text("A story")
        assert reading.deltas == ["Once upon", " a time"]
        assert reading.answer is not None
        assert reading.answer.text == "Once upon a time"

    async def test_finishes_what_was_begun(self, backend: Backend, caller: Caller) -> None:
        backend.play(Answers(answer("The end")))
        assert (await caller.finish("A story")).text == "The end"

    async def test_folds_all_kinds_of_parts(self, backend: Backend, caller: Caller) -> None:
        response = answer("Because.")
        thought = response.message.parts.add(signature="seal", reasoning=Reasoning(text="Hm, well"))
        response.message.parts.insert(0, thought)
        del response.message.parts[2]
        events: list[StreamEvent] = [
            DECISION,
            Delta(reasoning=Reasoning(text="Hm, "), signature="se"),
            Delta(reasoning=Reasoning(text="well"), signature="al"),
            text("Because.", 1),
            response,
        ]
        backend.play(Answers(response, events))
        assert (await caller.read("Why?")).error is None

    async def test_restart_begins_anew(self, backend: Backend, caller: Caller) -> None:
        response = answer("Better")
        move = Failover(from_deployment="a", to_deployment="b", mode=STREAM_FAILOVER_RESTART, characters_kept=0)
        backend.play(Answers(response, [DECISION, text("Worse"), move, text("Better"), response]))
        reading = await caller.read("x", failover="restart")
        assert reading.error is None
        assert reading.answer is not None
        assert reading.answer.text == "Better"
        assert backend.received[0].request.failover == STREAM_FAILOVER_RESTART

    async def test_continue_goes_on_from_what_is_kept(self, backend: Backend, caller: Caller) -> None:
        response = answer("Once upon a time")
        move = Failover(from_deployment="a", to_deployment="b", mode=STREAM_FAILOVER_CONTINUE, characters_kept=9)
        backend.play(Answers(response, [DECISION, text("Once upon a ti"), move, text(" a time"), response]))
        assert (await caller.read("x", failover="continue")).error is None

    async def test_a_fold_that_differs_breaks_the_contract(self, backend: Backend, caller: Caller) -> None:
        backend.play(Answers(answer("Paris"), [DECISION, text("Rome"), answer("Paris")]))
        error = (await caller.read("x")).error
        assert isinstance(error, ContractViolation)
        assert error.folded == assistant("Rome")
        assert error.completed == assistant("Paris")

    async def test_an_end_without_the_answer_breaks_the_contract(self, backend: Backend, caller: Caller) -> None:
        backend.play(Ends([DECISION, text("Par")]))
        error = (await caller.read("x")).error
        assert isinstance(error, ContractViolation)
        assert error.folded == assistant("Par")

    async def test_pieces_that_do_not_fit_break_the_contract(self, backend: Backend, caller: Caller) -> None:
        backend.play(Ends([DECISION, text("Par"), Delta(reasoning=Reasoning(text="hm"))]))
        assert isinstance((await caller.read("x")).error, ContractViolation)

    async def test_a_broken_contract_ends_the_call(self, backend: Backend, caller: Caller) -> None:
        misfit = Delta(reasoning=Reasoning(text="hm"))
        backend.play(Ends([DECISION, text("Par"), misfit, *(text("word ") for _ in range(20_000))]))
        stream = await caller.step_until_error("x")
        await until(backend.received[0].given_up)
        assert stream.partial_text == "Par"

    async def test_an_error_after_the_answer_is_none(self, backend: Backend, caller: Caller) -> None:
        response = answer("Paris")
        backend.play(Fails(Unavailable("gone"), [DECISION, text("Paris"), response]))
        reading = await caller.read("x")
        assert reading.error is None
        assert reading.answer is not None

    @pytest.mark.parametrize("leave", ["leave_loop", "leave_text_loop", "leave_block"])
    async def test_leaving_early_ends_the_call(self, backend: Backend, caller: Caller, leave: str) -> None:
        response = answer("word " * 20_000)
        backend.play(Answers(response, [DECISION, *(text("word ") for _ in range(20_000)), response]))
        stream = await getattr(caller, leave)("x")
        await until(backend.received[0].given_up)
        with pytest.raises(RuntimeError, match="not complete"):
            _ = stream.answer

    async def test_an_interruption_carries_what_came(self, backend: Backend, caller: Caller) -> None:
        error = StreamInterrupted("cut", metadata={"outputTokens": "2", "costMicroUsd": "31"}, request_id="r1")
        backend.play(Fails(error, [DECISION, text("Once"), text(" upon")]))
        reading = await caller.read("x")
        assert len(reading.events) == 3
        assert reading.partial_text == "Once upon"
        got = reading.error
        assert isinstance(got, StreamInterrupted)
        assert (got.partial_text, got.output_tokens, got.cost_micro_usd) == ("Once upon", 2, 31)
        assert (got.code, got.request_id) == (grpc.StatusCode.ABORTED, "r1")

    async def test_a_lost_connection_is_an_interruption(self, backend: Backend, caller: Caller) -> None:
        backend.play(Fails(Unavailable("Socket closed", reason=""), [DECISION, text("Once")]))
        got = (await caller.read("x")).error
        assert isinstance(got, StreamInterrupted)
        assert (got.code, got.reason, got.partial_text) == (grpc.StatusCode.UNAVAILABLE, "", "Once")

    async def test_a_typed_failure_in_the_middle_keeps_its_type(self, backend: Backend, caller: Caller) -> None:
        backend.play(Fails(DeadlineExceeded("too long", metadata={"step": "dispatch"}), [DECISION, text("Once")]))
        reading = await caller.read("x")
        assert isinstance(reading.error, DeadlineExceeded)
        assert reading.error.step == "dispatch"
        assert reading.partial_text == "Once"


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
            await caller.read("x")
