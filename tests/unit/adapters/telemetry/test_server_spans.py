from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode

from kit.accounts import SECRET
from kit.clock import CountingIds, FakeClock
from kit.house import ANYBODY_IS_LOCAL
from pointsman.v1 import answer_pb2, router_service_pb2, router_service_pb2_grpc
from pointsman_server.adapters.telemetry.server_spans import ServerSpans
from pointsman_server.domain.errors import AttemptsFailed, FailedAttempt, FieldProblem, InvalidRequest
from pointsman_server.domain.faults import FaultKind
from pointsman_server.rpc.boundary import Boundary

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
COMPLETE = "/pointsman.v1.RouterService/Complete"
STREAM = "/pointsman.v1.RouterService/StreamComplete"

Handle = Callable[[Any, Any], Awaitable[Any]]


class Router(router_service_pb2_grpc.RouterServiceServicer):
    """Does what the test says, behind the real border."""

    def __init__(self, complete: Handle | None = None, stream: Handle | None = None) -> None:
        self._complete = complete
        self._stream = stream

    async def Complete(self, request: Any, context: Any) -> Any:
        assert self._complete is not None
        return await self._complete(request, context)

    async def StreamComplete(self, request: Any, context: Any) -> None:  # type: ignore[override]
        assert self._stream is not None
        await self._stream(request, context)

    async def Route(self, request: Any, context: Any) -> Any:
        raise NotImplementedError


class Spans(SpanProcessor):
    """Keeps the spans that ended."""

    def __init__(self) -> None:
        self.ended: list[ReadableSpan] = []
        self._one_ended = asyncio.Event()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self)

    def on_end(self, span: ReadableSpan) -> None:
        self.ended.append(span)
        self._one_ended.set()

    async def one(self) -> ReadableSpan:
        """The only span, once it has ended: that may be after the caller has its answer."""
        await asyncio.wait_for(self._one_ended.wait(), 5)
        (span,) = self.ended
        return span


@pytest.fixture
def spans() -> Iterator[Spans]:
    made = Spans()
    yield made
    made.provider.shutdown()


@asynccontextmanager
async def serving(spans: Spans, **handles: Handle) -> AsyncGenerator[Any, None]:
    """A channel to a server with the interceptor."""
    server = grpc.aio.server(interceptors=[ServerSpans(spans.provider)])
    guarded: Any = Boundary(CountingIds(), FakeClock(), 10, ANYBODY_IS_LOCAL).guard(server)
    router_service_pb2_grpc.add_RouterServiceServicer_to_server(Router(**handles), guarded)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), guarded)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        await server.stop(0)


def stub(channel: Any) -> Any:
    return router_service_pb2_grpc.RouterServiceStub(channel)


def told(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def refuse(request: Any, context: Any) -> Any:
    raise InvalidRequest((FieldProblem("completion", SECRET),))


async def give_up(request: Any, context: Any) -> Any:
    raise AttemptsFailed((FailedAttempt("a", FaultKind.OVERLOADED, "busy"),))


async def burst(request: Any, context: Any) -> Any:
    try:
        raise KeyError(SECRET)
    except KeyError as error:
        raise ValueError(f"about {SECRET}") from error


async def test_a_unary_call(spans: Spans) -> None:
    current: list[trace.SpanContext] = []

    async def answer(request: Any, context: Any) -> Any:
        current.append(trace.get_current_span().get_span_context())
        return answer_pb2.CompleteResponse()

    async with serving(spans, complete=answer) as channel:
        await stub(channel).Complete(
            router_service_pb2.CompleteRequest(), metadata=(("traceparent", TRACEPARENT),), timeout=5
        )
        span = await spans.one()
    assert (span.name, span.kind) == (COMPLETE, SpanKind.SERVER)
    assert span.context == current[0]
    assert f"{current[0].trace_id:032x}" == TRACEPARENT[3:35]
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == TRACEPARENT[36:52]
    attributes = told(span)
    assert attributes["rpc.system"] == "grpc"
    assert attributes["rpc.service"] == "pointsman.v1.RouterService"
    assert attributes["rpc.method"] == "Complete"
    assert attributes["rpc.grpc.status_code"] == 0
    assert span.status.status_code is StatusCode.UNSET


async def test_a_stream_that_is_written(spans: Spans) -> None:
    async def answer(request: Any, context: Any) -> None:
        for _ in range(3):
            await context.write(router_service_pb2.StreamCompleteRequest())  # any message: its bytes are not read

    async with serving(spans, stream=answer) as channel:
        call = channel.unary_stream(STREAM)(b"")
        received = [message async for message in call]
        span = await spans.one()
    assert len(received) == 3
    assert span.name == STREAM
    assert told(span)["rpc.grpc.status_code"] == 0


@pytest.mark.parametrize(
    ("handle", "code", "number", "status"),
    [
        (refuse, grpc.StatusCode.INVALID_ARGUMENT, 3, StatusCode.UNSET),
        (give_up, grpc.StatusCode.UNAVAILABLE, 14, StatusCode.ERROR),
        (burst, grpc.StatusCode.INTERNAL, 13, StatusCode.ERROR),
    ],
    ids=["the caller's fault", "a provider's fault", "ours"],
)
@pytest.mark.parametrize("stream", [False, True], ids=["unary", "stream"])
async def test_an_error_is_told_by_its_code_and_nothing_else(
    spans: Spans, handle: Handle, code: grpc.StatusCode, number: int, status: StatusCode, stream: bool
) -> None:
    async def fail_late(request: Any, context: Any) -> None:
        await context.write(router_service_pb2.StreamCompleteRequest())
        await handle(request, context)

    async with serving(spans, complete=handle, stream=fail_late) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await (_drained(channel.unary_stream(STREAM)(b"")) if stream else channel.unary_unary(COMPLETE)(b""))
        span = await spans.one()
    assert caught.value.code() is code
    assert told(span)["rpc.grpc.status_code"] == number
    assert (span.status.status_code, span.status.description) == (status, None)
    assert span.events == ()
    assert SECRET not in span.to_json()


async def test_what_gets_past_the_border_is_unknown(spans: Spans) -> None:
    async def answer(request: Any, context: Any) -> Any:
        raise ValueError(SECRET)

    traced = ServerSpans(spans.provider)._intercept_aio_server_unary(answer, _Details)
    with pytest.raises(ValueError, match=SECRET):
        await traced(b"", _Context())
    span = await spans.one()
    assert told(span)["rpc.grpc.status_code"] == 2
    assert SECRET not in span.to_json()


class _Details:
    method = COMPLETE


class _Context:
    """As a handler sees it before any status is sent."""

    def invocation_metadata(self) -> tuple[Any, ...]:
        return ()

    def peer(self) -> str:
        return "unix:"

    def code(self) -> None:
        return None


async def test_a_caller_who_leaves(spans: Spans) -> None:
    began = asyncio.Event()

    async def wait(request: Any, context: Any) -> None:
        began.set()
        await asyncio.sleep(60)

    async with serving(spans, complete=wait) as channel:
        call = channel.unary_unary(COMPLETE)(b"")
        asking = asyncio.ensure_future(_result(call))
        await began.wait()
        call.cancel()
        with suppress(asyncio.CancelledError):
            await asking
        span = await spans.one()
    assert told(span)["rpc.grpc.status_code"] == 1
    assert span.status.status_code is StatusCode.UNSET
    assert span.events == ()


async def test_health_checks_and_unknown_methods_make_no_spans(spans: Spans) -> None:
    async with serving(spans) as channel:
        stub_of_health: Any = health_pb2_grpc.HealthStub(channel)
        await stub_of_health.Check(health_pb2.HealthCheckRequest(), timeout=5)
        with pytest.raises(grpc.aio.AioRpcError):
            await channel.unary_unary("/pointsman.v1.RouterService/Nothing")(b"")
    assert spans.ended == []


async def test_a_trace_that_is_not_sampled_stays_so(spans: Spans) -> None:
    current: list[trace.Span] = []

    async def answer(request: Any, context: Any) -> Any:
        current.append(trace.get_current_span())
        return answer_pb2.CompleteResponse()

    async with serving(spans, complete=answer) as channel:
        unsampled = TRACEPARENT[:-2] + "00"
        await channel.unary_unary(COMPLETE)(b"", metadata=(("traceparent", unsampled),))
    assert not current[0].is_recording()
    assert f"{current[0].get_span_context().trace_id:032x}" == TRACEPARENT[3:35]
    assert spans.ended == []


async def _result(call: Any) -> Any:
    return await call


async def _drained(call: Any) -> None:
    async for _ in call:
        pass
