"""The synchronous client."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc

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
from pointsman_client._settings import PreparedCall, Settings
from pointsman_client._streaming import StreamedAnswer, StreamEvent, text_in
from pointsman_client._stubs import with_defaults

Response = TypeVar("Response")


class Client:
    """Asks a pointsman server; one client serves any number of threads.

    `target` is host:port or any other gRPC target. Give a `channel` of your own to connect in another way; it is
    closed with the client. `router`, `embedding`, `feedback` and `admin` are the contract's own stubs: they carry
    the client's API key, metadata and deadlines, retry nothing, and raise `grpc.RpcError`.
    """

    def __init__(self, target: str, *, channel: grpc.Channel | None = None, **options: Unpack[ClientOptions]) -> None:
        self._settings = Settings.of(target, options)
        self._channel = channel if channel is not None else _open(self._settings.connection)
        self._closed = False
        defaults = self._settings.defaults
        self.router = with_defaults(RouterServiceStub(self._channel), defaults)
        self.embedding = with_defaults(EmbeddingServiceStub(self._channel), defaults)
        self.feedback = with_defaults(FeedbackServiceStub(self._channel), defaults)
        self.admin = with_defaults(AdminServiceStub(self._channel), defaults)

    def complete(self, prompt: Prompt, **options: Unpack[CompletionOptions]) -> Answer:
        """Asks and waits for the whole answer; raises PointsmanError."""
        call = self._settings.prepare(Method.COMPLETE, prompt, options)
        request = CompleteRequest(completion=call.completion, decision_id=decision_id_from(options))
        return Answer(self._make(call, self.router.Complete, request))

    def route(self, prompt: Prompt, **options: Unpack[RouteOptions]) -> Decision:
        """Asks which deployment would answer, without calling one or spending anything; raises PointsmanError."""
        call = self._settings.prepare(Method.ROUTE, prompt, options)
        return Decision(self._make(call, self.router.Route, RouteRequest(completion=call.completion)))

    def stream(self, prompt: Prompt, **options: Unpack[StreamOptions]) -> AnswerStream:
        """Asks for the answer piece by piece. Nothing is sent until the stream is read."""
        call = self._settings.prepare(Method.STREAM_COMPLETE, prompt, options)
        request = StreamCompleteRequest(
            completion=call.completion, failover=failover_from(options), decision_id=decision_id_from(options)
        )

        def open_rpc(timeout_seconds: float) -> Any:
            self._refuse_if_closed()
            return self.router.StreamComplete(request, timeout=timeout_seconds, metadata=call.metadata)

        return AnswerStream(open_rpc, call.attempts)

    def embed(self, texts: str | Sequence[str], **options: Unpack[EmbedOptions]) -> Embeddings:
        """Asks for the vectors of up to 2048 texts, or of one; raises PointsmanError."""
        call = self._settings.prepare_embedding(texts, options)
        return Embeddings(self._make(call, self.embedding.Embed, call.request))

    def record_feedback(self, request_id: str, score: float, label: str = "", **options: Unpack[CallOptions]) -> None:
        """Says how good the answer to a call was, 0 (useless) to 1 (perfect); a second verdict replaces the first.

        A `label` that names a task type, "code" for example, says what was asked for. Raises PointsmanError.
        """
        request = feedback_from(request_id, score, label)
        self._make(self._settings.prepare_feedback(options), self.feedback.RecordFeedback, request)

    def close(self) -> None:
        """Ends all calls and closes the connection; a second time does nothing."""
        self._closed = True
        self._channel.close()

    def _make(self, call: PreparedCall, method: Callable[..., Response], request: Any) -> Response:
        while True:
            self._refuse_if_closed()
            try:
                return method(request, timeout=call.attempts.begin(), metadata=call.metadata)
            except grpc.RpcError as error:
                delay_seconds = call.attempts.delay_after(error)
            time.sleep(delay_seconds)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise RuntimeError("the client is closed; make a new one")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self._settings.connection.target!r})"


class AnswerStream(StreamedAnswer, Iterator[StreamEvent]):
    """An answer that comes in pieces.

    A `for` loop over it, or over `text_deltas()`, ends the call when it is left early, and so does the end of a
    `with` block. `next()` reads a single event and leaves the call open.
    """

    def __init__(self, open_rpc: Callable[[float], Any], attempts: Attempts) -> None:
        super().__init__(attempts)
        self._open_rpc = open_rpc
        self._rpc: Any = None

    def __iter__(self) -> Iterator[StreamEvent]:
        return self._each(lambda event: event)

    def text_deltas(self) -> Iterator[str]:
        """The text of the answer, piece by piece. With failover "restart" it may begin anew: watch for `Failover`."""
        return self._each(text_in)

    def finish(self) -> Answer:
        """Reads what is left and returns the whole answer."""
        for _ in self:
            pass
        return self.answer

    def close(self) -> None:
        """Ends the call; reading on raises `Cancelled`. A second time, or after the end, it does nothing."""
        self._closed = True
        if self._rpc is not None:
            _hang_up(self._rpc)

    def __next__(self) -> StreamEvent:
        while not self._over:
            try:
                response = self._read()
                if response is None:
                    self._end()
                    break
                event = self._take(response)
            except BaseException:
                self.close()
                raise
            if event is not None:
                return event
        raise StopIteration

    def _read(self) -> StreamCompleteResponse | None:
        while True:
            self._refuse_if_closed()
            if self._rpc is None:
                self._rpc = self._open_rpc(self._attempts.begin())
            try:
                response: StreamCompleteResponse | None = next(self._rpc, None)
                return response
            except grpc.RpcError as error:
                delay_seconds = self._delay_after(error)
            if delay_seconds is None:
                return None
            self._rpc = None
            time.sleep(delay_seconds)

    def _each(self, pick: Callable[[StreamEvent], Response | None]) -> Iterator[Response]:
        try:
            while (event := next(self, None)) is not None:
                picked = pick(event)
                if picked is not None:
                    yield picked
        finally:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _open(connection: Connection) -> grpc.Channel:
    if connection.credentials is None:
        return grpc.insecure_channel(connection.target, connection.options)
    return grpc.secure_channel(connection.target, connection.credentials, connection.options)


def _hang_up(rpc: Any) -> None:
    if hasattr(rpc, "cancel"):
        rpc.cancel()
        return
    # Interceptors of tracing put a generator in the call's place. Closing it lets go of the call, which cancels it;
    # while another thread is reading from it that is not possible, and the read that comes next finds it closed.
    with suppress(ValueError):
        rpc.close()
