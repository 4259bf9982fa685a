"""Calls, bodies and streams for the tests of the two OpenAI dialects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from pointsman_server.adapters.providers.dialect import WireDialect
from pointsman_server.adapters.providers.sse import SseEvent, SseReader
from pointsman_server.domain.catalog import Deployment, Dialect, Model, Price, Provider, Secret
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import Message, Part, Role, TextPart
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import Reply, ReplyEvent, fold
from pointsman_server.domain.request import Capability, GenerationConfig, Tier, Tool

CLOSED_SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
OPEN_SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = Tool("weather", "Tells the weather.", CLOSED_SCHEMA)
CLOCK = Tool("clock", "", {})
CHAT_USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
HELLO = Message(Role.USER, (TextPart("Hello"),))


def deployment(base_url: str = "http://127.0.0.1:1/v1", *, reasons: bool = False, **options: Any) -> Deployment:
    capabilities = frozenset({Capability.REASONING}) if reasons else frozenset()
    model = Model("model", Tier.STANDARD, 128_000, 4_000, capabilities, 0.5, Price("test", None, ()))
    provider = Provider("vendor", Dialect.OPENAI_CHAT, base_url, Secret("key-of-ours", "env:KEY"))
    return Deployment("vendor-model", provider, model, "model-1", options=options)


def call_of(
    *messages: Message, place: Deployment | None = None, stream: bool = False, **generation: Any
) -> ProviderCall:
    config = GenerationConfig(**generation)
    return ProviderCall(place or deployment(), messages or (HELLO,), config, 500, stream, 5.0)


def refusal(dialect: WireDialect, call: ProviderCall) -> str:
    """The detail with which the dialect refuses the call as one that it cannot say."""
    with pytest.raises(ProviderFault) as caught:
        dialect.shape(call)
    assert caught.value.kind is FaultKind.INVALID_REQUEST
    return caught.value.detail


def turn(*parts: Part) -> Message:
    return Message(Role.ASSISTANT, parts)


def sse(*payloads: dict[str, Any], done: bool = True, named: bool = False) -> bytes:
    """A stream of these events, `[DONE]` behind them unless it is not wanted."""
    names = [f"event: {payload['type']}\n" if named else "" for payload in payloads]
    lines = [f"{name}data: {json.dumps(payload)}\n\n" for name, payload in zip(names, payloads, strict=True)]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def events_of(body: bytes) -> list[SseEvent]:
    source = SseReader()
    return [*source.feed(body), *source.flush()]


def stream_events(dialect: WireDialect, body: bytes) -> list[ReplyEvent]:
    return read_events(dialect, events_of(body))


def read_events(dialect: WireDialect, events: Sequence[SseEvent]) -> list[ReplyEvent]:
    reader = dialect.open_stream()
    told = [reply_event for event in events for reply_event in reader.feed(event)]
    return [*told, *reader.end()]


def read_stream(dialect: WireDialect, body: bytes) -> Reply:
    return fold(stream_events(dialect, body))


def pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def chunk(finish_reason: str | None = None, *, index: int = 0, **delta: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason}
    return {"id": "a1", "object": "chat.completion.chunk", "model": "m1", "choices": [choice]}


def usage_chunk(**usage: Any) -> dict[str, Any]:
    return {"id": "a1", "object": "chat.completion.chunk", "model": "m1", "choices": [], "usage": usage or CHAT_USAGE}
