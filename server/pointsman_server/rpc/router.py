"""RouterService: the door of the journey and its way out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Any, TypedDict

from pointsman.v1 import answer_pb2, completion_pb2, router_service_pb2, router_service_pb2_grpc
from pointsman_server.domain.call import Call, Completed, FailoverMode
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.control import Control
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.flags import failover_of
from pointsman_server.execution.idempotency import Claim, Idempotency
from pointsman_server.execution.pipeline import Pipeline
from pointsman_server.rpc.answer import completion_to_proto, decision_to_proto, messages_of
from pointsman_server.rpc.boundary import CURRENT_CALL
from pointsman_server.rpc.deadline import deadline_of
from pointsman_server.rpc.relay import PatientWriter
from pointsman_server.rpc.repeated import repeated_stream
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
        choose_policy: Callable[[str, str, str], Snapshot],
        control: Callable[[], Control],
        named_calls: Idempotency,
        clock: Clock,
        *,
        unary_timeout_seconds: float,
        stream_timeout_seconds: float,
        reader_idle_seconds: float = READER_IDLE_SECONDS,
    ) -> None:
        self._pipeline = pipeline
        self._choose_policy = choose_policy
        self._control = control
        self._named_calls = named_calls
        self._clock = clock
        self._unary_timeout_seconds = unary_timeout_seconds
        self._stream_timeout_seconds = stream_timeout_seconds
        self._reader_idle_seconds = reader_idle_seconds

    async def Route(
        self, request: router_service_pb2.RouteRequest, context: _Context
    ) -> router_service_pb2.RouteResponse:
        """The decision without a call."""
        call = await self._admit(request, context, self._unary_timeout_seconds, digest=_digest(request.completion))
        decision = await self._pipeline.route(call)
        return router_service_pb2.RouteResponse(decision=decision_to_proto(decision), request_id=call.request_id)

    async def Complete(
        self, request: router_service_pb2.CompleteRequest, context: _Context
    ) -> answer_pb2.CompleteResponse:
        """The whole answer."""
        call = await self._admit(request, context, self._unary_timeout_seconds, **_followed(request))
        if not request.completion.request_id:
            return completion_to_proto(await self._pipeline.complete(call))
        async with self._once(request, call) as claim:
            if claim.answer is not None:
                return answer_pb2.CompleteResponse.FromString(claim.answer)
            answer = completion_to_proto(await self._pipeline.complete(call))
            claim.keep(answer.SerializeToString())
            return answer

    async def StreamComplete(  # type: ignore[override]
        self, request: router_service_pb2.StreamCompleteRequest, context: _Context
    ) -> None:
        """The answer as events."""
        wanted = _failover_mode(request.failover)
        call = await self._admit(request, context, self._stream_timeout_seconds, wanted=wanted, **_followed(request))
        with PatientWriter(context, self._clock, self._reader_idle_seconds, call.deadline) as reader:
            if not request.completion.request_id:
                await self._relay(call, reader)
                return
            async with self._once(request, call) as claim:
                if claim.answer is None:
                    await self._relay(call, reader, claim.keep)
                    return
            for message in repeated_stream(answer_pb2.CompleteResponse.FromString(claim.answer)):
                await reader.write(message)

    async def _relay(self, call: Call, reader: PatientWriter, keep: Callable[[bytes], None] | None = None) -> None:
        """Sends the events of a call as they come. The answer is kept before it is sent: it is paid for by then."""
        async with aclosing(self._pipeline.stream(call)) as events:
            async for event in events:
                messages = messages_of(event)
                is_last = isinstance(event, Completed)
                if is_last and keep is not None:
                    keep(messages[-1].completed.SerializeToString())
                write = reader.write_last if is_last else reader.write
                for message in messages:
                    await write(message)

    def _once(
        self, request: router_service_pb2.CompleteRequest | router_service_pb2.StreamCompleteRequest, call: Call
    ) -> AbstractAsyncContextManager[Claim]:
        digest = _digest(request.completion)
        return self._named_calls.once(call.tenant, request.completion.request_id, digest, call.deadline)

    async def _admit(
        self,
        request: RouterRequest,
        context: _Context,
        longest_seconds: float,
        *,
        wanted: FailoverMode | None = None,
        decision_id: str = "",
        digest: bytes = b"",
    ) -> Call:
        info, read = CURRENT_CALL.get(), read_request(request)
        tenant = info.caller.tenant
        made_under = await self._pipeline.policy_of(decision_id, tenant) if decision_id else ""
        return Call(
            request=read,
            request_id=info.request_id,
            snapshot=self._choose_policy(tenant, read.session_id or info.request_id, made_under),
            deadline=deadline_of(context, self._clock, info.began_at, longest_seconds),
            failover=failover_of(wanted, self._control(), tenant),
            headers={"traceparent": info.traceparent} if info.traceparent else _NO_HEADERS,
            decision_id=decision_id,
            request_digest=digest,
            tenant=tenant,
            caller=info.caller.name,
            peer=info.peer,
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


def _failover_mode(wanted: answer_pb2.StreamFailover.ValueType) -> FailoverMode | None:
    """What the request asks for, None where it leaves that to the server."""
    match wanted:
        case answer_pb2.STREAM_FAILOVER_CONTINUE:
            return FailoverMode.CONTINUE
        case answer_pb2.STREAM_FAILOVER_RESTART:
            return FailoverMode.RESTART
        case answer_pb2.STREAM_FAILOVER_TERMINATE:
            return FailoverMode.TERMINATE
        case _:
            return None
