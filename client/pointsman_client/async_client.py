"""The asynchronous client: the same surface as the synchronous one, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, cast
from weakref import WeakSet

import grpc
import grpc.aio

from pointsman.v1.admin_service_pb2_grpc import AdminServiceStub
from pointsman.v1.answer_pb2 import StreamCompleteResponse
from pointsman.v1.embedding_service_pb2_grpc import EmbeddingServiceStub
from pointsman.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest
from pointsman.v1.router_service_pb2_grpc import RouterServiceStub
from pointsman_client._answers import Answer, Decision, Embeddings
from pointsman_client._connection import Connection
from pointsman_client._options import (
    CallOptions,
    ClientOptions,
    CompletionOptions,
    EmbedOptions,
    Prompt,
    RouteOptions,
    StreamOptions,
    decision_id_from,
    failover_from,
    feedback_from,
)
from pointsman_client._retrying import Attempts, Method
from pointsman_client._settings import CallDefaults, PreparedCall, Settings
from pointsman_client._streaming import StreamedAnswer, StreamEvent, text_in
from pointsman_client._stubs import with_defaults
from pointsman_client.errors import Cancelled

if TYPE_CHECKING:  # the generated code has these for type checkers only
    from pointsman.v1.admin_service_pb2_grpc import AdminServiceAsyncStub
    from pointsman.v1.embedding_service_pb2_grpc import EmbeddingServiceAsyncStub
    from pointsman.v1.feedback_service_pb2_grpc import FeedbackServiceAsyncStub
    from pointsman.v1.router_service_pb2_grpc import RouterServiceAsyncStub

Response = TypeVar("Response")
Picked = TypeVar("Picked")


class AsyncClient:
    """Asks a pointsman server from one event loop, any number of calls at a time.

    `target` is host:port or any other gRPC target. It connects at the first call, so that it can be made before the
    loop runs. Give a `channel` of your own to connect in another way; it is closed with the client. `router`,
    `embedding`, `feedback` and `admin` are the contract's own stubs: they carry the client's API key, metadata and
    deadlines, retry nothing, and raise `grpc.RpcError`.
    """

    def __init__(
        self, target: str, *, channel: grpc.aio.Channel | None = None, **options: Unpack[ClientOptions]
    ) -> None:
        self._settings = Settings.of(target, options)
        self._channel = channel
        self._opened: _Stubs | None = None
        self._streams: WeakSet[AsyncAnswerStream] = WeakSet()
        self._closed = False

    async def complete(self, prompt: Prompt, **options: Unpack[CompletionOptions]) -> Answer:
        """Asks and waits for the whole answer; raises PointsmanError."""
        call = self._settings.prepare(Method.COMPLETE, prompt, options)
        request = CompleteRequest(completion=call.completion, decision_id=decision_id_from(options))
        return Answer(await self._make(call, lambda stubs: stubs.router.Complete, request))

    async def route(self, prompt: Prompt, **options: Unpack[RouteOptions]) -> Decision:
        """Asks which deployment would answer, without calling one or spending anything; raises PointsmanError."""
        call = self._settings.prepare(Method.ROUTE, prompt, options)
        request = RouteRequest(completion=call.completion)
        return Decision(await self._make(call, lambda stubs: stubs.router.Route, request))

    def stream(self, prompt: Prompt, **options: Unpack[StreamOptions]) -> AsyncAnswerStream:
        """Asks for the answer piece by piece. Nothing is sent until the stream is read."""
        call = self._settings.prepare(Method.STREAM_COMPLETE, prompt, options)
        request = StreamCompleteRequest(
            completion=call.completion, failover=failover_from(options), decision_id=decision_id_from(options)
        )

        def open_rpc(timeout_seconds: float) -> Any:
            return self.router.StreamComplete(request, timeout=timeout_seconds, metadata=call.metadata)

        stream = AsyncAnswerStream(open_rpc, call.attempts)
        self._streams.add(stream)
        return stream

    async def embed(self, texts: str | Sequence[str], **options: Unpack[EmbedOptions]) -> Embeddings:
        """Asks for the vectors of up to 2048 texts, or of one; raises PointsmanError."""
        call = self._settings.prepare_embedding(texts, options)
        return Embeddings(await self._make(call, lambda stubs: stubs.embedding.Embed, call.request))

    async def record_feedback(
        self, request_id: str, score: float, label: str = "", **options: Unpack[CallOptions]
    ) -> None:
        """Says how good the answer to a call was, 0 (useless) to 1 (perfect); a second verdict replaces the first.

        A `label` that names a task type, "code" for example, says what was asked for. Raises PointsmanError.
        """
        request = feedback_from(request_id, score, label)
        call = self._settings.prepare_feedback(options)
        await self._make(call, lambda stubs: stubs.feedback.RecordFeedback, request)

    @property
    def router(self) -> RouterServiceAsyncStub:
        """Stub of the contract's RouterService."""
        return self._stubs().router

    @property
    def embedding(self) -> EmbeddingServiceAsyncStub:
        """Stub of the contract's EmbeddingService."""
        return self._stubs().embedding

    @property
    def feedback(self) -> FeedbackServiceAsyncStub:
        """Stub of the contract's FeedbackService."""
        return self._stubs().feedback

    @property
    def admin(self) -> AdminServiceAsyncStub:
        """Stub of the contract's AdminService."""
        return self._stubs().admin

    async def close(self) -> None:
        """Ends all calls and closes the connection; a second time does nothing."""
        self._closed = True
        for stream in tuple(self._streams):
            stream._give_up()  # not every version of gRPC does this when the channel is closed
        if self._channel is not None:
            await self._channel.close(None)

    async def _make(
        self,
        call: PreparedCall,
        pick: Callable[[_Stubs], Callable[..., Awaitable[Response]]],
        request: Any,
    ) -> Response:
        while True:
            try:
                return await pick(self._stubs())(request, timeout=call.attempts.begin(), metadata=call.metadata)
            except grpc.RpcError as error:
                delay_seconds = call.attempts.delay_after(error)
            except asyncio.CancelledError:
                if _is_task_cancelled():
                    raise
                raise Cancelled("the client was closed", reason="", request_id=call.attempts.request_id) from None
            await asyncio.sleep(delay_seconds)

    def _stubs(self) -> _Stubs:
        if self._closed:
            raise RuntimeError("the client is closed; make a new one")
        if self._opened is None:
            self._channel = self._channel if self._channel is not None else _open(self._settings.connection)
            self._opened = _Stubs.of(self._channel, self._settings.defaults)
        return self._opened

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"AsyncClient({self._settings.connection.target!r})"


class AsyncAnswerStream(StreamedAnswer, AsyncIterator[StreamEvent]):
    """An answer that comes in pieces.

    An `async for` loop over it, or over `text_deltas()`, ends the call when it is left early, and so does the end of
    an `async with` block. `anext()` reads a single event and leaves the call open.
    """

    def __init__(self, open_rpc: Callable[[float], Any], attempts: Attempts) -> None:
        super().__init__(attempts)
        self._open_rpc = open_rpc
        self._rpc: Any = None
        self._responses: AsyncIterator[StreamCompleteResponse] | None = None

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return _Loop(self, lambda event: event)

    def text_deltas(self) -> AsyncIterator[str]:
        """The text of the answer, piece by piece. With failover "restart" it may begin anew: watch for `Failover`."""
        return _Loop(self, text_in)

    async def finish(self) -> Answer:
        """Reads what is left and returns the whole answer."""
        async for _ in self:
            pass
        return self.answer

    async def close(self) -> None:
        """Ends the call; reading on raises `Cancelled`. A second time, or after the end, it does nothing."""
        self._give_up()

    def _give_up(self) -> None:
        self._closed = True
        if self._rpc is not None:
            self._rpc.cancel()

    async def __anext__(self) -> StreamEvent:
        while not self._over:
            try:
                response = await self._read()
                if response is None:
                    self._end()
                    break
                event = self._take(response)
            except BaseException:
                self._give_up()
                raise
            if event is not None:
                return event
        raise StopAsyncIteration

    async def _read(self) -> StreamCompleteResponse | None:
        while True:
            self._refuse_if_closed()
            if self._responses is None:
                self._rpc = self._open_rpc(self._attempts.begin())
                self._responses = aiter(self._rpc)
            try:
                return await anext(self._responses, None)
            except grpc.RpcError as error:
                delay_seconds = self._delay_after(error)
            except asyncio.CancelledError:
                if _is_task_cancelled():
                    raise
                raise self._given_up() from None
            if delay_seconds is None:
                return None
            self._responses = None
            await asyncio.sleep(delay_seconds)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._give_up()

    def __del__(self) -> None:
        self._give_up()  # gRPC's own call waits for two runs of the garbage collector


class _Loop(AsyncIterator[Picked], Generic[Picked]):
    """One loop over a stream. An async generator left early would end the call only when the loop gets round to it."""

    def __init__(self, stream: AsyncAnswerStream, pick: Callable[[StreamEvent], Picked | None]) -> None:
        self._stream = stream
        self._pick = pick

    async def __anext__(self) -> Picked:
        while True:
            picked = self._pick(await self._stream.__anext__())
            if picked is not None:
                return picked

    def __del__(self) -> None:
        self._stream._give_up()


@dataclass(frozen=True, slots=True)
class _Stubs:
    router: RouterServiceAsyncStub
    embedding: EmbeddingServiceAsyncStub
    feedback: FeedbackServiceAsyncStub
    admin: AdminServiceAsyncStub

    @classmethod
    def of(cls, channel: grpc.aio.Channel, defaults: CallDefaults) -> _Stubs:
        return cls(
            router=cast("RouterServiceAsyncStub", with_defaults(RouterServiceStub(channel), defaults)),
            embedding=cast("EmbeddingServiceAsyncStub", with_defaults(EmbeddingServiceStub(channel), defaults)),
            feedback=cast("FeedbackServiceAsyncStub", with_defaults(FeedbackServiceStub(channel), defaults)),
            admin=cast("AdminServiceAsyncStub", with_defaults(AdminServiceStub(channel), defaults)),
        )


def _open(connection: Connection) -> grpc.aio.Channel:
    if connection.credentials is None:
        return grpc.aio.insecure_channel(connection.target, connection.options)
    return grpc.aio.secure_channel(connection.target, connection.credentials, connection.options)


def _is_task_cancelled() -> bool:
    """Whether a CancelledError means this task; otherwise only the call it waits for was given up."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
