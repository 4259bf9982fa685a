"""What the client's suite runs against: servers that play scenes.

A scene says how one call goes, in the contract's own words, so that a server, the client's in-memory double, or any
other backend can play it. Add a backend by putting it into `BACKENDS`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as PackedDetail
from google.protobuf.message import Message as ProtoMessage
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from kit.client_callers import Target
from pointsman.v1 import (
    answer_pb2,
    decision_pb2,
    embedding_service_pb2,
    embedding_service_pb2_grpc,
    feedback_service_pb2,
    feedback_service_pb2_grpc,
    router_service_pb2,
    router_service_pb2_grpc,
)
from pointsman_client import AnswerInvalid, AsyncClient, Client, PointsmanError, StreamEvent, assistant
from pointsman_client.testing import FakeAsyncClient, FakeClient, InMemoryRouter, RecordedCall

DECISION = decision_pb2.RouteDecision(decision_id="d1", chosen=decision_pb2.ChosenDeployment(deployment="haiku"))


def answer(*content: Any, **fields: Any) -> answer_pb2.CompleteResponse:
    """A whole answer of these parts."""
    stop = answer_pb2.FINISH_REASON_STOP
    response = answer_pb2.CompleteResponse(request_id="r1", finish_reason=stop, decision=DECISION, **fields)
    response.message.CopyFrom(assistant(*content))
    return response


def text(piece: str, index: int = 0) -> answer_pb2.Delta:
    """A piece of text."""
    return answer_pb2.Delta(text=piece, part_index=index)


@dataclass(frozen=True)
class Answers:
    """The call is answered so; a stream brings these events."""

    response: answer_pb2.CompleteResponse
    events: Sequence[StreamEvent] = ()


@dataclass(frozen=True)
class Decides:
    """`Route` is answered so."""

    response: router_service_pb2.RouteResponse


@dataclass(frozen=True)
class Takes:
    """The verdict is taken."""

    response = feedback_service_pb2.RecordFeedbackResponse(request_id="r1")


@dataclass(frozen=True)
class Embeds:
    """`Embed` is answered so."""

    response: embedding_service_pb2.EmbedResponse


@dataclass(frozen=True)
class Fails:
    """The call fails with this error; a stream brings the events first."""

    error: PointsmanError
    events: Sequence[StreamEvent] = ()
    rpc: str = "Complete"


@dataclass(frozen=True)
class Ends:
    """A stream brings these events and ends without an error."""

    events: Sequence[StreamEvent]


Scene = Answers | Decides | Takes | Embeds | Fails | Ends


@dataclass
class Received:
    """A call as the backend saw it; `given_up` is set when its caller went away before the end."""

    rpc: str
    request: Any
    metadata: dict[str, str | bytes]
    seconds: float | None
    given_up: Callable[[], bool]


class Backend(Protocol):
    """A server to test against."""

    def play(self, *scenes: Scene) -> None:
        """The next calls go so, one scene each."""

    @property
    def received(self) -> list[Received]:
        """The calls that came, in order."""

    def client(self, **options: Any) -> Client:
        """A sync client of this server."""

    def async_client(self, **options: Any) -> AsyncClient:
        """An async client of this server."""


class DoubleBackend:
    """The client's own in-memory double."""

    def __init__(self) -> None:
        self.router = InMemoryRouter()

    def play(self, *scenes: Scene) -> None:
        for scene in scenes:
            match scene:
                case Answers(response, ()):
                    self.router.answer(response)
                case Answers(_, events) | Ends(events):
                    self.router.stream(*events)
                case Decides(response):
                    self.router.route_to(response)
                case Takes() | Embeds():
                    self.router.respond(scene.response)
                case Fails(error, (), rpc):
                    self.router.fail(error, on=rpc)
                case Fails(error, events):
                    self.router.stream(*events, error=error)

    @property
    def received(self) -> list[Received]:
        return [_as_received(call) for call in self.router.calls]

    def client(self, **options: Any) -> Client:
        return FakeClient(self.router, **options)

    def async_client(self, **options: Any) -> AsyncClient:
        return FakeAsyncClient(self.router, **options)


def _as_received(call: RecordedCall) -> Received:
    return Received(call.rpc, call.request, dict(call.metadata), call.timeout_seconds, lambda: call.cancelled)


class ScriptedRouter(
    router_service_pb2_grpc.RouterServiceServicer,
    feedback_service_pb2_grpc.FeedbackServiceServicer,
    embedding_service_pb2_grpc.EmbeddingServiceServicer,
):
    """A servicer that plays scenes and speaks the contract with the library's own means."""

    def __init__(self) -> None:
        self.scenes: deque[Scene] = deque()
        self.received: list[Received] = []

    async def Route(self, request: Any, context: Any) -> Any:
        return await self._unary("Route", request, context)

    async def Complete(self, request: Any, context: Any) -> Any:
        return await self._unary("Complete", request, context)

    async def RecordFeedback(self, request: Any, context: Any) -> Any:
        return await self._unary("RecordFeedback", request, context)

    async def Embed(self, request: Any, context: Any) -> Any:
        return await self._unary("Embed", request, context)

    async def StreamComplete(self, request: Any, context: Any) -> None:  # type: ignore[override]  # it writes
        ended: list[bool] = []
        self._record("StreamComplete", request, context, lambda: ended == [False])
        scene = self.scenes.popleft()
        try:
            for event in _events(scene):
                await context.write(_as_response(event))
            if isinstance(scene, Fails):
                await _abort(context, scene.error)
            ended.append(True)
        finally:
            ended.append(bool(ended))

    async def _unary(self, rpc: str, request: Any, context: Any) -> Any:
        self._record(rpc, request, context, lambda: False)
        scene = self.scenes.popleft()
        match scene:
            case Fails(error):
                await _abort(context, error)
            case Answers(response) | Decides(response) | Embeds(response):
                return response
            case Takes():
                return scene.response
            case _:
                raise TypeError(f"{rpc} cannot play {scene}")

    def _record(self, rpc: str, request: Any, context: Any, given_up: Callable[[], bool]) -> None:
        metadata = dict(context.invocation_metadata())
        self.received.append(Received(rpc, request, metadata, context.time_remaining(), given_up))


@dataclass
class GrpcBackend(Target):
    """A real server on 127.0.0.1 that plays scenes."""

    router: ScriptedRouter

    @property
    def received(self) -> list[Received]:
        return self.router.received

    def play(self, *scenes: Scene) -> None:
        self.router.scenes.extend(scenes)


@asynccontextmanager
async def double_backend() -> AsyncIterator[DoubleBackend]:
    yield DoubleBackend()


@asynccontextmanager
async def grpc_backend() -> AsyncIterator[GrpcBackend]:
    router = ScriptedRouter()
    async with serving(router) as target:
        yield GrpcBackend(target, router)


@asynccontextmanager
async def serving(router: ScriptedRouter, address: str = "127.0.0.1:0") -> AsyncIterator[str]:
    """A server of this servicer; gives its target."""
    server = grpc.aio.server()
    router_service_pb2_grpc.add_RouterServiceServicer_to_server(router, server)
    feedback_service_pb2_grpc.add_FeedbackServiceServicer_to_server(router, server)
    embedding_service_pb2_grpc.add_EmbeddingServiceServicer_to_server(router, server)
    port = server.add_insecure_port(address)
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


BACKENDS: dict[str, Callable[[], AbstractAsyncContextManager[Backend]]] = {
    "server": grpc_backend,
    "double": double_backend,
}


def _events(scene: Scene) -> Sequence[StreamEvent]:
    match scene:
        case Answers(response, ()):
            deltas = [
                answer_pb2.Delta(text=part.text, part_index=index, signature=part.signature)
                for index, part in enumerate(response.message.parts)
            ]
            return [response.decision, *deltas, response]
        case Answers(_, events) | Fails(_, events) | Ends(events):
            return events
        case _:
            raise TypeError(f"a stream cannot play {scene}")


def _as_response(event: StreamEvent) -> answer_pb2.StreamCompleteResponse:
    fields = {"RouteDecision": "decision", "CompleteResponse": "completed"}
    name = fields.get(event.DESCRIPTOR.name, event.DESCRIPTOR.name.lower())
    arguments: dict[str, Any] = {name: event}
    return answer_pb2.StreamCompleteResponse(**arguments)


async def _abort(context: Any, error: PointsmanError) -> None:
    trailers: list[tuple[str, str | bytes]] = [("x-request-id", error.request_id)] if error.request_id else []
    if error.reason:
        trailers += rpc_status.to_status(_status(error)).trailing_metadata
    await context.abort(error.code, error.message, tuple(trailers))


def _status(error: PointsmanError) -> status_pb2.Status:
    status = status_pb2.Status(code=error.code.value[0], message=error.message)
    details = error_details_pb2
    _pack(status, details.ErrorInfo(reason=error.reason, domain="pointsman.v1", metadata=error.metadata))
    if error.retry_delay_seconds is not None:
        retry = details.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_delay_seconds * 1000))
        _pack(status, retry)
    if error.field_violations:
        request = details.BadRequest()
        for item in error.field_violations:
            request.field_violations.add(field=item.field, description=item.description)
        _pack(status, request)
    if error.precondition_violations:
        precondition = details.PreconditionFailure()
        for unmet in error.precondition_violations:
            precondition.violations.add(type=unmet.type, subject=unmet.subject, description=unmet.description)
        _pack(status, precondition)
    if error.quota_violations:
        quota = details.QuotaFailure()
        for reached in error.quota_violations:
            quota.violations.add(subject=reached.subject, description=reached.description)
        _pack(status, quota)
    if isinstance(error, AnswerInvalid):
        _pack(status, answer_pb2.InvalidAnswer(text=error.text, violations=error.violations))
    return status


def _pack(status: status_pb2.Status, detail: ProtoMessage) -> None:
    packed = PackedDetail()
    packed.Pack(detail)
    status.details.append(packed)
