"""The span of an RPC, by the gRPC instrumentation, adapted to how our handlers write, fail and are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from opentelemetry.instrumentation.grpc._aio_server import OpenTelemetryAioServerInterceptor
from opentelemetry.instrumentation.grpc.version import __version__
from opentelemetry.semconv._incubating.attributes.rpc_attributes import RPC_GRPC_STATUS_CODE
from opentelemetry.trace import Span, Status, StatusCode, TracerProvider

OUR_SERVICES = "/pointsman."
"""Health checks and reflection make no spans."""

_CANCELLED = 1
_UNKNOWN = 2
_SERVER_AT_FAULT = frozenset({2, 4, 12, 13, 14, 15})
"""UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS: the conventions call these errors."""

_Context = Any
"""grpc.aio.ServicerContext."""

_Handle = Callable[[Any, _Context], Awaitable[Any]]


class ServerSpans(OpenTelemetryAioServerInterceptor):
    """The library's interceptor, which starts the span and takes the caller's trace; three things are done otherwise.

    It awaits streams that are written with `context.write`, where the library iterates over a generator. It reads the
    status code where `abort_with_status` leaves it, which the library does not see. And it keeps exceptions out of the
    span: the library records their text and that of what they were raised from, which may quote what a caller sent.
    """

    def __init__(self, provider: TracerProvider) -> None:
        tracer = provider.get_tracer("opentelemetry.instrumentation.grpc", __version__)
        super().__init__(tracer, lambda details: details.method.startswith(OUR_SERVICES))  # type: ignore[no-untyped-call]

    def _intercept_aio_server_unary(self, behavior: _Handle, handler_call_details: Any) -> _Handle:
        return self._intercept(behavior, handler_call_details)

    def _intercept_aio_server_stream(self, behavior: _Handle, handler_call_details: Any) -> _Handle:
        return self._intercept(behavior, handler_call_details)

    def _intercept(self, behavior: _Handle, handler_call_details: Any) -> _Handle:
        async def traced(request: Any, context: _Context) -> Any:
            failure: BaseException | None = None
            response: Any = None
            starting = self._start_span(handler_call_details, context)  # type: ignore[no-untyped-call]
            with self._set_remote_context(context), starting as span:
                try:
                    response = await behavior(request, context)
                except BaseException as error:  # raised again below, where the span does not see it any more
                    failure = error
                    _tell_failure(span, context, error)
            if failure is not None:
                raise failure
            return response

        return traced


def _tell_failure(span: Span, context: _Context, error: BaseException) -> None:
    code = _CANCELLED if isinstance(error, asyncio.CancelledError) else _number_of(context.code()) or _UNKNOWN
    span.set_attribute(RPC_GRPC_STATUS_CODE, code)
    if code in _SERVER_AT_FAULT:
        span.set_status(Status(StatusCode.ERROR))


def _number_of(code: Any) -> int:
    # grpc keeps its enum of (number, text) once a status is sent, and nothing or a bare 0 before.
    return int(getattr(code, "value", (code,))[0] or 0)
