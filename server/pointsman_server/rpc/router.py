"""RouterService: the door of the journey and its way out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any, TypedDict

from pointsman.v1 import answer_pb2, completion_pb2, router_service_pb2, router_service_pb2_grpc
from pointsman_server.domain.call import Call, FailoverMode
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.errors import FeatureUnavailable, FieldProblem
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.pipeline import Pipeline
from pointsman_server.rpc.answer import StreamWriter, completion_to_proto, decision_to_proto
from pointsman_server.rpc.boundary import CURRENT_CALL
from pointsman_server.rpc.request import RouterRequest, read_request

MARGIN_SHARE = 0.05
MOST_MARGIN_SECONDS = 0.1
"""A call gives up this much before the caller's deadline, so that the typed error still reaches the caller."""

ROUNDING_SHARE = 0.01
"""gRPC sends a deadline rounded up to three digits, so that the server believes in up to this much more time."""

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
    ) -> None:
        self._pipeline = pipeline
        self._snapshot = snapshot
        self._clock = clock
        self._unary_timeout_seconds = unary_timeout_seconds
        self._stream_timeout_seconds = stream_timeout_seconds

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
        writer = StreamWriter()
        async with aclosing(self._pipeline.stream(call)) as events:
            async for event in events:
                for message in writer.messages(event):
                    await context.write(message)

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
        left_seconds = context.time_remaining()
        allowed_seconds = longest_seconds
        if left_seconds is not None:
            margin_seconds = min(left_seconds * MARGIN_SHARE, MOST_MARGIN_SECONDS + left_seconds * ROUNDING_SHARE)
            allowed_seconds = min(left_seconds - margin_seconds, longest_seconds)
        return Call(
            request=read_request(request),
            request_id=info.request_id,
            snapshot=self._snapshot(),
            deadline=self._clock.monotonic() + allowed_seconds,
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
            message = "STREAM_FAILOVER_CONTINUE is not offered by this server; use RESTART or TERMINATE"
            raise FeatureUnavailable((FieldProblem("failover", message),))
        case answer_pb2.STREAM_FAILOVER_RESTART:
            return FailoverMode.RESTART
        case _:
            return FailoverMode.TERMINATE
