"""The border every RPC crosses: request id, limits, malformed bytes, and errors that leave in one shape.

The library's defaults answer UNKNOWN with the exception's text to a malformed message or a failing handler. Here the
deserialiser never raises, and whatever a handler raises leaves as a status of the contract.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

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
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_LIBRARY_SERVICES = ("/grpc.",)
"""Health checks and reflection are answered while the server is busy or going down."""

_Context = Any
"""grpc.aio.ServicerContext; the published types lack some of its methods."""

_Handler = Any
"""grpc.RpcMethodHandler; generic in the published types, not in the library."""

_LOG = structlog.stdlib.get_logger("pointsman.rpc")


@dataclass(frozen=True, slots=True)
class CallInfo:
    """What the border knows of a call."""

    method: str
    request_id: str
    traceparent: str


CURRENT_CALL: ContextVar[CallInfo] = ContextVar("current_call")
"""The call that the running handler serves."""


class _Malformed:
    """Stands for a request whose bytes could not be read."""


_MALFORMED = _Malformed()


class Boundary(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps every handler. `max_concurrent_calls` counts the calls of our own services."""

    def __init__(self, ids: Ids, clock: Clock, max_concurrent_calls: int) -> None:
        self._ids = ids
        self._clock = clock
        self._max_concurrent_calls = max_concurrent_calls
        self._wrapped: dict[str, _Handler] = {}
        self._nobody_served = asyncio.Event()
        self._nobody_served.set()
        self.active_calls = 0
        self.draining = False

    async def idle(self) -> None:
        """Waits until no call of our own services is being served."""
        await self._nobody_served.wait()

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[_Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler:
        """See grpc; handlers are wrapped once per method."""
        method = handler_call_details.method
        wrapped = self._wrapped.get(method)
        if wrapped is None:
            handler = await continuation(handler_call_details)
            if handler is None:
                return handler
            wrapped = self._wrapped[method] = self._wrap(method, handler)
        return wrapped

    def _wrap(self, method: str, handler: _Handler) -> _Handler:
        reader = _never_raising(handler.request_deserializer)
        writer = handler.response_serializer
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(self._guard(method, handler.unary_unary), reader, writer)
        if handler.unary_stream:
            stream = _as_writer(handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(self._guard(method, stream), reader, writer)
        if handler.stream_stream is None:
            raise TypeError(f"{method} takes a stream of requests and gives one answer, which no service here does")
        stream = _as_writer(handler.stream_stream)
        return grpc.stream_stream_rpc_method_handler(self._guard(method, stream), reader, writer)

    def _guard(self, method: str, handle: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        counted = not method.startswith(_LIBRARY_SERVICES)

        async def guarded(request: Any, context: _Context) -> Any:
            info = self._open(method, request, context)
            started_at = self._clock.monotonic()
            try:
                with self._admitted(request, context, counted=counted):
                    return await handle(_checked(request), context)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except Exception as error:
                await self._abort(error, info, context, self._clock.monotonic() - started_at)

        return guarded

    def _open(self, method: str, request: Any, context: _Context) -> CallInfo:
        metadata = dict(context.invocation_metadata() or ())
        info = CallInfo(
            method=method,
            request_id=self._request_id(request, metadata),
            traceparent=self._traceparent(metadata.get("traceparent")),
        )
        CURRENT_CALL.set(info)
        context.set_trailing_metadata(((REQUEST_ID_KEY, info.request_id),))
        return info

    def _request_id(self, request: Any, metadata: dict[str, Any]) -> str:
        carrier = getattr(request, "completion", request)
        for wanted in (getattr(carrier, "request_id", ""), metadata.get(REQUEST_ID_KEY, "")):
            if isinstance(wanted, str) and _REQUEST_ID.fullmatch(wanted):
                return wanted
        return self._ids.new("req")

    def _traceparent(self, given: object) -> str:
        match = _TRACEPARENT.fullmatch(given) if isinstance(given, str) else None
        if match is not None:
            return match.group(0)
        return f"00-{self._ids.new_hex(16)}-{self._ids.new_hex(8)}-01"

    @contextmanager
    def _admitted(self, request: Any, context: _Context, *, counted: bool) -> Iterator[None]:
        self._require_admission(request, context, counted=counted)
        # Calls that are refused are not counted: a burst of them must not crowd out the ones that could be served.
        if not counted:
            yield
            return
        self.active_calls += 1
        self._nobody_served.clear()
        try:
            yield
        finally:
            self.active_calls -= 1
            if not self.active_calls:
                self._nobody_served.set()

    def _require_admission(self, request: Any, context: _Context, *, counted: bool) -> None:
        if counted and self.draining:
            raise Draining(DRAINING_RETRY_SECONDS)
        if counted and self.active_calls >= self._max_concurrent_calls:
            raise Overloaded(OVERLOADED_RETRY_SECONDS)
        if len(context.invocation_metadata() or ()) > MAX_METADATA_ENTRIES:
            raise TooMuchMetadata
        if request is _MALFORMED:
            raise MalformedRequest

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


def _checked(request: Any) -> Any:
    return _well_formed(request) if isinstance(request, AsyncIterator) else request


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
