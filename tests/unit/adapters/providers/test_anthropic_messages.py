from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, get_args

import anthropic
import pytest
from aiohttp import web
from anthropic.types import ErrorType

from pointsman_server.adapters.providers.anthropic_endpoint import AnthropicEndpoint
from pointsman_server.adapters.providers.anthropic_messages import AnthropicMessages
from pointsman_server.adapters.providers.anthropic_reading import read_error_words
from pointsman_server.adapters.providers.dialect import DialectAdapter
from pointsman_server.adapters.providers.failures import failure_in_answer
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.domain.catalog import Deployment, Dialect, Model, Price, Provider, Secret
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import Message, Role, TextPart
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import FinishReason, Reply, ReplyBuilder, TextDelta
from pointsman_server.domain.request import GenerationConfig, Tier

ANSWER = {
    "id": "msg_1", "type": "message", "model": "claude-sonnet-5-5", "content": [{"type": "text", "text": "Grüezi!"}],
    "stop_reason": "end_turn", "usage": {"input_tokens": 3, "output_tokens": 2},
}  # fmt: skip
EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**ANSWER, "content": [], "usage": {"input_tokens": 3, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Grü"}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ezi!"}},
    {"type": "content_block_stop", "index": 0},
    {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 2}},
    {"type": "message_stop"},
]
SSE = {"content-type": "text/event-stream"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def as_sse(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


@asynccontextmanager
async def served(handler: Handler) -> AsyncIterator[tuple[DialectAdapter, str]]:
    """An adapter whose provider is a local server that answers with this handler, and the server's URL."""
    application = web.Application()
    application.router.add_post("/v1/messages", handler)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    wire = HttpWire()
    provider = Provider("claude", Dialect.ANTHROPIC_MESSAGES, url, Secret("planted-key", "env:KEY"))
    try:
        yield DialectAdapter(AnthropicMessages(), AnthropicEndpoint(provider), wire), url
    finally:
        await wire.close()
        await runner.cleanup()


def call(*, stream: bool = False) -> ProviderCall:
    model = Model("claude", Tier.STANDARD, 200_000, 64_000, frozenset(), 0.8, Price("test", None, ()))
    provider = Provider("claude", Dialect.ANTHROPIC_MESSAGES, "")
    place = Deployment("d", provider, model, "claude-sonnet-5-5")
    hello = Message(Role.USER, (TextPart("Hello"),))
    return ProviderCall(place, (hello,), GenerationConfig(), 100, stream, 5.0, {"traceparent": "00-1"})


async def exchange(adapter: DialectAdapter, asked: ProviderCall) -> Reply:
    builder = ReplyBuilder()
    async for batch in adapter.exchange(asked):
        for event in batch:
            builder.add(event)
    return builder.build()


class TestThroughTheWire:
    async def test_whole(self) -> None:
        async def answer(request: web.Request) -> web.Response:
            assert request.headers["authorization"] == "Bearer planted-key"
            assert request.headers["anthropic-version"]
            assert request.headers["traceparent"] == "00-1"
            assert (await request.json())["max_tokens"] == 100
            return web.json_response(ANSWER)

        async with served(answer) as (adapter, _):
            reply = await exchange(adapter, call())
        assert (reply.text, reply.finish_reason, reply.usage.output_tokens) == ("Grüezi!", FinishReason.STOP, 2)

    async def test_a_stream_folds_to_the_whole(self) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            if not (await request.json()).get("stream"):
                return web.json_response(ANSWER)
            response = web.StreamResponse(headers=SSE)
            await response.prepare(request)
            for event in EVENTS:
                data = as_sse(event)
                await response.write(data[:-9])
                await response.write(data[-9:])
            return response

        async with served(answer) as (adapter, _):
            assert await exchange(adapter, call(stream=True)) == await exchange(adapter, call())

    async def test_overloaded(self) -> None:
        async def answer(request: web.Request) -> web.Response:
            error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
            return web.json_response(error, status=529, headers={"Retry-After": "3"})

        async with served(answer) as (adapter, _):
            with pytest.raises(ProviderFault) as caught:
                await exchange(adapter, call())
        assert (caught.value.kind, caught.value.retry_after_seconds) == (FaultKind.OVERLOADED, 3.0)

    @pytest.mark.parametrize("aborted", [True, False])
    async def test_a_connection_that_ends_early(self, aborted: bool) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers=SSE)
            await response.prepare(request)
            await response.write(b"".join(as_sse(event) for event in EVENTS[:5]))
            if aborted and request.transport is not None:
                request.transport.abort()
            return response

        async with served(answer) as (adapter, _):
            with pytest.raises(ProviderFault) as caught:
                await exchange(adapter, call(stream=True))
        assert caught.value.kind is FaultKind.STREAM_CUT

    async def test_nobody_listens_any_more(self) -> None:
        gone = asyncio.Event()

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers=SSE)
            await response.prepare(request)
            try:
                await response.write(b"".join(as_sse(event) for event in EVENTS[:4]))
                while True:
                    await response.write(as_sse({"type": "ping"}))
                    await asyncio.sleep(0.005)
            except (ConnectionError, asyncio.CancelledError):
                gone.set()
                raise

        async with served(answer) as (adapter, _):
            events = adapter.exchange(call(stream=True))
            async for batch in events:
                if any(isinstance(event, TextDelta) for event in batch):
                    break
            await events.aclose()
            await asyncio.wait_for(gone.wait(), 2)

    async def test_the_sdk_reads_the_same_server(self) -> None:
        async def answer(request: web.Request) -> web.Response:
            return web.json_response(ANSWER)

        async with served(answer) as (adapter, url):
            reply = await exchange(adapter, call())
            async with anthropic.AsyncAnthropic(api_key="planted-key", base_url=url, max_retries=0) as client:
                message = await client.messages.create(
                    model="claude-sonnet-5-5", max_tokens=100, messages=[{"role": "user", "content": "Hello"}]
                )
        assert [block.text for block in message.content if block.type == "text"] == [reply.text]
        assert (message.id, message.usage.input_tokens) == (reply.response_id, reply.usage.input_tokens)


def failure(status: int, body: bytes | dict[str, Any], **headers: str) -> ProviderFault:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return AnthropicMessages().read_error(status, named, raw)


def error(kind: str, message: str = "their words", code: str | None = None) -> dict[str, Any]:
    details = {} if code is None else {"details": {"error_code": code}}
    return {"type": "error", "error": {"type": kind, "message": message, **details}, "request_id": "req_1"}


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "body", "meant"),
        [
            (400, error("invalid_request_error"), FaultKind.INVALID_REQUEST),
            (400, error("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"), FaultKind.CONTEXT_WINDOW),
            (400, error("invalid_request_error", "input length and `max_tokens` exceed context limit: 1 + 2 > 2"),
             FaultKind.CONTEXT_WINDOW),
            (400, error("invalid_request_error", "Your credit balance is too low to access the API."), FaultKind.QUOTA),
            (400, error("invalid_request_error", code="organization_on_hold"), FaultKind.AUTH),
            (401, error("authentication_error", "invalid x-api-key"), FaultKind.AUTH),
            (402, error("billing_error"), FaultKind.QUOTA),
            (403, error("permission_error"), FaultKind.AUTH),
            (404, error("not_found_error", "model: claude-nothing"), FaultKind.MODEL_MISSING),
            (413, error("request_too_large"), FaultKind.REQUEST_TOO_LARGE),
            (429, error("rate_limit_error"), FaultKind.RATE_LIMITED),
            (429, error("rate_limit_error", code="contract_spend_limit_reached"), FaultKind.QUOTA),
            (500, error("api_error"), FaultKind.UNAVAILABLE),
            (502, b"<html>Bad gateway</html>", FaultKind.UNAVAILABLE),
            (503, b"", FaultKind.OVERLOADED),
            (504, error("timeout_error"), FaultKind.UNAVAILABLE),
            (529, error("overloaded_error"), FaultKind.OVERLOADED),
            (400, b"prompt is too long", FaultKind.CONTEXT_WINDOW),
            (400, {"error": "prompt is too long"}, FaultKind.CONTEXT_WINDOW),
            (400, {"message": "prompt is too long"}, FaultKind.CONTEXT_WINDOW),
            (400, {"error": {"type": 5, "message": None, "details": "x"}}, FaultKind.INVALID_REQUEST),
            (400, b"\xff\xfe[", FaultKind.INVALID_REQUEST),
            (418, {}, FaultKind.INVALID_REQUEST),
        ],
    )  # fmt: skip
    def test_status_first_then_words(self, status: int, body: bytes | dict[str, Any], meant: FaultKind) -> None:
        fault = failure(status, body)
        assert (fault.kind, fault.status) == (meant, status)
        assert "their words" not in str(fault)

    def test_retry_after(self) -> None:
        assert failure(429, error("rate_limit_error"), retry_after="7").retry_after_seconds == 7.0
        assert failure(400, error("invalid_request_error"), retry_after="7").retry_after_seconds is None

    def test_every_error_type_of_the_sdk_has_a_meaning(self) -> None:
        meant = {
            "invalid_request_error": FaultKind.INVALID_REQUEST,
            "authentication_error": FaultKind.AUTH,
            "billing_error": FaultKind.QUOTA,
            "permission_error": FaultKind.AUTH,
            "not_found_error": FaultKind.MODEL_MISSING,
            "rate_limit_error": FaultKind.RATE_LIMITED,
            "timeout_error": FaultKind.TIMEOUT,
            "overloaded_error": FaultKind.OVERLOADED,
        }
        for kind in get_args(ErrorType):
            fault = failure_in_answer(read_error_words(error(kind)))
            assert fault.kind is meant.get(kind, FaultKind.UNAVAILABLE), kind
        assert set(meant) <= set(get_args(ErrorType))
