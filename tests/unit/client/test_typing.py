"""The types that callers see. A type checker does the work; running it shows that nothing here is out of date."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, assert_type

from pointsman.v1.answer_pb2 import CompleteResponse, Delta, Failover, StreamCompleteResponse, Usage, Warning
from pointsman.v1.completion_pb2 import Message, ToolCall
from pointsman.v1.decision_pb2 import ChosenDeployment, RouteDecision
from pointsman.v1.embedding_service_pb2 import EmbedRequest, EmbedResponse
from pointsman.v1.router_service_pb2 import RouteResponse, StreamCompleteRequest
from pointsman_client import (
    Answer,
    AnswerInvalid,
    AnswerStream,
    AsyncAnswerStream,
    Client,
    Decision,
    PointsmanError,
    StreamEvent,
    StreamInterrupted,
    user,
)
from pointsman_client.testing import FakeAsyncClient, FakeClient, InMemoryRouter


def test_sync() -> None:
    router = InMemoryRouter()
    router.answer("a", "b", "c", "d")
    with assert_type(FakeClient(router), FakeClient) as client:
        answer = assert_type(client.complete("x", tier="light", temperature=0.5), Answer)
        assert_type(answer.text, str)
        assert_type(answer.tool_calls, Sequence[ToolCall])
        assert_type(answer.message, Message)
        assert_type(answer.usage, Usage)
        assert_type(answer.response, CompleteResponse)
        decision = assert_type(client.route([user("x")]), Decision)
        assert_type(decision.id, str)
        client.record_feedback(answer.request_id, 1, "code", timeout_seconds=5)
        assert_type(decision.chosen, ChosenDeployment)
        assert_type(decision.response, RouteResponse)
        with assert_type(client.stream("x", failover="restart"), AnswerStream) as stream:
            for event in stream:
                assert_type(event, RouteDecision | Delta | Failover | Warning | CompleteResponse)
            assert_type(stream.answer, Answer)
        assert_type(client.stream("x").text_deltas(), Iterator[str])
        assert_type(client.stream("x").finish(), Answer)
        for raw in client.router.StreamComplete(StreamCompleteRequest()):
            assert_type(raw, StreamCompleteResponse)
        router.respond(EmbedResponse())
        assert_type(client.embedding.Embed(EmbedRequest(inputs=["x"])), EmbedResponse)


async def test_async() -> None:
    router = InMemoryRouter()
    router.answer("a", "b", "c")
    async with assert_type(FakeAsyncClient(router), FakeAsyncClient) as client:
        assert_type(await client.complete("x", data_class="internal"), Answer)
        assert_type(await client.route("x"), Decision)
        await client.record_feedback("r1", 0.5)
        async with assert_type(client.stream("x"), AsyncAnswerStream) as stream:
            async for event in stream:
                assert_type(event, StreamEvent)
            assert_type(stream.answer, Answer)
        assert_type(client.stream("x").text_deltas(), AsyncIterator[str])
        assert_type(await client.stream("x").finish(), Answer)
        router.respond(EmbedResponse())
        assert_type(await client.embedding.Embed(EmbedRequest(inputs=["x"])), EmbedResponse)


def test_errors() -> None:
    error = PointsmanError("m")
    assert_type(error.retry_delay_seconds, float | None)
    assert_type(StreamInterrupted("m").partial, Message)
    assert_type(AnswerInvalid("m").violations, tuple[str, ...])
    assert_type(StreamInterrupted("m").output_tokens, int | None)


def refused(client: Client) -> Sequence[Callable[[], Any]]:
    """Wrong options are found before anything runs; `warn_unused_ignores` makes sure of it."""
    return (
        lambda: client.complete("x", temprature=1),  # type: ignore[call-arg]
        lambda: client.complete("x", tier="huge"),  # type: ignore[arg-type]
        lambda: client.complete("x", failover="restart"),  # type: ignore[call-arg]
        lambda: client.stream("x", temperature="hot"),  # type: ignore[arg-type]
        lambda: client.complete(["x"]),  # type: ignore[list-item]
        lambda: client.route("x", decision_id="d"),  # type: ignore[call-arg]
        lambda: client.record_feedback("r1", "good"),  # type: ignore[arg-type]
        lambda: client.record_feedback("r1", 1.0, tier="light"),  # type: ignore[call-arg]
    )


def test_wrong_options_are_refused_at_run_time_too() -> None:
    for call in refused(FakeClient()):
        try:
            call()
        except (TypeError, ValueError):
            continue
        raise AssertionError("a wrong option was taken")
