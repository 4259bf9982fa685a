"""EmbeddingService: texts in, vectors out."""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pointsman.v1 import answer_pb2, embedding_service_pb2, embedding_service_pb2_grpc
from pointsman_server.domain.call import Call, Completion
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.errors import FieldProblem, InvalidRequest
from pointsman_server.domain.ports import Clock
from pointsman_server.domain.reply import Vector
from pointsman_server.domain.request import CompletionRequest, EmbeddingInput
from pointsman_server.execution.embedding import EmbeddingPipeline
from pointsman_server.execution.idempotency import Idempotency
from pointsman_server.rpc.answer import attempt_to_proto, usage_to_proto
from pointsman_server.rpc.boundary import CURRENT_CALL
from pointsman_server.rpc.checks import check_latency, check_pin
from pointsman_server.rpc.deadline import deadline_of
from pointsman_server.rpc.request import read_constraints, require_none
from pointsman_server.rpc.rules import check_message, is_blank

_NO_HEADERS: Mapping[str, str] = {}

_PACKED_VALUES = b"\x0a"
"""How field 1 of an `Embedding` begins on the wire: its numbers follow as they lie in memory."""

_Context = Any
"""grpc.aio.ServicerContext; generic in the published types, not in the library."""


class EmbeddingServicer(embedding_service_pb2_grpc.EmbeddingServiceServicer):
    """Reads requests, pins the policy's snapshot for the call, and hands out what the pipeline gives."""

    def __init__(
        self,
        pipeline: EmbeddingPipeline,
        choose_policy: Callable[[str, str, str], Snapshot],
        named_calls: Idempotency,
        clock: Clock,
        *,
        timeout_seconds: float,
    ) -> None:
        self._pipeline = pipeline
        self._choose_policy = choose_policy
        self._named_calls = named_calls
        self._clock = clock
        self._timeout_seconds = timeout_seconds

    async def Embed(
        self, request: embedding_service_pb2.EmbedRequest, context: _Context
    ) -> embedding_service_pb2.EmbedResponse:
        """One vector for each text."""
        call = self._admit(request, context)
        if not request.request_id:
            return embedded_to_proto(await self._pipeline.embed(call))
        once = self._named_calls.once(call.tenant, request.request_id, _digest(request), call.deadline)
        async with once as claim:
            if claim.answer is not None:
                return embedding_service_pb2.EmbedResponse.FromString(claim.answer)
            answer = embedded_to_proto(await self._pipeline.embed(call))
            claim.keep(answer.SerializeToString())
            return answer

    def _admit(self, request: embedding_service_pb2.EmbedRequest, context: _Context) -> Call:
        info, (read, wanted) = CURRENT_CALL.get(), read_embed_request(request)
        tenant = info.caller.tenant
        return Call(
            request=read,
            request_id=info.request_id,
            snapshot=self._choose_policy(tenant, info.request_id, ""),
            deadline=deadline_of(context, self._clock, info.began_at, self._timeout_seconds),
            headers={"traceparent": info.traceparent} if info.traceparent else _NO_HEADERS,
            tenant=tenant,
            peer=info.peer,
            embedding=wanted,
        )


def read_embed_request(request: embedding_service_pb2.EmbedRequest) -> tuple[CompletionRequest, EmbeddingInput]:
    """The request as the inner rooms take it: whose it is and what it must respect, and the texts.

    Raises `InvalidRequest` with every problem found.
    """
    problems = check_message(request)
    if problems:
        raise InvalidRequest(tuple(problems))
    require_none(_check_across_fields(request), conflicting=False)
    require_none(check_pin("deployment", request.deployment, request.constraints), conflicting=True)
    read = CompletionRequest(
        messages=(),
        deployment=request.deployment,
        constraints=read_constraints(request.constraints),
        labels=dict(request.labels),
        end_user=request.end_user,
    )
    return read, EmbeddingInput(tuple(request.inputs), request.dimensions if request.HasField("dimensions") else None)


def embedded_to_proto(completion: Completion) -> embedding_service_pb2.EmbedResponse:
    """The vectors with their account."""
    response = embedding_service_pb2.EmbedResponse(
        request_id=completion.request_id,
        usage=usage_to_proto(completion),
        attempts=[attempt_to_proto(attempt) for attempt in completion.attempts],
        redactions=[answer_pb2.Redaction(type=kind, count=count) for kind, count in completion.redactions.items()],
    )
    for vector in completion.reply.vectors:
        response.embeddings.add().MergeFromString(_on_the_wire(vector))
    return response


def _on_the_wire(vector: Vector) -> bytes:
    """An `Embedding` as bytes. Number by number it takes a hundred times as long, on the event loop."""
    if sys.byteorder == "big":
        vector = array("f", vector)
        vector.byteswap()
    data = vector.tobytes()
    return _PACKED_VALUES + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _check_across_fields(request: embedding_service_pb2.EmbedRequest) -> Iterator[FieldProblem]:
    # Vendors refuse a blank text, or give a vector that means nothing.
    blank = (index for index, text in enumerate(request.inputs) if is_blank(text))
    yield from (FieldProblem(f"inputs[{index}]", "must hold something that is not blank") for index in blank)
    yield from check_latency("constraints", request.constraints)


def _digest(request: embedding_service_pb2.EmbedRequest) -> bytes:
    asked = embedding_service_pb2.EmbedRequest()
    asked.CopyFrom(request)
    asked.ClearField("request_id")
    # Of its own kind: a completion's name must not be taken for that of vectors.
    return hashlib.blake2b(asked.SerializeToString(deterministic=True), digest_size=16, person=b"embed").digest()
