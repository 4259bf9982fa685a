"""The border every RPC crosses: request id, limits, malformed bytes, and errors that leave in one shape.

The library's defaults answer UNKNOWN with the exception's text to a malformed message or a failing handler. Here the
deserialiser never raises, and whatever a handler raises leaves as a status of the contract.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple

import grpc
import structlog

from pointsman_server.domain.errors import Draining, Overloaded
from pointsman_server.domain.ports import Clock, Ids
from pointsman_server.rpc.status import ErrorStatus, MalformedRequest, TooMuchMetadata, status_of

REQUEST_ID_KEY = "x-request-id"
MAX_METADATA_ENTRIES = 64
OVERLOADED_RETRY_SECONDS = 0.5
DRAINING_RETRY_SECONDS = 1.0

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_LIBRARY_SERVICES = ("/grpc.",)
"""Health checks and reflection are answered while the server is busy or going down."""

_Context = Any
"""grpc.aio.ServicerContext; the published types lack some of its methods."""

_Handler = Any
"""grpc.RpcMethodHandler; generic in the published types, not in the library."""

_LOG = structlog.stdlib.get_logger("pointsman.rpc")


class CallInfo(NamedTuple):
    """What the border knows of a call; `traceparent` is "" when the caller sent none."""

    method: str
    request_id: str
    traceparent: str
    metadata_entries: int


CURRENT_CALL: ContextVar[CallInfo] = ContextVar("current_call")
"""The call that the running handler serves."""


class _Malformed:
    """Stands for a request whose bytes could not be read."""


_MALFORMED = _Malformed()


class Boundary:
    """Wraps every handler as it is registered. `max_concurrent_calls` counts the calls of our own services.

    Wrapping once, at registration, spares each call the library's interceptor machinery.
    """

    def __init__(self, ids: Ids, clock: Clock, max_concurrent_calls: int) -> None:
        self._ids = ids
        self._clock = clock
        self._max_concurrent_calls = max_concurrent_calls
        self._nobody_served = asyncio.Event()
        self._nobody_served.set()
        self.active_calls = 0
        self.draining = False

    async def idle(self) -> None:
        """Waits until no call of our own services is being served."""
        await self._nobody_served.wait()

    def guard(self, server: grpc.aio.Server) -> GuardedServer:
        """The server as services see it when they register their handlers."""
        return GuardedServer(server, self)

    def wrap(self, method: str, handler: _Handler) -> _Handler:
        """The handler behind the border; `method` is its full name, `/package.Service/Method`."""
        reader = _never_raising(handler.request_deserializer)
        writer = handler.response_serializer
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._guard(method, handler.unary_unary), reader, writer)
        if handler.unary_stream:
            stream = _as_writer(handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(self._guard(method, stream), reader, writer)
        if handler.stream_stream is None:
            raise TypeError(f"{method} takes a stream of requests and gives one answer, which no service here does")
        stream = _with_well_formed_requests(_as_writer(handler.stream_stream))
        return grpc.stream_stream_rpc_method_handler(self._guard(method, stream), reader, writer)

    def _guard(self, method: str, handle: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        serve = handle if method.startswith(_LIBRARY_SERVICES) else self._counted(handle)

        async def guarded(request: Any, context: _Context) -> Any:
            info = self._open(method, request, context)
            started_at = self._clock.monotonic()
            try:
                if info.metadata_entries > MAX_METADATA_ENTRIES:
                    raise TooMuchMetadata
                if request is _MALFORMED:
                    raise MalformedRequest
                return await serve(request, context)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except Exception as error:
                await self._abort(error, info, context, self._clock.monotonic() - started_at)

        return guarded

    def _counted(self, handle: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def counted(request: Any, context: _Context) -> Any:
            # Calls that are refused are not counted: a burst of them must not crowd out those that could be served.
            if self.draining:
                raise Draining(DRAINING_RETRY_SECONDS)
            if self.active_calls >= self._max_concurrent_calls:
                raise Overloaded(OVERLOADED_RETRY_SECONDS)
            self.active_calls += 1
            self._nobody_served.clear()
            try:
                return await handle(request, context)
            finally:
                self.active_calls -= 1
                if not self.active_calls:
                    self._nobody_served.set()

        return counted

    def _open(self, method: str, request: Any, context: _Context) -> CallInfo:
        entries = context.invocation_metadata() or ()
        metadata = dict(entries)
        info = CallInfo(method, self._request_id(request, metadata), _traceparent(metadata), len(entries))
        CURRENT_CALL.set(info)
        context.set_trailing_metadata(((REQUEST_ID_KEY, info.request_id),))
        return info

    def _request_id(self, request: Any, metadata: dict[str, Any]) -> str:
        # A field `request_id` beside `completion` names another call, the one that is judged for example.
        completion = getattr(request, "completion", None)
        wanted = getattr(completion, "request_id", "") or metadata.get(REQUEST_ID_KEY, "")
        if wanted and isinstance(wanted, str) and _REQUEST_ID.fullmatch(wanted):
            return wanted
        return self._ids.new("req")

    async def _abort(self, error: Exception, info: CallInfo, context: _Context, seconds: float) -> None:
        status = status_of(error)
        log = _LOG.bind(
            request_id=info.request_id, method=info.method, code=status.code.name, seconds=round(seconds, 4)
        )
        if status.code is grpc.StatusCode.INTERNAL:
            # The type and place of an unforeseen error, never its text: it may quote what the caller sent.
            log.error("call_failed", error=type(error).__name__, place=_place_of(error))
        else:
            log.info("call_refused", error=type(error).__name__)
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
            return _MALFORMED

    return reader


def _traceparent(metadata: dict[str, Any]) -> str:
    given = metadata.get("traceparent", "")
    return given if given and isinstance(given, str) and _TRACEPARENT.fullmatch(given) else ""


def _with_well_formed_requests(handle: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    async def checked(requests: AsyncIterator[Any], context: _Context) -> None:
        await handle(_well_formed(requests), context)

    return checked


async def _well_formed(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if request is _MALFORMED:
            raise MalformedRequest
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
