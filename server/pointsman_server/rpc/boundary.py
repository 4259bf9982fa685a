"""The border every RPC crosses: who calls, request id, limits, malformed bytes, and errors that leave in one shape.

The library's defaults answer UNKNOWN with the exception's text to a malformed message or a failing handler, and wait
without end for a message that does not come. Here nobody's message is waited for before it is known who calls, the
deserialiser never raises, the message has its time, only a call whose message came may take a place, and whatever a
handler raises leaves as a status of the contract.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import grpc
import structlog

from pointsman.v1.embedding_service_pb2 import EmbedRequest
from pointsman_server.domain.caller import Caller
from pointsman_server.domain.errors import Draining, ReaderTooSlow, Unauthenticated
from pointsman_server.domain.ports import Clock, Ids
from pointsman_server.domain.resilience import LoadPolicy
from pointsman_server.execution.admission import DRAINING_RETRY_SECONDS, Gate, Stay
from pointsman_server.rpc.authentication import ANYBODY, Admission, Authenticator, Entries
from pointsman_server.rpc.deadline import seconds_to_use
from pointsman_server.rpc.metadata import check_metadata, traceparent_in
from pointsman_server.rpc.relay import RequestReader
from pointsman_server.rpc.status import ErrorStatus, MalformedRequest, status_of
from pointsman_server.rpc.strangers import StrangersLog, address_of

REQUEST_ID_KEY = "x-request-id"
BODY_TIMEOUT_SECONDS = 10.0
"""How long a call may be open before its message is whole."""

SHED_READER = "reader"

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_LIBRARY_SERVICES = ("/grpc.",)
"""Health checks and reflection are answered while the server is busy or going down."""

_GATED_SERVICES = ("/pointsman.v1.RouterService/", "/pointsman.v1.EmbeddingService/")
"""Calls that need a place. All others are short, and operators must get in while the server is busy."""

_DEFAULT_LOAD = LoadPolicy()
_NO_LABELS: Mapping[str, str] = {}

_Context = Any
"""grpc.aio.ServicerContext; the published types lack some of its methods."""

_Handler = Any
"""grpc.RpcMethodHandler; generic in the published types, not in the library."""

_LOG = structlog.stdlib.get_logger("pointsman.rpc")


class CallInfo(NamedTuple):
    """What the border knows of a call; `traceparent` is "" when the caller sent none.

    `began_at` is when its headers came, on the border's clock. `peer` is the network address it comes from.
    """

    method: str
    request_id: str
    traceparent: str
    began_at: float
    caller: Caller = ANYBODY
    peer: str = ""


CURRENT_CALL: ContextVar[CallInfo] = ContextVar("current_call")
"""The call that the running handler serves."""


def _tell_nobody(*what: object) -> None:
    """For borders that nobody watches."""


class Boundary:
    """Wraps every handler as it is registered, which spares each call the library's interceptor machinery.

    `authenticator` says who calls. `max_concurrent_calls` counts the calls of the router; `load` says what happens to
    more. `observe` is told of every call of our own services when it ends, once: the method's name, the gRPC code's
    name, and the seconds since the call began. `shed` is told why a call was refused or given up for load: "calls",
    "queue" or "reader".
    """

    def __init__(
        self,
        ids: Ids,
        clock: Clock,
        max_concurrent_calls: int,
        authenticator: Authenticator,
        *,
        load: Callable[[], LoadPolicy] = lambda: _DEFAULT_LOAD,
        observe: Callable[[str, str, float], None] | None = None,
        shed: Callable[[str], None] | None = None,
    ) -> None:
        self._ids = ids
        self._clock = clock
        self._authenticator = authenticator
        self._strangers = StrangersLog(clock)
        self._observe = observe or _tell_nobody
        self._shed = shed or _tell_nobody
        self._reader = RequestReader(BODY_TIMEOUT_SECONDS)
        self._nobody_served = asyncio.Event()
        self._nobody_served.set()
        self.gate = Gate(max_concurrent_calls, load, clock, self._shed)
        self.active_calls = 0
        self.draining = False

    def drain(self) -> None:
        """Refuses new calls of our own services, and those that wait for a place."""
        self.draining = True
        self.gate.drain()

    async def idle(self) -> None:
        """Waits until no call of our own services is being served."""
        await self._nobody_served.wait()

    def guard(self, server: grpc.aio.Server, body_timeout_seconds: float = BODY_TIMEOUT_SECONDS) -> GuardedServer:
        """The server as services see it when they register their handlers, before it starts."""
        self._reader = RequestReader(body_timeout_seconds)
        return GuardedServer(server, self)

    def wrap(self, method: str, handler: _Handler) -> _Handler:
        """The handler behind the border; `method` is its full name, `/package.Service/Method`."""
        reader = _never_raising(handler.request_deserializer)
        writer = handler.response_serializer
        # What takes one message is registered as taking a stream: the library hands such a call over before its message
        # came, so that the wait for it can end.
        if handler.unary_unary:
            return grpc.stream_unary_rpc_method_handler(self._guard(method, handler.unary_unary), reader, writer)
        if handler.unary_stream:
            stream = _as_writer(handler.unary_stream)
            return grpc.stream_stream_rpc_method_handler(self._guard(method, stream), reader, writer)
        if handler.stream_stream is None:
            raise TypeError(f"{method} takes a stream of requests and gives one answer, which no service here does")
        stream = _with_well_formed_requests(_as_writer(handler.stream_stream))
        guarded = self._guard(method, stream, takes_many=True)
        return grpc.stream_stream_rpc_method_handler(guarded, reader, writer)

    def _guard(
        self, method: str, handle: Callable[..., Awaitable[Any]], *, takes_many: bool = False
    ) -> Callable[..., Awaitable[Any]]:
        serve, observe, name = self._served(method, handle), self._observer(method), method.rpartition("/")[2]
        admission, read = self._authenticator.admission_to(method), self._reader.read

        async def guarded(requests: Any, context: _Context) -> Any:
            began_at = self._clock.monotonic()
            code = "CANCELLED"
            try:
                entries = context.invocation_metadata() or ()
                metadata = dict(entries)
                caller, request = _admit(admission, entries, metadata, context)
                if request is None:
                    request = requests if takes_many else await read(context)
                self._open(method, request, metadata, context, caller, began_at)
                try:
                    if isinstance(request, Exception):
                        raise request
                    answer = await serve(request, context)
                    code = "OK"
                    return answer
                except grpc.aio.AbortError:
                    raise
                except Exception as error:
                    failure, status = error, status_of(error)
                    code = status.code.name
            except asyncio.CancelledError:
                if context.time_remaining() == 0:
                    code = "DEADLINE_EXCEEDED"
                raise
            finally:
                seconds = self._clock.monotonic() - began_at
                observe(name, code, seconds)
            # Only now, for it takes as long as the caller leaves earlier messages unread.
            await self._abort(failure, status, context, seconds)

        return guarded

    def _observer(self, method: str) -> Callable[[str, str, float], None]:
        return _tell_nobody if method.startswith(_LIBRARY_SERVICES) else self._observe

    def _served(self, method: str, handle: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        if method.startswith(_LIBRARY_SERVICES):
            return handle
        return self._gated(handle) if method.startswith(_GATED_SERVICES) else self._counted(handle)

    def _counted(self, handle: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counted(request: Any, context: _Context) -> Any:
            if self.draining:
                raise Draining(DRAINING_RETRY_SECONDS)
            self._begin()
            try:
                return await handle(request, context)
            finally:
                self._end()

        return counted

    def _gated(self, handle: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        gate = self.gate

        async def gated(request: Any, context: _Context) -> Any:
            stay = gate.enter_now(_labels_of(request) if gate.reads_labels else _NO_LABELS)
            if stay is None:
                stay = await self._queue(request, context)
            self._begin()
            try:
                return await handle(request, context)
            except ReaderTooSlow:
                self._shed(SHED_READER)
                raise
            finally:
                stay.end()
                self._end()

        return gated

    async def _queue(self, request: Any, context: _Context) -> Stay:
        left_seconds = seconds_to_use(context)
        deadline = math.inf if left_seconds is None else self._clock.monotonic() + left_seconds
        return await self.gate.enter(CURRENT_CALL.get().caller.tenant, _labels_of(request), deadline)

    def _begin(self) -> None:
        self.active_calls += 1
        self._nobody_served.clear()

    def _end(self) -> None:
        self.active_calls -= 1
        if not self.active_calls:
            self._nobody_served.set()

    def _open(
        self, method: str, request: Any, metadata: dict[str, Any], context: _Context, caller: Caller, began_at: float
    ) -> None:
        request_id, peer = self._request_id(request, metadata), address_of(context.peer())
        CURRENT_CALL.set(CallInfo(method, request_id, traceparent_in(metadata), began_at, caller, peer))
        context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))

    def _request_id(self, request: Any, metadata: dict[str, Any]) -> str:
        # Elsewhere than in what is asked, a field `request_id` names another call, the one that is judged for example.
        wanted = getattr(_asked_of(request), "request_id", "") or metadata.get(REQUEST_ID_KEY, "")
        if wanted and isinstance(wanted, str) and _REQUEST_ID.fullmatch(wanted):
            return wanted
        return self._ids.new("req")

    async def _abort(self, error: Exception, status: ErrorStatus, context: _Context, seconds: float) -> None:
        info = CURRENT_CALL.get()
        log = _LOG.bind(
            request_id=info.request_id, method=info.method, code=status.code.name, seconds=round(seconds, 4)
        )
        if status.code is not grpc.StatusCode.INTERNAL and info.caller is ANYBODY:
            self._strangers.note(info.peer, info.method, _reason_of(error))
        elif status.code is grpc.StatusCode.INTERNAL:
            # The type and place of an unforeseen error, never its text: it may quote what the caller sent.
            log.error("call_failed", error=type(error).__name__, place=_place_of(error))
        else:
            log.info("call_refused", error=type(error).__name__, tenant=info.caller.tenant, caller=info.caller.name)
        await context.abort_with_status(_LibraryStatus(status, info.request_id))


class GuardedServer:
    """Stands where a server stands when services register, and puts their handlers behind the border."""

    def __init__(self, server: grpc.aio.Server, boundary: Boundary) -> None:
        self._server = server
        self._boundary = boundary

    def add_generic_rpc_handlers(self, generic_handlers: Sequence[Any]) -> None:
        """See `grpc.aio.Server.add_generic_rpc_handlers`."""
        self._server.add_generic_rpc_handlers([_GuardedHandlers(one, self._boundary) for one in generic_handlers])

    def add_registered_method_handlers(self, service: str, handlers: dict[str, _Handler]) -> None:
        """Generated code registers the same handlers here once more; the generic ones serve all calls."""


class _GuardedHandlers(grpc.GenericRpcHandler):
    """The handlers of one service; each is wrapped at its first call."""

    def __init__(self, handlers: Any, boundary: Boundary) -> None:
        self._handlers = handlers
        self._boundary = boundary
        self._wrapped: dict[str, _Handler] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> _Handler | None:
        """See grpc."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = self._handlers.service(handler_call_details)
            if handler is None:
                return None
            wrapped = self._wrapped[method] = self._boundary.wrap(method, handler)
        return wrapped


class _LibraryStatus(grpc.Status):
    """What the library aborts with: code, message, and the rich status as trailing metadata."""

    def __init__(self, status: ErrorStatus, request_id: str) -> None:
        rich = status.to_proto(request_id)
        self.code = status.code
        self.details = rich.message
        self.trailing_metadata = (
            ("grpc-status-details-bin", rich.SerializeToString()),
            (REQUEST_ID_KEY, request_id),
        )


def _never_raising(read: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    def reader(data: bytes) -> Any:
        try:
            return data if read is None else read(data)
        except Exception:
            return MalformedRequest()

    return reader


def _admit(
    admission: Admission, entries: Entries, metadata: Mapping[str, Any], context: _Context
) -> tuple[Caller, Exception | None]:
    """Who calls, and why his message is not waited for."""
    caller = ANYBODY
    try:
        caller = admission.identify(entries, context)
        admission.authorise(caller, entries)
        check_metadata(entries, metadata)
    except Exception as error:
        return caller, error
    return caller, None


def _labels_of(request: Any) -> Mapping[str, str]:
    asked = _asked_of(request)
    return _NO_LABELS if asked is None else asked.labels


def _asked_of(request: Any) -> Any:
    """What carries the call's own name and labels; None where nothing of the kind is asked."""
    return request if isinstance(request, EmbedRequest) else getattr(request, "completion", None)


def _reason_of(error: Exception) -> str:
    return error.why if isinstance(error, Unauthenticated) else type(error).__name__


def _with_well_formed_requests(handle: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def checked(requests: AsyncIterator[Any], context: _Context) -> None:
        await handle(_well_formed(requests), context)

    return checked


async def _well_formed(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, Exception):
            raise request
        yield request


def _as_writer(handle: Callable[..., Any]) -> Callable[..., Awaitable[None]]:
    """One form for both kinds of stream handlers: a coroutine that writes."""
    if not inspect.isasyncgenfunction(handle):
        return handle

    async def write_all(request: Any, context: _Context) -> None:
        async for response in handle(request, context):
            await context.write(response)

    return write_all


def _place_of(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
