"""One suite for both forms of the client against every backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import grpc
import pytest

from kit.client_backends import DECISION, Answers, Backend, Decides, Embeds, Ends, Fails, Takes, answer, text
from kit.client_callers import Caller
from pointsman.v1.answer_pb2 import (
    STREAM_FAILOVER_CONTINUE,
    STREAM_FAILOVER_RESTART,
    Attempt,
    Delta,
    Failover,
    ToolCallDelta,
    Usage,
    Warning,
)
from pointsman.v1.completion_pb2 import DATA_CLASS_INTERNAL, TIER_ADVANCED, Reasoning
from pointsman.v1.embedding_service_pb2 import Embedding, EmbedResponse
from pointsman.v1.router_service_pb2 import RouteResponse
from pointsman_client import (
    AnswerInvalid,
    ContractViolation,
    DeadlineExceeded,
    StreamEvent,
    StreamInterrupted,
    Unavailable,
    assistant,
    tool_call,
    user,
)


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


class TestNamedDecision:
    async def test_travels_with_an_answer_and_with_a_stream(self, backend: Backend, caller: Caller) -> None:
        backend.play(Decides(RouteResponse(decision=DECISION)), *(Answers(answer("a")) for _ in range(4)))
        decision = await caller.route("x")
        await caller.complete("x", decision_id=decision.id)
        await caller.finish("x", decision_id=decision.id)
        await caller.complete("x")
        await caller.finish("x")
        assert [call.request.decision_id for call in backend.received[1:]] == ["d1", "d1", "", ""]

    async def test_is_nothing_for_a_route(self, backend: Backend, caller: Caller) -> None:
        with pytest.raises(TypeError, match="no option 'decision_id'"):
            await caller.route("x", decision_id="d1")
        assert backend.received == []


class TestFeedback:
    async def test_sends_the_verdict(self, backend: Backend, caller: Caller) -> None:
        backend.play(Takes(), Takes())
        await caller.record_feedback("order-7", 0.25, "code")
        await caller.record_feedback("order-8", 0)
        sent = [(call.request.request_id, call.request.score, call.request.label) for call in backend.received]
        assert sent == [("order-7", 0.25, "code"), ("order-8", 0.0, "")]

    async def test_carries_what_every_call_carries(self, backend: Backend, connect: Callable[..., Caller]) -> None:
        backend.play(Takes())
        caller = connect(api_key="pm_secret")
        await caller.record_feedback("r1", 1.0, timeout_seconds=5, metadata=[("x-team", "a")])
        (call,) = backend.received
        assert (call.metadata["authorization"], call.metadata["x-team"]) == ("Bearer pm_secret", "a")
        assert call.seconds == pytest.approx(5, abs=2)

    async def test_refuses_what_is_no_verdict(self, backend: Backend, caller: Caller) -> None:
        with pytest.raises(ValueError, match="score must be between"):
            await caller.record_feedback("r1", 1.5)
        with pytest.raises(TypeError, match="no option 'tier'"):
            await caller.record_feedback("r1", 1.0, tier="light")
        assert backend.received == []


class TestEmbed:
    async def test_gives_the_vectors_in_order(self, backend: Backend, caller: Caller) -> None:
        response = EmbedResponse(
            request_id="e1",
            embeddings=[Embedding(values=[1, 0]), Embedding(values=[0, 0.5])],
            usage=Usage(input_tokens=2, cost_micro_usd=1),
            attempts=[Attempt(model="tried-first"), Attempt(model="compass")],
        )
        backend.play(Embeds(response))
        got = await caller.embed(["north", "east"])
        assert [list(vector) for vector in got.vectors] == [[1, 0], [0, 0.5]]
        assert (got.model, got.usage.cost_micro_usd, got.request_id) == ("compass", 1, "e1")
        assert got.response == response

    async def test_sends_the_texts_and_the_options(self, backend: Backend, caller: Caller) -> None:
        backend.play(Embeds(EmbedResponse()), Embeds(EmbedResponse()))
        options = {
            "deployment": "in-house",
            "dimensions": 64,
            "data_class": "internal",
            "labels": {"feature": "search"},
        }
        await caller.embed(["north", "east"], regions=["eu"], max_cost_micro_usd=9, request_id="e-1", **options)
        got = await caller.embed("one text alone")
        sent, alone = (call.request for call in backend.received)
        assert (list(sent.inputs), sent.deployment, sent.dimensions) == (["north", "east"], "in-house", 64)
        assert (sent.constraints.data_class, list(sent.constraints.regions)) == (DATA_CLASS_INTERNAL, ["eu"])
        assert (sent.constraints.max_cost_micro_usd, dict(sent.labels)) == (9, {"feature": "search"})
        assert sent.request_id == "e-1"
        assert (list(alone.inputs), len(alone.request_id), got.model) == (["one text alone"], 36, "")

    async def test_carries_what_every_call_carries(self, backend: Backend, connect: Callable[..., Caller]) -> None:
        backend.play(Embeds(EmbedResponse()))
        await connect(api_key="pm_secret").embed("x", timeout_seconds=5)
        (call,) = backend.received
        assert call.metadata["authorization"] == "Bearer pm_secret"
        assert call.seconds == pytest.approx(5, abs=2)

    async def test_is_repeated_only_when_it_was_not_started(self, backend: Backend, caller: Caller) -> None:
        busy = Unavailable("busy", reason="OVERLOADED", retry_delay_seconds=0.01)
        backend.play(Fails(busy, rpc="Embed"), Embeds(EmbedResponse(request_id="e1")))
        assert (await caller.embed("x")).request_id == "e1"
        first, second = (call.request.request_id for call in backend.received)
        assert first == second
        backend.play(Fails(Unavailable("failed", reason="ALL_ATTEMPTS_FAILED"), rpc="Embed"))
        with pytest.raises(Unavailable, match="failed"):
            await caller.embed("x")

    async def test_refuses_what_cannot_be_sent(self, backend: Backend, caller: Caller) -> None:
        with pytest.raises(TypeError, match="the texts must be str, not int"):
            await caller.embed(["x", 7])
        with pytest.raises(TypeError, match="no option 'tier'"):
            await caller.embed("x", tier="light")
        with pytest.raises(TypeError, match="option 'regions' cannot be this str"):
            await caller.embed("x", regions="eu")
        assert backend.received == []


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

    async def test_an_answer_that_does_not_fit_is_shown(self, backend: Backend, caller: Caller) -> None:
        error = AnswerInvalid("misfit", text='{"a"', violations=["/a: x"], metadata={"textCharacters": "8"})
        backend.play(Fails(error, [DECISION, text('{"a": 1}')]))
        reading = await caller.read("x")
        got = reading.error
        assert isinstance(got, AnswerInvalid)
        assert (got.text, got.violations, got.is_cut) == ('{"a"', ("/a: x",), True)
        assert reading.partial_text == '{"a": 1}'

    async def test_a_typed_failure_in_the_middle_keeps_its_type(self, backend: Backend, caller: Caller) -> None:
        backend.play(Fails(DeadlineExceeded("too long", metadata={"step": "dispatch"}), [DECISION, text("Once")]))
        reading = await caller.read("x")
        assert isinstance(reading.error, DeadlineExceeded)
        assert reading.error.step == "dispatch"
        assert reading.partial_text == "Once"
