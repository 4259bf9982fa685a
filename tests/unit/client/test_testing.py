"""The in-memory double, as consumers use it."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from pointsman.v1.admin_service_pb2 import GetStatusRequest, GetStatusResponse
from pointsman.v1.answer_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FINISH_REASON_TOOL_CALLS,
    CompleteResponse,
    Delta,
)
from pointsman.v1.completion_pb2 import ROLE_ASSISTANT, CompletionSpec
from pointsman.v1.embedding_service_pb2 import EmbedRequest, EmbedResponse
from pointsman.v1.feedback_service_pb2 import RecordFeedbackRequest, RecordFeedbackResponse
from pointsman.v1.router_service_pb2 import CompleteRequest, StreamCompleteRequest
from pointsman_client import (
    AsyncClient,
    Client,
    PointsmanError,
    RateLimited,
    RequestNotFound,
    StreamInterrupted,
    Unavailable,
    assistant,
    error_from_rpc,
    tool_call,
)
from pointsman_client.testing import FakeAsyncClient, FakeClient, InMemoryRouter


def headline(client: Client, article: str) -> str:
    """A consumer's function under test."""
    try:
        return client.complete(article, system="Write a headline.", tier="light").text
    except Unavailable:
        return article[:10]


@pytest.fixture
def router() -> InMemoryRouter:
    return InMemoryRouter()


def test_a_fake_brings_its_own_router() -> None:
    client = FakeClient()
    client.in_memory.answer("Paris")
    assert client.complete("x").text == "Paris"
    assert len(client.in_memory.calls) == 1


def test_a_consumers_test(router: InMemoryRouter) -> None:
    router.answer("Dog bites man")
    router.fail(Unavailable("all failed"))
    assert headline(FakeClient(router), "Yesterday a dog …") == "Dog bites man"
    assert headline(FakeClient(router), "Yesterday a dog …") == "Yesterday "
    assert [spec.messages[0].parts[0].text for spec in router.completions] == ["Write a headline."] * 2


def test_answers_come_in_order_in_all_forms(router: InMemoryRouter) -> None:
    whole = CompleteResponse(message=assistant("three"), finish_reason=FINISH_REASON_LENGTH)
    router.answer("one", assistant("two", tool_call("c1", "now", {})), whole)
    client = FakeClient(router)
    first, second, third = (client.complete("x", request_id=f"r{number}") for number in range(3))
    assert (first.text, first.finish_reason, first.request_id) == ("one", FINISH_REASON_STOP, "r0")
    assert first.message.role == ROLE_ASSISTANT
    assert (second.text, second.finish_reason, len(second.tool_calls)) == ("two", FINISH_REASON_TOOL_CALLS, 1)
    assert (third.text, third.finish_reason) == ("three", FINISH_REASON_LENGTH)
    assert first.decision.chosen.deployment == "in-memory"


def test_a_stream_comes_word_by_word(router: InMemoryRouter) -> None:
    router.answer("Once upon  a time\n")
    stream = FakeClient(router).stream("x")
    assert list(stream.text_deltas()) == ["Once ", "upon  ", "a ", "time\n"]
    assert stream.answer.text == "Once upon  a time\n"


def test_a_stream_tells_what_it_knows_so_far(router: InMemoryRouter) -> None:
    router.answer("Once upon a time")
    stream = FakeClient(router).stream("x", request_id="r1")
    assert (stream.request_id, stream.decision, stream.partial_text) == ("r1", None, "")
    next(stream)
    next(stream)
    assert stream.decision is not None
    assert (stream.decision.chosen.deployment, stream.partial) == ("in-memory", assistant("Once "))


def test_an_empty_answer_streams_too(router: InMemoryRouter) -> None:
    router.answer("")
    assert FakeClient(router).stream("x").finish().text == ""


def test_a_stream_may_break(router: InMemoryRouter) -> None:
    router.fail(StreamInterrupted("cut", metadata={"outputTokens": "2"}), after="Once upon")
    with pytest.raises(StreamInterrupted) as raised:
        FakeClient(router).stream("x").finish()
    assert (raised.value.partial_text, raised.value.output_tokens) == ("Once upon", 2)


def test_a_handler_answers_what_is_not_scripted(router: InMemoryRouter) -> None:
    def handler(completion: CompletionSpec) -> str:
        asked = completion.messages[0].parts[0].text
        if asked == "too much":
            raise RateLimited("slow down", retry_delay_seconds=3.0)
        return asked.upper()

    router.answer_with(handler)
    router.answer("scripted")
    client = FakeClient(router)
    assert [client.complete("hi").text, client.complete("hi").text] == ["scripted", "HI"]
    assert client.stream("hi there").finish().text == "HI THERE"
    with pytest.raises(RateLimited) as raised:
        client.complete("too much", request_id="r1")
    assert (raised.value.retry_delay_seconds, raised.value.request_id) == (3.0, "r1")


def test_routes_are_decided_by_default_or_by_script(router: InMemoryRouter) -> None:
    router.route_to("opus")
    client = FakeClient(router)
    assert [client.route("x").deployment, client.route("x").deployment] == ["opus", "in-memory"]


def test_a_decision_can_be_named(router: InMemoryRouter) -> None:
    router.answer("Paris")
    client = FakeClient(router)
    decision = client.route("x")
    client.complete("x", decision_id=decision.id)
    asked = router.calls[1].request
    assert isinstance(asked, CompleteRequest)
    assert asked.decision_id == decision.id != ""


def test_verdicts_are_taken_by_default_and_can_be_looked_at(router: InMemoryRouter) -> None:
    router.answer("Paris")
    client = FakeClient(router)
    answer = client.complete("x", request_id="r1")
    client.record_feedback(answer.request_id, 1.0, "lookup")
    router.fail(RequestNotFound("too long ago"), on="RecordFeedback")
    with pytest.raises(RequestNotFound) as raised:
        client.record_feedback("r0", 0.5)
    assert raised.value.request_id == ""  # r0 names the call that is judged, not this one
    assert [(one.request_id, one.score, one.label) for one in router.verdicts] == [
        ("r1", 1.0, "lookup"),
        ("r0", 0.5, ""),
    ]


async def test_every_rpc_of_the_contract_can_be_scripted(router: InMemoryRouter) -> None:
    router.respond(EmbedResponse(request_id="e1"))
    router.respond(RecordFeedbackResponse(request_id="r1"))
    router.respond(GetStatusResponse(server_version="1.2.3"))
    async with FakeAsyncClient(router) as client:
        assert (await client.embedding.Embed(EmbedRequest(inputs=["x"]))).request_id == "e1"
        assert (await client.feedback.RecordFeedback(RecordFeedbackRequest(request_id="r1", score=1))).request_id
        assert (await client.admin.GetStatus(GetStatusRequest())).server_version == "1.2.3"
    assert [call.rpc for call in router.calls] == ["Embed", "RecordFeedback", "GetStatus"]


def test_vectors_can_be_scripted(router: InMemoryRouter) -> None:
    client = FakeClient(router)
    router.embed_with(lambda text: [float(len(text)), 0.0])
    router.embed([1, 0], [0, 1])
    scripted = client.embed(["north", "east"], request_id="e1")
    assert [list(vector) for vector in scripted.vectors] == [[1, 0], [0, 1]]
    assert (scripted.request_id, scripted.model) == ("e1", "in-memory")
    assert [list(vector) for vector in client.embed("south").vectors] == [[5, 0]]
    assert router.embedded == ["north", "east", "south"]
    router.embed([1, 0])
    with pytest.raises(AssertionError, match="1 vectors are scripted for 2 texts"):
        client.embed(["north", "east"])


def test_another_rpc_may_fail(router: InMemoryRouter) -> None:
    router.fail(PointsmanError("no", code=grpc.StatusCode.UNIMPLEMENTED, reason=""), on="Embed")
    with pytest.raises(grpc.RpcError) as raised:
        FakeClient(router).embedding.Embed(EmbedRequest(inputs=["x"]))
    assert error_from_rpc(raised.value).code is grpc.StatusCode.UNIMPLEMENTED


def test_a_call_without_a_script_fails_the_test(router: InMemoryRouter) -> None:
    with pytest.raises(AssertionError, match="Complete was called, but no answer is left"):
        FakeClient(router).complete("x")
    with pytest.raises(AssertionError, match="StreamComplete was called"):
        FakeClient(router).stream("x").finish()
    with pytest.raises(AssertionError, match="Embed was called"):
        FakeClient(router).embedding.Embed(EmbedRequest())


def test_calls_are_recorded_as_they_were_when_they_came(router: InMemoryRouter) -> None:
    router.answer("one")
    request = CompleteRequest(completion=CompletionSpec(session_id="before"))
    FakeClient(router, api_key="k", timeout_seconds=7).router.Complete(request)
    request.completion.session_id = "after"
    call = router.calls[0]
    assert (call.rpc, call.timeout_seconds, dict(call.metadata)) == ("Complete", 7, {"authorization": "Bearer k"})
    assert router.completions[0].session_id == "before"


def test_an_answer_is_the_callers_own(router: InMemoryRouter) -> None:
    whole = CompleteResponse(message=assistant("mine"))
    router.answer(whole, whole)
    client = FakeClient(router)
    client.complete("x").message.parts[0].text = "changed"
    assert client.complete("x").text == "mine"


def test_a_raw_stream_that_is_cancelled_says_so(router: InMemoryRouter) -> None:
    router.answer("one two three")
    call: Any = FakeClient(router).router.StreamComplete(StreamCompleteRequest())
    next(call)
    assert call.cancel()
    assert not call.cancel()
    with pytest.raises(grpc.RpcError) as raised:
        next(call)
    assert error_from_rpc(raised.value).code is grpc.StatusCode.CANCELLED
    assert router.calls[0].cancelled


def test_a_stream_that_was_read_to_its_end_was_not_given_up(router: InMemoryRouter) -> None:
    router.answer("one two three")
    FakeClient(router).stream("x").finish()
    assert not router.calls[0].cancelled


def test_what_no_model_answers_is_refused(router: InMemoryRouter) -> None:
    message = assistant()
    message.parts.add().image.media_type = "image/png"
    router.answer(message)
    with pytest.raises(ValueError, match="a model does not answer with image"):
        FakeClient(router).stream("x").finish()


async def test_async_calls_give_other_tasks_a_turn(router: InMemoryRouter) -> None:
    router.answer("one two three", "whole")
    turns: list[str] = []

    async def read(client: AsyncClient) -> None:
        async for text in client.stream("x").text_deltas():
            turns.append(text)
        turns.append((await client.complete("x")).text)

    async def count() -> None:
        for number in range(4):
            turns.append(str(number))
            await asyncio.sleep(0)

    async with FakeAsyncClient(router) as client, asyncio.TaskGroup() as group:
        group.create_task(read(client))
        group.create_task(count())
    assert turns.index("1") < turns.index("two ") < turns.index("3") < turns.index("whole")


def test_events_may_be_written_out(router: InMemoryRouter) -> None:
    whole = CompleteResponse(message=assistant("Paris"))
    router.stream(Delta(text="Par"), Delta(text="is"), whole)
    assert list(FakeClient(router).stream("x").text_deltas()) == ["Par", "is"]


def test_many_threads_may_ask(router: InMemoryRouter) -> None:
    router.answer(*(str(number) for number in range(200)))
    with FakeClient(router) as client, ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda _: client.complete("x").text, range(200)))
    assert sorted(texts, key=int) == [str(number) for number in range(200)]
    assert len(router.calls) == 200
