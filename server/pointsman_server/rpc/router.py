"""RouterService: the door of the journey and its way out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, TypedDict

from pointsman.v1 import answer_pb2, completion_pb2, router_service_pb2, router_service_pb2_grpc
from pointsman_server.domain.call import Call, Completed, FailoverMode
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.pipeline import Pipeline
from pointsman_server.rpc.answer import StreamWriter, completion_to_proto, decision_to_proto
from pointsman_server.rpc.boundary import CURRENT_CALL
from pointsman_server.rpc.deadline import seconds_to_use
from pointsman_server.rpc.relay import PatientWriter
from pointsman_server.rpc.request import RouterRequest, read_request

READER_IDLE_SECONDS = 30.0
"""How long a piece of a stream may wait for its reader, unless the server is told otherwise."""

_NO_HEADERS: Mapping[str, str] = {}

_Context = Any
"""grpc.aio.ServicerContext; generic in the published types, not in the library."""


class RouterServicer(router_service_pb2_grpc.RouterServiceServicer):
    """Reads requests, pins the policy's snapshot for the call, and relays what the pipeline gives."""

    def __init__(
        self,
        pipeline: Pipeline,
        snapshot: Callable[[], Snapshot],
        clock: Clock,
        *,
        unary_timeout_seconds: float,
        stream_timeout_seconds: float,
        reader_idle_seconds: float = READER_IDLE_SECONDS,
    ) -> None:
        self._pipeline = pipeline
        self._snapshot = snapshot
        self._clock = clock
        self._unary_timeout_seconds = unary_timeout_seconds
        self._stream_timeout_seconds = stream_timeout_seconds
        self._reader_idle_seconds = reader_idle_seconds

    async def Route(
        self, request: router_service_pb2.RouteRequest, context: _Context
    ) -> router_service_pb2.RouteResponse:
        """The decision without a call."""
        call = self._admit(request, context, self._unary_timeout_seconds, digest=_digest(request.completion))
        decision = await self._pipeline.route(call)
        return router_service_pb2.RouteResponse(decision=decision_to_proto(decision), request_id=call.request_id)

    async def Complete(
        self, request: router_service_pb2.CompleteRequest, context: _Context
    ) -> answer_pb2.CompleteResponse:
        """The whole answer."""
        call = self._admit(request, context, self._unary_timeout_seconds, **_followed(request))
        return completion_to_proto(await self._pipeline.complete(call))

    async def StreamComplete(  # type: ignore[override]
        self, request: router_service_pb2.StreamCompleteRequest, context: _Context
    ) -> None:
        """The answer as events."""
        failover = _failover_mode(request.failover)
        call = self._admit(request, context, self._stream_timeout_seconds, failover=failover, **_followed(request))
        words = StreamWriter()
        with PatientWriter(context, self._clock, self._reader_idle_seconds, call.deadline) as reader:
            async with aclosing(self._pipeline.stream(call)) as events:
                async for event in events:
                    write = reader.write_last if isinstance(event, Completed) else reader.write
                    for message in words.messages(event):
                        await write(message)

    def _admit(
        self,
        request: RouterRequest,
        context: _Context,
        longest_seconds: float,
        *,
        failover: FailoverMode = FailoverMode.TERMINATE,
        decision_id: str = "",
        digest: bytes = b"",
    ) -> Call:
        info = CURRENT_CALL.get()
        now, left_seconds = self._clock.monotonic(), seconds_to_use(context)
        capped_at = info.began_at + longest_seconds
        return Call(
            request=read_request(request),
            request_id=info.request_id,
            snapshot=self._snapshot(),
            deadline=capped_at if left_seconds is None else min(now + left_seconds, capped_at),
            failover=failover,
            headers={"traceparent": info.traceparent} if info.traceparent else _NO_HEADERS,
            decision_id=decision_id,
            request_digest=digest,
        )


class _Followed(TypedDict, total=False):
    decision_id: str
    digest: bytes


def _followed(request: router_service_pb2.CompleteRequest | router_service_pb2.StreamCompleteRequest) -> _Followed:
    if not request.decision_id:
        return {}
    return {"decision_id": request.decision_id, "digest": _digest(request.completion)}


def _digest(spec: completion_pb2.CompletionSpec) -> bytes:
    if spec.request_id:  # names the call, not what is asked
        named, spec = spec, completion_pb2.CompletionSpec()
        spec.CopyFrom(named)
        spec.ClearField("request_id")
    return hashlib.blake2b(spec.SerializeToString(deterministic=True), digest_size=16).digest()


def _failover_mode(wanted: answer_pb2.StreamFailover.ValueType) -> FailoverMode:
    match wanted:
        case answer_pb2.STREAM_FAILOVER_CONTINUE:
            return FailoverMode.CONTINUE
        case answer_pb2.STREAM_FAILOVER_RESTART:
            return FailoverMode.RESTART
        case _:
            return FailoverMode.TERMINATE
