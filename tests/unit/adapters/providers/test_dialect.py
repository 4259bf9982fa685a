from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman_server.adapters.providers.dialect import DialectAdapter, Outgoing, read_answer
from pointsman_server.adapters.providers.endpoint import BearerEndpoint
from pointsman_server.adapters.providers.failures import ErrorWords, failure_from_status
from pointsman_server.adapters.providers.json_reading import CountReader, read_object
from pointsman_server.adapters.providers.sse import SseEvent
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.domain.catalog import Deployment, Dialect, Model, Price, Provider, Secret
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import Message, Role, TextPart
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import (
    Finished,
    FinishReason,
    Reply,
    ReplyBuilder,
    ReplyEvent,
    TextDelta,
    Usage,
    UsageReport,
)
from pointsman_server.domain.request import GenerationConfig, Tier


class ToyStream:
    """One piece of text in each event, until one says `end`."""

    def __init__(self) -> None:
        self._ended = False

    def feed(self, event: SseEvent) -> Sequence[ReplyEvent]:
        if self._ended:
            return ()
        payload = read_object(event.data, "an event")
        if "error" in payload:
            raise ProviderFault(FaultKind.OVERLOADED, "said inside the stream")
        self._ended = bool(payload.get("end"))
        return ToyDialect.events_of(payload, ended=self._ended)

    def end(self) -> Sequence[ReplyEvent]:
        if not self._ended:
            raise ProviderFault(FaultKind.STREAM_CUT, "no end marker")
        return ()


class ToyDialect:
    """The smallest dialect: `text` is the text, `n` the output tokens, `end` the end marker."""

    def shape(self, call: ProviderCall) -> Outgoing:
        if call.generation.seed is not None:
            raise ProviderFault(FaultKind.INVALID_REQUEST, "seed: cannot be said")
        return Outgoing("/toy", {"say": call.messages[0].text, "stream": call.stream}, {"x-toy": "1"})

    def read_whole(self, body: Mapping[str, Any]) -> Sequence[ReplyEvent]:
        if "text" not in body:
            raise ProviderFault(FaultKind.MALFORMED_REPLY, "no text")
        return self.events_of(body, ended=True)

    @staticmethod
    def events_of(body: Mapping[str, Any], *, ended: bool) -> Sequence[ReplyEvent]:
        events: list[ReplyEvent] = []
        if body.get("text"):
            events.append(TextDelta(0, body["text"]))
        if ended:
            counts = CountReader()
            usage = Usage(output_tokens=counts.read(body.get("n")), implausible=counts.implausible)
            events += [UsageReport(usage), Finished(FinishReason.STOP, "end")]
        return events

    def open_stream(self) -> ToyStream:
        return ToyStream()

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFault:
        return failure_from_status(status, ErrorWords(message=body.decode("utf-8", "replace")), headers)


class Pieces:
    """Stands where a `WireResponse` stands: hands out these pieces, then fails if told how."""

    status = 200
    headers: Mapping[str, str] = {}

    def __init__(self, *pieces: bytes, then: ProviderFault | None = None) -> None:
        self._pieces = pieces
        self._then = then

    async def chunks(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece
        if self._then is not None:
            raise self._then


async def answer_of(*pieces: bytes, then: ProviderFault | None = None) -> Reply:
    builder = ReplyBuilder()
    response: Any = Pieces(*pieces, then=then)
    async for batch in read_answer(response, ToyDialect()):
        for event in batch:
            builder.add(event)
    return builder.build()


async def fault_of(*pieces: bytes, then: ProviderFault | None = None) -> ProviderFault:
    with pytest.raises(ProviderFault) as caught:
        await answer_of(*pieces, then=then)
    return caught.value


def bytewise(body: bytes) -> list[bytes]:
    return [body[i : i + 1] for i in range(len(body))]


BOM = b"\xef\xbb\xbf"
WHOLE = '{"text": "Zürich 🎉", "n": 3}'.encode()
STREAM = 'data: {"text": "Zür"}\n\ndata: {"text": "ich 🎉"}\n\ndata: {"end": true, "n": 3}\n\n'.encode()


async def expected() -> Reply:
    reply = await answer_of(WHOLE)
    assert (reply.text, reply.usage.output_tokens, reply.finish_reason) == ("Zürich 🎉", 3, FinishReason.STOP)
    return reply


class TestReadAnswer:
    @pytest.mark.parametrize(
        "body",
        [
            WHOLE,
            WHOLE + b"\n",
            b"\n         \n" + WHOLE,
            b" " * 100_000 + WHOLE,
            BOM + WHOLE,
            b"\r\n\t" + BOM + WHOLE,
            STREAM,
            BOM + STREAM,
            b"\n\n" + STREAM,
            STREAM.replace(b"\n", b"\r\n"),
            STREAM.replace(b"\n", b"\r"),
            STREAM.rstrip(),
            b": OPENROUTER PROCESSING\n\n" + STREAM,
            b":\n\n" * 500 + STREAM,
            b"id: 1\n" + STREAM,
            b"retry: 3000\n\n" + STREAM,
            b"event: toy\n" + STREAM,
            STREAM.replace(b"data: ", b"data:"),
            STREAM + b"data: [DONE]\n\n",
            STREAM + b'data: {"text": "after the end"}\n\n',
            STREAM + b"data: {broken",
        ],
        ids=lambda body: repr(body[:16] + b".." + body[-8:]),
    )
    async def test_the_first_bytes_decide(self, body: bytes) -> None:
        reply = await expected()
        assert await answer_of(body) == reply
        if len(body) < 2_000:
            assert await answer_of(*bytewise(body)) == reply
            assert await answer_of(b"", body[:1], b"", body[1:], b"") == reply

    @given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.booleans())
    @settings(deadline=None)
    def test_any_cutting_gives_the_same_answer(self, sizes: list[int], streamed: bool) -> None:
        body, pieces, start = (STREAM if streamed else WHOLE), [], 0
        for size in sizes:
            pieces.append(body[start : start + size])
            start += size
        asyncio.run(self._same(*pieces, body[start:]))

    @staticmethod
    async def _same(*pieces: bytes) -> None:
        assert await answer_of(*pieces) == await expected()

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"  \n ",
            BOM,
            b"null",
            b"[]",
            b"[" + WHOLE + b"]",
            b'"data: x"',
            b"true",
            b"<!DOCTYPE html><html>Bad gateway</html>",
            b"upstream connect error or disconnect/reset before headers",
            WHOLE + WHOLE,
            WHOLE + b"\n" + WHOLE,
            WHOLE[:-1],
            WHOLE.replace(b"\xc3\xbc", b"\xfc"),
            b"[" * 100_000,
            gzip.compress(WHOLE, mtime=0),
            b"{}",
            b'{"error": "x"}',
        ],
        ids=lambda body: repr(body[:24]),
    )
    async def test_what_is_no_answer_is_malformed(self, body: bytes) -> None:
        assert (await fault_of(body)).kind is FaultKind.MALFORMED_REPLY
        assert (await fault_of(*bytewise(body[:2_000]))).kind is FaultKind.MALFORMED_REPLY

    @pytest.mark.parametrize("count", [b"NaN", b"-1", b"1000000000000", b'"many"', b"Infinity"])
    async def test_impossible_usage_does_not_spoil_the_answer(self, count: bytes) -> None:
        for body in (
            b'{"text": "yes", "n": ' + count + b"}",
            b'data: {"text": "yes", "end": 1, "n": ' + count + b"}\n\n",
        ):
            reply = await answer_of(body)
            assert (reply.text, reply.usage) == ("yes", Usage(implausible=True))

    @pytest.mark.parametrize("body", [b"data:", b"data: ", b"data: x", b":", b": only a comment\n\n", b"event: x\n\n"])
    async def test_stream_without_an_answer(self, body: bytes) -> None:
        assert (await fault_of(body)).kind in (FaultKind.STREAM_CUT, FaultKind.MALFORMED_REPLY)

    async def test_stream_cut_at_every_byte_never_passes(self) -> None:
        complete = len(STREAM.rstrip())
        for length in range(len(STREAM)):
            if length < complete:
                kind = (await fault_of(STREAM[:length])).kind
                assert kind in (FaultKind.STREAM_CUT, FaultKind.MALFORMED_REPLY)
            else:
                assert await answer_of(STREAM[:length]) == await expected()

    @pytest.mark.parametrize("kind", [FaultKind.STREAM_CUT, FaultKind.TIMEOUT])
    @pytest.mark.parametrize("length", [0, 3, 30, len(STREAM.rstrip()) - 1])
    async def test_connection_lost_before_the_end_is_what_is_told(self, kind: FaultKind, length: int) -> None:
        lost = ProviderFault(kind, "lost")
        lost.__cause__ = OSError("why")
        fault = await fault_of(STREAM[:length], then=lost)
        assert fault is lost
        assert isinstance(fault.__cause__, OSError)

    @pytest.mark.parametrize("kind", [FaultKind.STREAM_CUT, FaultKind.TIMEOUT])
    @pytest.mark.parametrize("length", [len(STREAM), len(STREAM.rstrip())])
    async def test_connection_lost_after_the_end_takes_nothing(self, kind: FaultKind, length: int) -> None:
        assert await answer_of(STREAM[:length], then=ProviderFault(kind, "lost")) == await expected()

    async def test_connection_lost_in_a_whole_answer(self) -> None:
        for length in (0, 5, len(WHOLE)):
            fault = await fault_of(WHOLE[:length], then=ProviderFault(FaultKind.STREAM_CUT, "lost"))
            assert fault.kind is FaultKind.STREAM_CUT

    async def test_error_inside_the_stream(self) -> None:
        assert (await fault_of(b'data: {"text": "a"}\n\ndata: {"error": 1}\n\n' + STREAM)).kind is FaultKind.OVERLOADED
        assert (await fault_of(b'data: {"error": 1}')).kind is FaultKind.OVERLOADED

    async def test_events_are_handed_on_as_they_arrive(self) -> None:
        seen: list[str] = []

        async def chunks() -> AsyncIterator[bytes]:
            for event in STREAM.split(b"\n\n")[:3]:
                yield event + b"\n\n"
                seen.append("asked for more")

        response: Any = Pieces()
        response.chunks = chunks
        async for batch in read_answer(response, ToyDialect()):
            seen += [event.text for event in batch if isinstance(event, TextDelta)]
        assert seen == ["Zür", "asked for more", "ich 🎉", "asked for more", "asked for more"]

    async def test_keep_alive_white_space_is_not_counted_against_the_longest_body(self) -> None:
        start = time.process_time()
        assert await answer_of(*[b" " * 1_000] * 40_000, WHOLE) == await expected()
        assert time.process_time() - start < 2.0

    async def test_one_line_without_an_end(self) -> None:
        fault = await fault_of(*[b"data: " + b"x" * 10_000] * 150)
        assert fault.kind is FaultKind.MALFORMED_REPLY


Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Upstream:
    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self.requests: list[tuple[Mapping[str, str], Any]] = []
        self.peers: set[Any] = set()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        self.requests.append((request.headers, await request.json()))
        return await self._answer(request)


@asynccontextmanager
async def adapter_to(upstream: Upstream) -> AsyncIterator[tuple[DialectAdapter, str]]:
    app, wire = web.Application(), HttpWire()
    app.router.add_post("/toy", upstream.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield DialectAdapter(ToyDialect(), BearerEndpoint(provider(url)), wire), url
    finally:
        await wire.close()
        await runner.cleanup()


def provider(url: str) -> Provider:
    return Provider("toy", Dialect.OPENAI_CHAT, url, Secret("key-of-ours", "env:TOY"))


def call_to(url: str, *, stream: bool = False, timeout: float = 5.0, **generation: Any) -> ProviderCall:
    model = Model("toy", Tier.LIGHT, 1_000, 100, frozenset(), 0.5, Price("test", None, ()))
    deployment = Deployment("toy", provider(url), model, "toy-1")
    messages = (Message(Role.USER, (TextPart("secret words"),)),)
    return ProviderCall(
        deployment, messages, GenerationConfig(**generation), 100, stream, timeout, {"traceparent": "t1"}
    )


async def converse(adapter: DialectAdapter, call: ProviderCall) -> Reply:
    builder = ReplyBuilder()
    async for batch in adapter.exchange(call):
        for event in batch:
            builder.add(event)
    return builder.build()


def with_body(body: bytes, status: int = 200, content_type: str = "application/json", **headers: str) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(body=body, status=status, content_type=content_type, headers=named)

    return answer


class TestAdapter:
    @pytest.mark.parametrize("stream", [False, True])
    async def test_sends_what_the_dialect_shaped(self, stream: bool) -> None:
        upstream = Upstream(with_body(STREAM if stream else WHOLE))
        async with adapter_to(upstream) as (adapter, url):
            assert await converse(adapter, call_to(url, stream=stream)) == await expected()
        ((headers, body),) = upstream.requests
        assert body == {"say": "secret words", "stream": stream}
        assert (headers["x-toy"], headers["traceparent"]) == ("1", "t1")
        assert headers["authorization"] == "Bearer key-of-ours"
        assert headers["content-type"] == "application/json"

    @pytest.mark.parametrize(
        "content_type", ["text/event-stream", "application/json", "text/html", "application/octet-stream"]
    )
    @pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
    async def test_content_type_is_not_believed(self, content_type: str, body: bytes) -> None:
        async with adapter_to(Upstream(with_body(body, content_type=content_type))) as (adapter, url):
            assert await converse(adapter, call_to(url, stream=body is WHOLE)) == await expected()

    async def test_what_cannot_be_said_is_not_sent(self) -> None:
        upstream = Upstream(with_body(WHOLE))
        async with adapter_to(upstream) as (adapter, url):
            with pytest.raises(ProviderFault) as caught:
                await converse(adapter, call_to(url, seed=1))
        assert caught.value.kind is FaultKind.UNSUPPORTED
        assert upstream.requests == []

    @pytest.mark.parametrize(
        ("status", "kind", "wait"),
        [
            (400, FaultKind.INVALID_REQUEST, None),
            (401, FaultKind.AUTH, None),
            (429, FaultKind.RATE_LIMITED, 7.0),
            (500, FaultKind.UNAVAILABLE, None),
            (503, FaultKind.OVERLOADED, 7.0),
            (529, FaultKind.OVERLOADED, 7.0),
            (201, FaultKind.UNKNOWN, None),
        ],
    )
    async def test_errors(self, status: int, kind: FaultKind, wait: float | None) -> None:
        async with adapter_to(Upstream(with_body(b"secret words", status, Retry_After="7"))) as (adapter, url):
            with pytest.raises(ProviderFault) as caught:
                await converse(adapter, call_to(url))
        fault = caught.value
        assert (fault.kind, fault.status, fault.retry_after_seconds) == (kind, status, wait)
        assert "secret" not in str(fault)

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    async def test_redirect_is_no_answer(self, status: int) -> None:
        upstream = Upstream(with_body(b"", status, Location="/toy"))
        async with adapter_to(upstream) as (adapter, url):
            with pytest.raises(ProviderFault) as caught:
                await converse(adapter, call_to(url))
        assert (caught.value.kind, caught.value.status) == (FaultKind.MALFORMED_REPLY, status)
        assert len(upstream.requests) == 1

    async def test_error_whose_body_breaks_off_is_still_that_error(self) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(status=429, headers={"content-length": "1000", "retry-after": "2"})
            await response.prepare(request)
            await response.write(b"slow")
            assert request.transport is not None
            request.transport.close()
            return response

        async with adapter_to(Upstream(answer)) as (adapter, url):
            with pytest.raises(ProviderFault) as caught:
                await converse(adapter, call_to(url))
        assert (caught.value.kind, caught.value.retry_after_seconds) == (FaultKind.RATE_LIMITED, 2.0)

    @pytest.mark.parametrize(
        ("body", "headers"),
        [
            (gzip.compress(WHOLE, mtime=0)[:-12], {"content-encoding": "gzip"}),
            (gzip.compress(STREAM, mtime=0)[:-12], {"content-encoding": "gzip"}),
            (WHOLE, {"content-encoding": "gzip"}),
        ],
        ids=["whole gzip cut", "stream gzip cut", "no gzip"],
    )
    async def test_lies_about_compression_never_pass(self, body: bytes, headers: dict[str, str]) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(body=body, headers=headers)

        async with adapter_to(Upstream(answer)) as (adapter, url):
            with pytest.raises(ProviderFault) as caught:
                await converse(adapter, call_to(url))
        assert caught.value.kind in (FaultKind.STREAM_CUT, FaultKind.MALFORMED_REPLY)

    async def test_timeout_of_the_call(self) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            await response.write(STREAM[:20])
            await asyncio.sleep(30)
            return response

        async with adapter_to(Upstream(answer)) as (adapter, url):
            with pytest.raises(ProviderFault) as caught:
                await converse(adapter, call_to(url, timeout=0.1))
        assert caught.value.kind is FaultKind.TIMEOUT

    @pytest.mark.parametrize("body", [WHOLE, STREAM], ids=["whole", "stream"])
    async def test_calls_in_a_row_share_one_connection(self, body: bytes) -> None:
        upstream = Upstream(with_body(body))
        async with adapter_to(upstream) as (adapter, url):
            for _ in range(3):
                await converse(adapter, call_to(url))
        assert (len(upstream.requests), len(upstream.peers)) == (3, 1)

    async def test_errors_do_not_cost_the_connection(self) -> None:
        upstream = Upstream(with_body(json.dumps({"message": "x" * 5_000}).encode(), 500))
        async with adapter_to(upstream) as (adapter, url):
            for _ in range(3):
                with pytest.raises(ProviderFault):
                    await converse(adapter, call_to(url))
        assert (len(upstream.requests), len(upstream.peers)) == (3, 1)

    @pytest.mark.parametrize("how", ["close", "cancel"])
    async def test_leaving_early_closes_upstream_within_200_ms(self, how: str) -> None:
        gone = asyncio.Event()

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"content-type": "text/event-stream"})
            await response.prepare(request)
            await response.write(STREAM[:30])
            try:
                await asyncio.sleep(30)
            finally:
                gone.set()
            return response

        async with adapter_to(Upstream(answer)) as (adapter, url):
            events = adapter.exchange(call_to(url, stream=True))
            await anext(events)
            if how == "close":
                await events.aclose()
            else:
                task = asyncio.ensure_future(anext(events))
                await asyncio.sleep(0.01)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            await asyncio.wait_for(gone.wait(), 0.2)

    async def test_closing_the_adapter_leaves_the_shared_wire_open(self) -> None:
        async with adapter_to(Upstream(with_body(WHOLE))) as (adapter, url):
            await adapter.close()
            assert await converse(adapter, call_to(url)) == await expected()
