"""Cohere's streams as ours, from bytes and from a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.cohere_calls import (
    CITED,
    HELLO,
    REASONS,
    START,
    block_events,
    blocks,
    call_of,
    citations,
    delta,
    deployment,
    message_end,
    read,
    read_stream,
    sse,
    stream_of,
    whole,
    words,
)
from pointsman_server.adapters.providers.cohere_chat import CohereChat
from pointsman_server.adapters.providers.dialect import DialectAdapter
from pointsman_server.adapters.providers.endpoint import BearerEndpoint
from pointsman_server.adapters.providers.sse import SseEvent
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.domain.catalog import Timeouts
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import (
    OpaquePart,
    ReasoningPart,
    TextPart,
    ToolCallPart,
)
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import Reply, ReplyBuilder


class TestStream:
    def test_text(self) -> None:
        assert read_stream(sse(*HELLO)) == read(whole())

    def test_text_in_the_start_of_a_block_counts(self) -> None:
        begun = delta("content-start", 0, content={"type": "text", "text": "Oh, "})
        assert read_stream(sse(START, begun, *HELLO[2:])).text == "Oh, Hello"

    def test_pieces_without_their_start(self) -> None:
        assert read_stream(sse(*HELLO[2:])).text == "Hello"
        call = {"id": "c1", "function": {"name": "clock", "arguments": "{}"}}
        reply = read_stream(sse(delta("tool-call-delta", 0, tool_calls=call), message_end()))
        assert reply.parts == (ToolCallPart("c1", "clock", "{}"),)

    def test_index_that_comes_again_is_another_part(self) -> None:
        def thinking(text: str) -> Sequence[dict[str, Any]]:
            return block_events(0, {"type": "thinking", "thinking": text}, 9)

        text = block_events(0, {"type": "text", "text": "Yes."}, 9)
        assert read_stream(sse(START, *thinking("Hm."), *thinking("Ah."), *text, message_end())).parts == (
            ReasoningPart("Hm."),
            ReasoningPart("Ah."),
            TextPart("Yes."),
        )

    def test_thinking_and_text_under_one_index_are_two_parts(self) -> None:
        pieces = [delta("content-delta", 0, content={"thinking": "Hm."}), *HELLO[2:4]]
        assert read_stream(sse(START, *pieces, message_end())).parts == (ReasoningPart("Hm."), TextPart("Hello"))

    @pytest.mark.parametrize("content", [None, {}, [], {"type": None}, {"type": "text", "text": None}])
    def test_block_of_nothing_is_no_part(self, content: Any) -> None:
        start = delta("content-start", 0, content=content)
        assert read_stream(sse(START, start, {"type": "content-end", "index": 0}, message_end())).parts == ()

    def test_unknown_block_is_gathered_from_its_pieces(self) -> None:
        pieces = [
            delta("content-start", 0, content={"type": "chart", "points": ""}),
            delta("content-delta", 0, content={"type": "chart", "points": "1,"}),
            delta("content-delta", 0, content={"points": "2", "scale": 3}),
        ]
        kept = OpaquePart("cohere_chat", "chart", '{"type":"chart","points":"1,2","scale":3}')
        for rest in ([{"type": "content-end", "index": 0}, message_end()], [message_end()]):
            assert read_stream(sse(START, *pieces, *rest)).parts == (kept,)

    def test_events_after_the_end_are_ignored(self) -> None:
        late = delta("content-delta", 0, content={"text": "late"})
        assert read_stream(sse(*HELLO, late, message_end(finish_reason="ERROR"))) == read(whole())
        assert read_stream(sse(*HELLO) + b"data: {broken\n\n") == read(whole())

    def test_unknown_and_debug_events_are_ignored(self) -> None:
        odd = [{"type": "debug", "prompt": "x"}, {"type": "heartbeat"}, {"type": "citation-end", "index": 0}]
        assert read_stream(sse(START, *odd, *HELLO[1:])) == read(whole())

    @pytest.mark.parametrize("payload", ["{}", '{"type": null}', '{"type": ["x"]}', '{"delta": 3}', '{"index": 1}'])
    def test_event_without_a_type_is_ignored(self, payload: str) -> None:
        assert CohereChat().open_stream().feed(SseEvent("", payload.encode())) == ()

    @pytest.mark.parametrize(
        "kind", ["message-start", "content-start", "content-delta", "tool-plan-delta", "citation-start"]
    )
    @pytest.mark.parametrize(
        "rest", [{}, {"delta": None}, {"delta": {"message": []}}, {"delta": {"message": {"content": 3}}}]
    )
    def test_hollow_events_do_no_harm(self, kind: str, rest: dict[str, Any]) -> None:
        reader = CohereChat().open_stream()
        reader.feed(SseEvent(kind, json.dumps({"type": kind, **rest}).encode()))

    def test_done_alone_is_no_end(self) -> None:
        with pytest.raises(ProviderFault) as caught:
            read_stream(sse(*HELLO[:-1]))
        assert caught.value.kind is FaultKind.STREAM_CUT

    @pytest.mark.parametrize("data", [b"{", b"not json", b"[]", b"null", b'"text"', b"\xff"])
    def test_event_that_is_not_an_object_is_malformed(self, data: bytes) -> None:
        with pytest.raises(ProviderFault) as caught:
            CohereChat().open_stream().feed(SseEvent("", data))
        assert caught.value.kind is FaultKind.MALFORMED_REPLY

    @pytest.mark.parametrize(
        ("payload", "kind"),
        [
            ({"message": "too many tokens"}, FaultKind.CONTEXT_WINDOW),
            ({"type": "error", "error": {"type": "overloaded_error"}}, FaultKind.OVERLOADED),
            ({"error": "internal"}, FaultKind.UNAVAILABLE),
            ({"type": "message-end", "delta": {"error": "internal"}}, FaultKind.UNAVAILABLE),
            (
                {"type": "message-end", "delta": {"error": "internal", "finish_reason": "ERROR"}},
                FaultKind.UNAVAILABLE,
            ),
        ],
    )
    def test_error_inside_the_stream(self, payload: dict[str, Any], kind: FaultKind) -> None:
        with pytest.raises(ProviderFault) as caught:
            CohereChat().open_stream().feed(SseEvent("", json.dumps(payload).encode()))
        assert (caught.value.kind, caught.value.status) == (kind, 200)

    def test_cut_at_every_byte_never_passes_as_whole(self) -> None:
        body = sse(*HELLO)
        complete = body.index(b"\n\ndata: [DONE]")
        for length in range(complete):
            with pytest.raises(ProviderFault) as caught:
                read_stream(body[:length])
            assert caught.value.kind in (FaultKind.STREAM_CUT, FaultKind.MALFORMED_REPLY)
        for length in range(complete, len(body) + 1):
            assert read_stream(body[:length]) == read(whole())

    def test_cut_at_every_event_boundary(self) -> None:
        call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": '{"zone": "CET"}'}}
        message = {"tool_plan": "I will look.", "tool_calls": [call], "citations": [CITED]}
        events = stream_of(whole(message=message)).split(b"\n\n")
        end = next(place for place, event in enumerate(events) if b"message-end" in event)
        for count in range(end):
            with pytest.raises(ProviderFault) as caught:
                read_stream(b"\n\n".join(events[:count]) + b"\n\n")
            assert caught.value.kind is FaultKind.STREAM_CUT


calls = st.builds(
    lambda id_, name, arguments: {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}},
    words, words, words,
)  # fmt: skip
counts = st.one_of(st.none(), st.integers(-5, 10**9), st.floats(0, 1e6), st.sampled_from(["7", "x"]))
usages = st.fixed_dictionaries(
    {},
    optional={
        "tokens": st.dictionaries(st.sampled_from(["input_tokens", "output_tokens", "reasoning_tokens"]), counts),
        "billed_units": st.dictionaries(st.sampled_from(["input_tokens", "output_tokens"]), counts),
        "cached_tokens": counts,
    },
)
answers = st.fixed_dictionaries(
    {
        "message": st.fixed_dictionaries(
            {},
            optional={
                "tool_plan": words,
                "content": st.lists(blocks, max_size=4),
                "tool_calls": st.lists(calls, max_size=3),
                "citations": st.lists(citations, max_size=3),
            },
        ),
        "id": st.just("a1"),
    },
    optional={"finish_reason": st.sampled_from([said for said, _ in REASONS]), "usage": usages},
)


@given(answers, st.integers(1, 5))
@settings(max_examples=150, deadline=None)
def test_fold_of_the_stream_is_the_whole_answer(answer: dict[str, Any], pieces: int) -> None:
    assert read_stream(stream_of(answer, pieces)) == read(answer)


class Upstream:
    """A local server that answers every call with one handler and remembers what it was asked."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.closed = asyncio.Event()

    async def keep(self, request: web.Request) -> None:
        self.bodies.append(await request.json())
        self.headers.append(dict(request.headers))

    @asynccontextmanager
    async def serve(self, answer: Any) -> AsyncIterator[str]:
        async def handle(request: web.Request) -> web.StreamResponse:
            await self.keep(request)
            response: web.StreamResponse = await answer(self, request)
            return response

        app = web.Application()
        app.router.add_post("/v2/chat", handle)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@asynccontextmanager
async def adapter_for(
    upstream: Upstream, answer: Any, **changes: Any
) -> AsyncIterator[tuple[DialectAdapter, ProviderCall]]:
    wire = HttpWire()
    async with upstream.serve(answer) as base_url:
        place = deployment(base_url, timeouts=Timeouts(connect_seconds=1.0))
        try:
            yield DialectAdapter(CohereChat(), BearerEndpoint(place.provider), wire), call_of(place=place, **changes)
        finally:
            await wire.close()


async def converse(adapter: DialectAdapter, call: ProviderCall) -> Reply:
    builder = ReplyBuilder()
    async for batch in adapter.exchange(call):
        for event in batch:
            builder.add(event)
    return builder.build()


async def stream_hello(upstream: Upstream, request: web.Request, *, until: int, then: str) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    await response.write(sse(*HELLO)[:until])
    if then == "cut":
        assert request.transport is not None
        request.transport.abort()
    if then == "wait":
        try:
            await asyncio.sleep(30)
        finally:
            upstream.closed.set()
    return response


class TestThroughTheWire:
    async def test_whole_answer(self) -> None:
        async def answer(upstream: Upstream, request: web.Request) -> web.StreamResponse:
            return web.json_response(whole())

        upstream = Upstream()
        async with adapter_for(upstream, answer) as (adapter, call):
            assert await converse(adapter, call) == read(whole())
        assert upstream.bodies == [CohereChat().shape(call).body]
        assert upstream.headers[0]["Authorization"] == "Bearer key-of-ours"

    async def test_stream(self) -> None:
        async def answer(upstream: Upstream, request: web.Request) -> web.StreamResponse:
            return await stream_hello(upstream, request, until=10_000, then="end")

        async with adapter_for(Upstream(), answer, stream=True) as (adapter, call):
            assert await converse(adapter, call) == read(whole())

    async def test_error(self) -> None:
        async def answer(upstream: Upstream, request: web.Request) -> web.StreamResponse:
            return web.json_response({"message": "slow down"}, status=429, headers={"Retry-After": "7"})

        async with adapter_for(Upstream(), answer) as (adapter, call):
            with pytest.raises(ProviderFault) as caught:
                await converse(adapter, call)
        fault = caught.value
        assert (fault.kind, fault.status, fault.retry_after_seconds) == (FaultKind.RATE_LIMITED, 429, 7.0)

    @pytest.mark.parametrize("then", ["cut", "end"])
    async def test_body_that_ends_early(self, then: str) -> None:
        async def answer(upstream: Upstream, request: web.Request) -> web.StreamResponse:
            return await stream_hello(upstream, request, until=300, then=then)

        async with adapter_for(Upstream(), answer, stream=True) as (adapter, call):
            with pytest.raises(ProviderFault) as caught:
                await converse(adapter, call)
        assert caught.value.kind in (FaultKind.STREAM_CUT, FaultKind.MALFORMED_REPLY)

    async def test_closing_the_generator_closes_the_connection(self) -> None:
        async def answer(upstream: Upstream, request: web.Request) -> web.StreamResponse:
            return await stream_hello(upstream, request, until=300, then="wait")

        upstream = Upstream()
        async with adapter_for(upstream, answer, stream=True) as (adapter, call):
            events = adapter.exchange(call)
            await anext(events)
            await events.aclose()
            await asyncio.wait_for(upstream.closed.wait(), 0.5)
