"""Both OpenAI dialects over a real connection to a small server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from kit.openai_calls import CHAT_USAGE, call_of, chunk, deployment, sse, usage_chunk
from pointsman_server.adapters.providers.dialect import DialectAdapter, WireDialect
from pointsman_server.adapters.providers.endpoint import BearerEndpoint
from pointsman_server.adapters.providers.openai_chat import OpenAiChat
from pointsman_server.adapters.providers.openai_responses import OpenAiResponses
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.reply import FinishReason, Reply, ReplyBuilder

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

CHAT_ANSWER = {
    "id": "a1",
    "model": "m1",
    "choices": [{"index": 0, "message": {"content": "Hello"}, "finish_reason": "stop"}],
    "usage": CHAT_USAGE,
}
RESPONSE = {
    "id": "r1",
    "model": "m1",
    "status": "completed",
    "output": [{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}],
    "usage": {"input_tokens": 7, "output_tokens": 2},
}
CHAT_STREAM = sse(chunk(content="Hel"), chunk(content="lo"), chunk("stop"), usage_chunk())
RESPONSES_STREAM = sse(
    {"type": "response.created", "response": {"id": "r1", "model": "m1"}},
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hel"},
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "lo"},
    {"type": "response.completed", "response": RESPONSE},
    done=False,
    named=True,
)

DIALECTS = [
    pytest.param(OpenAiChat(), "/v1/chat/completions", CHAT_ANSWER, CHAT_STREAM, id="chat"),
    pytest.param(OpenAiResponses(), "/v1/responses", RESPONSE, RESPONSES_STREAM, id="responses"),
]


@asynccontextmanager
async def served(path: str, handler: Handler) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_post(path, handler)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/v1"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def adapter_to(dialect: WireDialect, base_url: str) -> AsyncIterator[DialectAdapter]:
    wire = HttpWire()
    try:
        yield DialectAdapter(dialect, BearerEndpoint(deployment(base_url).provider), wire)
    finally:
        await wire.close()


async def ask(dialect: WireDialect, path: str, handler: Handler, *, stream: bool = False) -> Reply:
    builder = ReplyBuilder()
    async with served(path, handler) as base_url, adapter_to(dialect, base_url) as adapter:
        call = call_of(place=deployment(base_url), stream=stream)
        async for batch in adapter.exchange(call):
            for event in batch:
                builder.add(event)
    return builder.build()


async def open_sse(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    return response


def assert_hello(reply: Reply) -> None:
    assert (reply.text, reply.finish_reason, reply.model) == ("Hello", FinishReason.STOP, "m1")
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (7, 2)


@pytest.mark.parametrize(("dialect", "path", "answer", "streamed"), DIALECTS)
class TestExchange:
    async def test_whole(self, dialect: WireDialect, path: str, answer: Any, streamed: bytes) -> None:
        seen: list[Any] = []

        async def handle(request: web.Request) -> web.Response:
            seen.extend((await request.json(), request.headers["authorization"], request.headers["content-type"]))
            # Some providers keep the connection alive with white space before the body.
            return web.Response(body=b"\n         \n" + json.dumps(answer).encode(), content_type="application/json")

        assert_hello(await ask(dialect, path, handle))
        body, authorization, content_type = seen
        assert (body["model"], body["stream"]) == ("model-1", False)
        assert authorization == "Bearer key-of-ours"
        assert content_type == "application/json"

    @pytest.mark.parametrize("size", [1, 7, 10_000])
    async def test_stream(self, dialect: WireDialect, path: str, answer: Any, streamed: bytes, size: int) -> None:
        async def handle(request: web.Request) -> web.StreamResponse:
            assert (await request.json())["stream"] is True
            response = await open_sse(request)
            for start in range(0, len(streamed), size):
                await response.write(streamed[start : start + size])
            return response

        assert_hello(await ask(dialect, path, handle, stream=True))

    async def test_whole_answer_to_a_call_for_a_stream(
        self, dialect: WireDialect, path: str, answer: Any, streamed: bytes
    ) -> None:
        async def handle(request: web.Request) -> web.Response:
            return web.json_response(answer)

        assert_hello(await ask(dialect, path, handle, stream=True))

    async def test_stream_to_a_call_for_a_whole_answer(
        self, dialect: WireDialect, path: str, answer: Any, streamed: bytes
    ) -> None:
        async def handle(request: web.Request) -> web.Response:
            return web.Response(body=streamed, content_type="application/json")

        assert_hello(await ask(dialect, path, handle))

    async def test_error(self, dialect: WireDialect, path: str, answer: Any, streamed: bytes) -> None:
        async def handle(request: web.Request) -> web.Response:
            error = {"message": "Rate limit reached for secret-org", "type": "tokens", "code": "rate_limit_exceeded"}
            return web.json_response({"error": error}, status=429, headers={"retry-after": "2"})

        with pytest.raises(ProviderFault) as caught:
            await ask(dialect, path, handle)
        fault = caught.value
        assert (fault.kind, fault.status, fault.retry_after_seconds) == (FaultKind.RATE_LIMITED, 429, 2.0)
        assert "secret-org" not in str(fault)

    @pytest.mark.parametrize("body", [b"", b"null", b"[]", b"<html>", b"{}", b"{}{}", b'{"choices"', b"[" * 100_000])
    async def test_no_answer_at_all(
        self, dialect: WireDialect, path: str, answer: Any, streamed: bytes, body: bytes
    ) -> None:
        async def handle(request: web.Request) -> web.Response:
            return web.Response(body=body, content_type="application/json")

        with pytest.raises(ProviderFault) as caught:
            await ask(dialect, path, handle)
        assert caught.value.kind is FaultKind.MALFORMED_REPLY

    async def test_connection_cut_in_the_middle(
        self, dialect: WireDialect, path: str, answer: Any, streamed: bytes
    ) -> None:
        async def handle(request: web.Request) -> web.StreamResponse:
            response = await open_sse(request)
            await response.write(streamed[: len(streamed) // 3])
            assert request.transport is not None
            request.transport.close()
            return response

        with pytest.raises(ProviderFault) as caught:
            await ask(dialect, path, handle, stream=True)
        assert caught.value.kind is FaultKind.STREAM_CUT

    async def test_closing_the_generator_closes_the_connection(
        self, dialect: WireDialect, path: str, answer: Any, streamed: bytes
    ) -> None:
        closed = asyncio.Event()

        async def handle(request: web.Request) -> web.StreamResponse:
            response = await open_sse(request)
            await response.write(streamed[: len(streamed) // 2])
            try:
                while True:
                    await response.write(b": ping\n\n")
                    await asyncio.sleep(0.01)
            except (ConnectionError, asyncio.CancelledError):
                closed.set()
                raise

        async with served(path, handle) as base_url, adapter_to(dialect, base_url) as adapter:
            call = call_of(place=deployment(base_url), stream=True)
            async with aclosing(adapter.exchange(call)) as batches:
                async for batch in batches:
                    if batch:
                        break
            await asyncio.wait_for(closed.wait(), 2.0)
