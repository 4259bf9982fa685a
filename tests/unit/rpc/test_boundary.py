from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import grpc
import pytest
import structlog

from kit.clock import CountingIds, FakeClock
from kit.house import ANYBODY_IS_LOCAL, Door, open_door
from kit.running import RichError, router, spec
from pointsman.v1 import answer_pb2, completion_pb2, router_service_pb2, router_service_pb2_grpc
from pointsman_server.domain.errors import Draining
from pointsman_server.execution.admission import FIRST_RETRY_SECONDS
from pointsman_server.rpc.boundary import CURRENT_CALL, Boundary, CallInfo
from pointsman_server.rpc.metadata import MAX_METADATA_ENTRIES

SECRET = "sk-planted-6f1c"
COMPLETE = "/pointsman.v1.RouterService/Complete"
STREAM = "/pointsman.v1.RouterService/StreamComplete"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Handlers(router_service_pb2_grpc.RouterServiceServicer):
    """Does what the request's first text says."""

    def __init__(self) -> None:
        self.infos: list[CallInfo] = []
        self.open_calls = 0
        self.go_on = asyncio.Event()
        self._changed = asyncio.Event()

    async def Route(self, request: Any, context: Any) -> Any:
        self.infos.append(CURRENT_CALL.get())
        return router_service_pb2.RouteResponse(request_id=CURRENT_CALL.get().request_id)

    async def Complete(self, request: Any, context: Any) -> Any:
        await self._do(_wish(request))
        return answer_pb2.CompleteResponse(request_id="done")

    async def StreamComplete(self, request: Any, context: Any) -> Any:  # type: ignore[override]
        await context.write(_piece("first"))
        await self._do(_wish(request))
        await context.write(_piece("second"))

    async def waiting(self, count: int) -> None:
        """Returns when so many calls are being served."""
        async with asyncio.timeout(5):
            while self.open_calls != count:
                self._changed.clear()
                await self._changed.wait()

    async def _do(self, wish: str) -> None:
        self.open_calls += 1
        self._changed.set()
        try:
            if wish == "raise":
                raise ValueError(f"cannot reach {SECRET}")
            if wish == "refuse":
                raise Draining(2.0)
            if wish == "wait":
                await self.go_on.wait()
        finally:
            self.open_calls -= 1
            self._changed.set()


class Generating(Handlers):
    """The same with a stream written as a generator."""

    async def StreamComplete(self, request: Any, context: Any) -> Any:
        yield _piece("first")
        await self._do(_wish(request))
        yield _piece("second")


def _wish(request: Any) -> str:
    wish: str = request.completion.messages[0].parts[0].text
    return wish


def _piece(text: str) -> answer_pb2.StreamCompleteResponse:
    return answer_pb2.StreamCompleteResponse(delta=answer_pb2.Delta(text=text))


def complete(wish: str = "answer", **fields: Any) -> router_service_pb2.CompleteRequest:
    return router_service_pb2.CompleteRequest(completion=spec(wish, **fields))


def stream(wish: str) -> router_service_pb2.StreamCompleteRequest:
    return router_service_pb2.StreamCompleteRequest(completion=spec(wish))


def route(**fields: Any) -> router_service_pb2.RouteRequest:
    return router_service_pb2.RouteRequest(completion=spec(**fields))


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
async def door(handlers: Handlers) -> AsyncGenerator[Door, None]:
    async with open_door(handlers, most_calls=3) as opened:
        yield opened


async def refusal(call: Any) -> RichError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return RichError(caught.value)


async def read(call: Any) -> tuple[list[str], RichError | None]:
    """The pieces that came, and the error at the end."""
    texts: list[str] = []
    try:
        async for one in call:
            texts.append(one.delta.text)
    except grpc.aio.AioRpcError as error:
        return texts, RichError(error)
    return texts, None


class TestUnforeseenErrors:
    async def test_a_unary_handler_leaks_nothing(self, door: Door) -> None:
        with structlog.testing.capture_logs() as logs:
            error = await refusal(router(door.channel).Complete(complete("raise")))
        assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert "something unforeseen happened" in error.message
        assert SECRET not in error.everything()
        (line,) = logs
        assert SECRET not in json.dumps(line)
        assert (line["event"], line["error"]) == ("call_failed", "ValueError")
        assert line["place"].startswith(f"{Handlers.__module__}:")
        assert line["request_id"] == error.metadata["x-request-id"]

    @pytest.mark.parametrize("kind", [Handlers, Generating])
    async def test_a_streaming_handler_leaks_nothing(self, kind: type[Handlers]) -> None:
        async with open_door(kind()) as door:
            texts, error = await read(router(door.channel).StreamComplete(stream("raise")))
        assert texts == ["first"]
        assert error is not None
        assert (error.code, error.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert SECRET not in error.everything()

    @pytest.mark.parametrize("kind", [Handlers, Generating])
    async def test_both_ways_of_writing_a_stream_work(self, kind: type[Handlers]) -> None:
        async with open_door(kind()) as door:
            assert await read(router(door.channel).StreamComplete(stream("answer"))) == (["first", "second"], None)

    async def test_a_typed_error_in_the_middle_of_a_stream_keeps_its_details(self, door: Door) -> None:
        texts, error = await read(router(door.channel).StreamComplete(stream("refuse")))
        assert texts == ["first"]
        assert error is not None
        assert (error.reason, error.details["RetryInfo"].retry_delay.seconds) == ("DRAINING", 2)


class TestMalformedBytes:
    @pytest.mark.parametrize("method", [COMPLETE, STREAM])
    @pytest.mark.parametrize("body", [b"\xff\xff", b"\x0a\x04\x1a\x02\xc3\x28"], ids=["garbage", "bad UTF-8"])
    async def test_they_are_told_apart_from_our_own_errors(self, door: Door, method: str, body: bytes) -> None:
        if method == COMPLETE:
            error = await refusal(door.channel.unary_unary(method)(body))
        else:
            call = door.channel.unary_stream(method)(body)
            error = await refusal(call.read())
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
        assert door.boundary.active_calls == 0

    async def test_also_in_a_stream_of_requests(self, door: Door) -> None:
        method = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        call = door.channel.stream_stream(method)(iter([b"\xff\xff"]))
        error = await refusal(call.read())
        assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


class TestRequestId:
    @pytest.mark.parametrize(
        ("field", "header", "expected"),
        [
            ("mine-1", None, "mine-1"),
            ("mine-1", "header-1", "mine-1"),
            ("", "header-1", "header-1"),
            ("", "a b", "req_"),
            ("", "x" * 129, "req_"),
            ("", None, "req_"),
        ],
    )
    async def test_where_it_comes_from(
        self, door: Door, handlers: Handlers, field: str, header: str | None, expected: str
    ) -> None:
        metadata = [] if header is None else [("x-request-id", header)]
        call: Any = router(door.channel).Route(route(request_id=field), metadata=metadata)
        answer = await call
        assert answer.request_id.startswith(expected)
        assert handlers.infos[0].request_id == answer.request_id
        trailing = [value for key, value in await call.trailing_metadata() if key == "x-request-id"]
        assert trailing == [answer.request_id]

    async def test_one_that_breaks_the_rules_is_not_sent_back(self, door: Door) -> None:
        answer = await router(door.channel).Route(route(request_id="a\nb"))
        assert answer.request_id.startswith("req_")

    async def test_an_error_carries_it_once(self, door: Door) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await router(door.channel).Complete(complete("raise", request_id="mine-2"))
        error: Any = caught.value
        assert [value for key, value in error.trailing_metadata() if key == "x-request-id"] == ["mine-2"]
        assert RichError(error).details["ErrorInfo"].metadata["requestId"] == "mine-2"

    async def test_fresh_ones_differ(self, door: Door) -> None:
        answers = [await router(door.channel).Route(route()) for _ in range(3)]
        assert len({answer.request_id for answer in answers}) == 3


class TestTraceparent:
    async def test_a_sound_one_is_kept(self, door: Door, handlers: Handlers) -> None:
        await router(door.channel).Route(route(), metadata=[("traceparent", TRACEPARENT)])
        assert handlers.infos[0].traceparent == TRACEPARENT

    @pytest.mark.parametrize("given", [None, "zz", TRACEPARENT.upper(), TRACEPARENT + "-extra", "01" + TRACEPARENT[2:]])
    async def test_any_other_is_left_out(self, door: Door, handlers: Handlers, given: str | None) -> None:
        await router(door.channel).Route(route(), metadata=[] if given is None else [("traceparent", given)])
        assert handlers.infos[0].traceparent == ""

    async def test_the_method_is_known(self, door: Door, handlers: Handlers) -> None:
        await router(door.channel).Route(route())
        assert handlers.infos[0].method == "/pointsman.v1.RouterService/Route"


async def busy(door: Door, handlers: Handlers, count: int) -> list[Any]:
    """So many calls that wait."""
    calls = [router(door.channel).Complete(complete("wait")) for _ in range(count)]
    await handlers.waiting(count)
    return calls


class TestOverload:
    async def test_more_calls_than_allowed_are_refused_at_once(self, door: Door, handlers: Handlers) -> None:
        running = await busy(door, handlers, 3)
        error = await refusal(router(door.channel).Complete(complete()))
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
        assert error.details["RetryInfo"].retry_delay.ToMilliseconds() == FIRST_RETRY_SECONDS * 1_000
        assert error.details["QuotaFailure"].violations[0].subject == "server"
        handlers.go_on.set()
        assert [(await call).request_id for call in running] == ["done"] * 3
        assert (await router(door.channel).Complete(complete())).request_id == "done"

    async def test_refused_calls_do_not_keep_others_out(self, door: Door, handlers: Handlers) -> None:
        running = await busy(door, handlers, 3)
        refused = [router(door.channel).Complete(complete()) for _ in range(20)]
        await asyncio.gather(*refused, return_exceptions=True)
        assert door.boundary.active_calls == 3
        handlers.go_on.set()
        await asyncio.gather(*running)
        assert door.boundary.active_calls == 0

    async def test_health_is_told_all_the_same(self, door: Door, handlers: Handlers) -> None:
        await busy(door, handlers, 3)
        assert await door.health() == "SERVING"
        handlers.go_on.set()

    async def test_a_cancelled_call_makes_room(self, door: Door, handlers: Handlers) -> None:
        running = await busy(door, handlers, 3)
        running[0].cancel()
        await handlers.waiting(2)
        assert (await router(door.channel).Complete(complete())).request_id == "done"
        handlers.go_on.set()

    async def test_a_failed_call_makes_room(self, door: Door) -> None:
        for _ in range(5):
            assert (await refusal(router(door.channel).Complete(complete("raise")))).reason == "INTERNAL"
        assert door.boundary.active_calls == 0


class TestDraining:
    async def test_new_calls_are_refused_and_running_ones_end(self, door: Door, handlers: Handlers) -> None:
        running = await busy(door, handlers, 1)
        draining = asyncio.create_task(door.server.drain(10.0))
        await asyncio.sleep(0)  # the task marks the server before it waits for anything
        assert door.boundary.draining
        error = await refusal(router(door.channel).Complete(complete()))
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert error.details["RetryInfo"].retry_delay.ToMilliseconds() > 0
        assert await door.health() == "NOT_SERVING"
        handlers.go_on.set()
        assert (await running[0]).request_id == "done"
        await asyncio.wait_for(draining, 5)

    async def test_a_call_longer_than_the_grace_period_is_cut(self, door: Door, handlers: Handlers) -> None:
        running = await busy(door, handlers, 1)
        await asyncio.wait_for(door.server.drain(0.05), 5)
        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await running[0]
        assert (handlers.open_calls, door.boundary.active_calls) == (0, 0)

    async def test_an_idle_server_is_drained_at_once(self, door: Door) -> None:
        await asyncio.wait_for(door.server.drain(60.0), 5)


class TestMetadata:
    async def test_too_many_entries_are_refused(self, door: Door) -> None:
        metadata = [(f"x-{number}", "v") for number in range(MAX_METADATA_ENTRIES + 1)]
        error = await refusal(router(door.channel).Complete(complete(), metadata=metadata))
        assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE")

    async def test_the_library_services_are_guarded_too(self, door: Door) -> None:
        metadata = [(f"x-{number}", "v") for number in range(MAX_METADATA_ENTRIES + 1)]
        method = "/grpc.health.v1.Health/Check"
        error = await refusal(door.channel.unary_unary(method)(b"", metadata=metadata))
        assert error.reason == "REQUEST_TOO_LARGE"


class TestWrapping:
    async def test_an_unknown_method_stays_unknown(self, door: Door) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await door.channel.unary_unary("/pointsman.v1.RouterService/Nothing")(b"")
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    def test_a_kind_of_method_that_nobody_serves_here_is_an_error_of_ours(self) -> None:
        async def gather(requests: AsyncIterator[bytes], context: Any) -> bytes:
            return b""

        boundary = Boundary(CountingIds(), FakeClock(), 1, ANYBODY_IS_LOCAL)
        with pytest.raises(TypeError, match=r"^/x\.Y/Z takes a stream"):
            boundary.wrap("/x.Y/Z", grpc.stream_unary_rpc_method_handler(gather))


def test_the_texts_of_a_request_are_those_of_the_contract() -> None:
    """The border reads the id from the field `request_id` of the field `completion`."""
    for request in (
        router_service_pb2.RouteRequest,
        router_service_pb2.CompleteRequest,
        router_service_pb2.StreamCompleteRequest,
    ):
        assert request.DESCRIPTOR.fields_by_name["completion"].message_type is completion_pb2.CompletionSpec.DESCRIPTOR
    assert "request_id" in completion_pb2.CompletionSpec.DESCRIPTOR.fields_by_name
