"""The dialect, its endpoint and the wire together, against a real HTTP server on this machine."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from pointsman_server.adapters.providers.dialect import DialectAdapter
from pointsman_server.adapters.providers.gemini_endpoint import GeminiEndpoint
from pointsman_server.adapters.providers.gemini_generate import GeminiGenerate
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.domain.catalog import Deployment, Dialect, Model, Price, Provider, Secret
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import Message, Role, TextPart
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import FinishReason, Reply, ReplyBuilder
from pointsman_server.domain.request import GenerationConfig, Tier

MODEL = Model("gemini", Tier.STANDARD, 1_000_000, 64_000, frozenset(), 0.8, Price("test", None, ()))
USAGE = {"promptTokenCount": 2, "candidatesTokenCount": 3, "totalTokenCount": 5}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def chunk(text: str, **candidate: Any) -> dict[str, Any]:
    content = {"role": "model", "parts": [{"text": text}]}
    return {"candidates": [{"content": content, **candidate}], "usageMetadata": USAGE, "responseId": "r-1"}


def framed(said: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(said, ensure_ascii=False).encode() + b"\r\n\r\n"


HELLO, WORLD = chunk("Grüezi "), chunk("mitenand 🙂", finishReason="STOP")


class Provided:
    """A provider at 127.0.0.1 and an adapter that speaks to it."""

    def __init__(self, base_url: str, wire: HttpWire) -> None:
        provider = Provider("gemini", Dialect.GEMINI_GENERATE, base_url, Secret("key-of-ours", "env:GEMINI"))
        self._deployment = Deployment("d", provider, MODEL, "gemini-3.8-flash")
        self.adapter = DialectAdapter(GeminiGenerate(), GeminiEndpoint(provider), wire)

    def call(self, *, stream: bool, timeout_seconds: float = 5.0) -> ProviderCall:
        talk = (Message(Role.USER, (TextPart("Hello"),)),)
        return ProviderCall(
            self._deployment, talk, GenerationConfig(), 100, stream, timeout_seconds, {"traceparent": "00-1"}
        )

    async def answer(self, *, stream: bool) -> Reply:
        builder = ReplyBuilder()
        async for batch in self.adapter.exchange(self.call(stream=stream)):
            for event in batch:
                builder.add(event)
        return builder.build()

    async def fault(self, *, stream: bool = True) -> ProviderFault:
        with pytest.raises(ProviderFault) as caught:
            await self.answer(stream=stream)
        return caught.value


@asynccontextmanager
async def provided(handler: Handler) -> AsyncIterator[Provided]:
    app = web.Application()
    app.router.add_post("/{path:.*}", handler)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    wire = HttpWire()
    try:
        yield Provided(f"http://{host}:{port}/v1beta", wire)
    finally:
        await wire.close()
        await runner.cleanup()


async def send_stream(request: web.Request, *pieces: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    for piece in pieces:
        await response.write(piece)
    return response


async def test_a_whole_answer() -> None:
    seen: list[tuple[web.Request, Any]] = []

    async def handler(request: web.Request) -> web.StreamResponse:
        seen.append((request, await request.json()))
        return web.json_response(chunk("Grüezi mitenand 🙂", finishReason="STOP"))

    async with provided(handler) as provider:
        reply = await provider.answer(stream=False)
    request, body = seen[0]
    assert request.path_qs == "/v1beta/models/gemini-3.8-flash:generateContent"
    assert request.headers["x-goog-api-key"] == "key-of-ours"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["traceparent"] == "00-1"
    assert "google-genai-sdk" in request.headers["x-goog-api-client"]
    assert body == {
        "contents": [{"role": "user", "parts": [{"text": "Hello"}]}],
        "generationConfig": {"maxOutputTokens": 100},
    }
    assert (reply.text, reply.finish_reason) == ("Grüezi mitenand 🙂", FinishReason.STOP)


@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_a_stream_in_any_pieces_is_the_whole_answer(size: int) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        assert request.path_qs == "/v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse"
        body = framed(HELLO) + framed(WORLD)
        return await send_stream(request, *(body[at : at + size] for at in range(0, len(body), size)))

    async def whole(request: web.Request) -> web.StreamResponse:
        return web.json_response(chunk("Grüezi mitenand 🙂", finishReason="STOP"))

    async with provided(handler) as provider:
        streamed = await provider.answer(stream=True)
    async with provided(whole) as provider:
        assert await provider.answer(stream=False) == streamed


async def test_json_for_a_stream_and_a_stream_for_json() -> None:
    async def crossed(request: web.Request) -> web.StreamResponse:
        if request.query_string:
            return web.json_response(WORLD)
        return await send_stream(request, framed(HELLO), framed(WORLD))

    async with provided(crossed) as provider:
        assert (await provider.answer(stream=True)).text == "mitenand 🙂"
        assert (await provider.answer(stream=False)).text == "Grüezi mitenand 🙂"


async def test_an_error_status() -> None:
    delay = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "23s"}
    error = {"code": 429, "message": "You exceeded your current quota", "status": "X", "details": [delay]}

    async def handler(request: web.Request) -> web.StreamResponse:
        return web.json_response({"error": error}, status=429)

    async with provided(handler) as provider:
        fault = await provider.fault()
    assert (fault.kind, fault.status, fault.retry_after_seconds) == (FaultKind.RATE_LIMITED, 429, 23)


async def test_an_error_in_place_of_a_stream() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await send_stream(request, framed({"error": {"code": 503, "status": "UNAVAILABLE"}}))

    async with provided(handler) as provider:
        assert (await provider.fault()).kind is FaultKind.OVERLOADED


async def test_a_body_that_ends_early() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return await send_stream(request, framed(HELLO))

    async with provided(handler) as provider:
        assert (await provider.fault()).kind is FaultKind.STREAM_CUT


async def test_a_connection_cut_in_the_middle() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = await send_stream(request, framed(HELLO))
        assert request.transport is not None
        request.transport.abort()
        return response

    async with provided(handler) as provider:
        assert (await provider.fault()).kind is FaultKind.STREAM_CUT


async def test_closing_early_closes_the_connection() -> None:
    gone = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        response = await send_stream(request, framed(HELLO))
        try:
            while True:
                await response.write(b": still here\r\n\r\n")
                await asyncio.sleep(0.01)
        except (ConnectionError, asyncio.CancelledError):
            gone.set()
            raise

    async with provided(handler) as provider:
        exchange = provider.adapter.exchange(provider.call(stream=True))
        batch = await anext(exchange)
        while not batch:
            batch = await anext(exchange)
        await exchange.aclose()
        await asyncio.wait_for(gone.wait(), 5)
