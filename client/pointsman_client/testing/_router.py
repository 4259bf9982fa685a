"""The router in memory: a script of answers and a record of calls."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.message import Message as ProtoMessage

from pointsman.v1 import admin_service_pb2, embedding_service_pb2, feedback_service_pb2, router_service_pb2
from pointsman.v1.answer_pb2 import ATTEMPT_OUTCOME_SUCCEEDED, Attempt
from pointsman.v1.completion_pb2 import CompletionSpec, Message, Part
from pointsman.v1.embedding_service_pb2 import Embedding, EmbedRequest, EmbedResponse
from pointsman.v1.feedback_service_pb2 import RecordFeedbackRequest, RecordFeedbackResponse
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, RouteResponse, StreamCompleteRequest
from pointsman_client._streaming import StreamEvent
from pointsman_client.errors import PointsmanError
from pointsman_client.testing._script import (
    DEPLOYMENT,
    AnswerLike,
    Outcome,
    decision,
    deltas_of,
    events_of,
    rpc_error,
    streamed,
    whole_answer,
)

Handler = Callable[[CompletionSpec], AnswerLike]
Embedder = Callable[[str], Sequence[float]]
Script = Callable[[str, Any], Outcome]

_COMPLETION = "Complete"
_SERVICES: tuple[ServiceDescriptor, ...] = (
    router_service_pb2.DESCRIPTOR.services_by_name["RouterService"],
    embedding_service_pb2.DESCRIPTOR.services_by_name["EmbeddingService"],
    feedback_service_pb2.DESCRIPTOR.services_by_name["FeedbackService"],
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"],
)
_RPC_BY_RESPONSE = {rpc.output_type.full_name: rpc.name for service in _SERVICES for rpc in service.methods}


@dataclass(slots=True)
class RecordedCall:
    """A call that came: the RPC's name, the request, the deadline in seconds, and the metadata.

    `cancelled` tells whether the caller gave a stream up before its end.
    """

    rpc: str
    request: ProtoMessage
    timeout_seconds: float | None
    metadata: Sequence[tuple[str, str | bytes]]
    cancelled: bool = False
    responses: tuple[ProtoMessage, ...] = field(default=(), repr=False)
    error: grpc.aio.AioRpcError | None = field(default=None, repr=False)


class InMemoryRouter:
    """Answers the calls of its `FakeClient`s by script, in the order in which the script was written.

    `Complete` and `StreamComplete` share a queue: an answer is given whole or streamed word by word, as the caller
    asks. `Route` has a queue of its own and decides for the deployment "in-memory" when that is empty; every other
    RPC has one too. Where nothing is scripted, `answer_with` and `embed_with` stand in, and `RecordFeedback` takes
    every verdict. A call that finds no answer raises AssertionError. Safe for any number of threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: defaultdict[str, deque[Script]] = defaultdict(deque)
        self._handler: Handler | None = None
        self._embedder: Embedder | None = None
        self.calls: list[RecordedCall] = []

    @property
    def completions(self) -> list[CompletionSpec]:
        """What was asked so far, in order."""
        kinds = (CompleteRequest, StreamCompleteRequest, RouteRequest)
        return [call.request.completion for call in self.calls if isinstance(call.request, kinds)]

    @property
    def embedded(self) -> list[str]:
        """The texts that vectors were asked for so far, in order."""
        return [text for call in self.calls if isinstance(call.request, EmbedRequest) for text in call.request.inputs]

    @property
    def verdicts(self) -> list[RecordFeedbackRequest]:
        """The verdicts that were given so far, in order; those that a script refused are among them."""
        return [call.request for call in self.calls if isinstance(call.request, RecordFeedbackRequest)]

    def answer(self, *answers: AnswerLike) -> None:
        """The next completions are answered so: with a text, a message, or a whole `CompleteResponse`."""
        for answer in answers:
            self._add(_COMPLETION, partial(_answered, answer))

    def answer_with(self, handler: Handler) -> None:
        """Completions for which nothing is scripted are answered by the handler; it may raise PointsmanError."""
        self._handler = handler

    def embed(self, *vectors: Sequence[float]) -> None:
        """The next `Embed` is answered with these vectors, one for each of its texts."""
        self._add("Embed", lambda rpc, request: _embedded(vectors, request))

    def embed_with(self, embedder: Embedder) -> None:
        """Texts for whose call nothing is scripted get the vectors that this makes of them."""
        self._embedder = embedder

    def stream(self, *events: StreamEvent, error: PointsmanError | None = None) -> None:
        """The next stream brings exactly these events, then the error if there is one."""
        self._add(_COMPLETION, lambda rpc, request: Outcome(streamed(events), error))

    def fail(self, error: PointsmanError, *, after: str = "", on: str = _COMPLETION) -> None:
        """The next completion fails with this error; a stream brings the text `after` first.

        `on` names another RPC, "Route" or "Embed" for example.
        """
        self._add(on, partial(_failed, error, after))

    def route_to(self, decided: str | RouteResponse) -> None:
        """The next `Route` decides for this deployment, or answers so."""
        self._add("Route", partial(_routed, decided))

    def respond(self, response: ProtoMessage) -> None:
        """The next call of the RPC that answers with this type of message gets it."""
        self._add(_RPC_BY_RESPONSE[response.DESCRIPTOR.full_name], lambda rpc, request: Outcome((response,)))

    def _add(self, rpc: str, script: Script) -> None:
        with self._lock:
            self._queues[rpc].append(script)

    def serve(self, path: str, request: Any, timeout: float | None, metadata: Any) -> RecordedCall:
        """Takes a call in, as the clients' channels do, and says how it goes."""
        rpc = path.rpartition("/")[2]
        call = RecordedCall(rpc, request, timeout, metadata)
        with self._lock:
            self.calls.append(call)
            queue = self._queues[_COMPLETION if rpc == "StreamComplete" else rpc]
            script = queue.popleft() if queue else self._unscripted(rpc)
        outcome = script(rpc, request)
        call.responses = outcome.responses
        if outcome.error is not None:
            call.error = rpc_error(outcome.error, _request_id(request))
        return call

    def _unscripted(self, rpc: str) -> Script:
        if rpc == "Route":
            return partial(_routed, DEPLOYMENT)
        if rpc == "RecordFeedback":
            return _taken
        embedder = self._embedder
        if rpc == "Embed" and embedder is not None:
            return lambda rpc, request: _embedded([embedder(text) for text in request.inputs], request)
        if rpc in (_COMPLETION, "StreamComplete") and self._handler is not None:
            return partial(_handled, self._handler)
        raise AssertionError(f"{rpc} was called, but no answer is left: script one more")


def _answered(answer: AnswerLike, rpc: str, request: Any) -> Outcome:
    response = whole_answer(answer, _request_id(request))
    return Outcome(streamed(events_of(response)) if rpc == "StreamComplete" else (response,))


def _handled(handler: Handler, rpc: str, request: Any) -> Outcome:
    try:
        return _answered(handler(request.completion), rpc, request)
    except PointsmanError as error:
        return Outcome(error=error)


def _failed(error: PointsmanError, after: str, rpc: str, request: Any) -> Outcome:
    if rpc != "StreamComplete" or not after:
        return Outcome(error=error)
    begun = Message(parts=[Part(text=after)])
    return Outcome(streamed([decision(), *deltas_of(begun)]), error)


def _routed(decided: str | RouteResponse, rpc: str, request: Any) -> Outcome:
    if isinstance(decided, str):
        decided = RouteResponse(decision=decision(decided), request_id=_request_id(request))
    return Outcome((decided,))


def _embedded(vectors: Sequence[Sequence[float]], request: EmbedRequest) -> Outcome:
    if len(vectors) != len(request.inputs):
        raise AssertionError(f"{len(vectors)} vectors are scripted for {len(request.inputs)} texts")
    made_by = Attempt(deployment=DEPLOYMENT, provider=DEPLOYMENT, model=DEPLOYMENT, outcome=ATTEMPT_OUTCOME_SUCCEEDED)
    embeddings = [Embedding(values=vector) for vector in vectors]
    return Outcome((EmbedResponse(request_id=request.request_id, embeddings=embeddings, attempts=[made_by]),))


def _taken(rpc: str, request: Any) -> Outcome:
    return Outcome((RecordFeedbackResponse(request_id=request.request_id),))


def _request_id(request: Any) -> str:
    asked = request if isinstance(request, EmbedRequest) else getattr(request, "completion", None)
    return asked.request_id if asked is not None else ""
