"""Calls of Cohere's chat API and its answers, whole and in pieces."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from pointsman_server.adapters.providers.cohere_chat import CohereChat
from pointsman_server.adapters.providers.sse import SseReader
from pointsman_server.domain.catalog import Deployment, Dialect, Model, Price, Provider, Secret
from pointsman_server.domain.message import (
    Message,
    Role,
    TextPart,
)
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import FinishReason, Reply, ReplyBuilder, fold
from pointsman_server.domain.request import (
    GenerationConfig,
    Tier,
)


def deployment(base_url: str = "http://127.0.0.1:1", **changes: Any) -> Deployment:
    """A deployment of Cohere; nobody is called unless a URL is given."""
    model = Model("command", Tier.STANDARD, 128_000, 4_000, frozenset(), 0.5, Price("test", None, ()))
    provider = Provider("cohere", Dialect.COHERE_CHAT, base_url, Secret("key-of-ours", "env:COHERE"))
    return replace(Deployment("cohere-command", provider, model, "command-a-03-2025"), **changes)


def call_of(
    *messages: Message, place: Deployment | None = None, stream: bool = False, limit: int = 500, **generation: Any
) -> ProviderCall:
    """A call with these messages, or with a greeting."""
    talk = messages or (Message(Role.USER, (TextPart("Hello"),)),)
    return ProviderCall(place or deployment(), talk, GenerationConfig(**generation), limit, stream, 5.0)


def whole(**changes: Any) -> dict[str, Any]:
    """A whole answer, with these changes."""
    answer: dict[str, Any] = {
        "id": "a1",
        "finish_reason": "COMPLETE",
        "message": {"role": "assistant", "content": [{"type": "text", "text": "Hello"}]},
        "usage": {
            "billed_units": {"input_tokens": 5, "output_tokens": 2},
            "tokens": {"input_tokens": 70, "output_tokens": 3},
        },
    }
    return {**answer, **changes}


def read(body: dict[str, Any]) -> Reply:
    """Our reading of a whole answer."""
    return fold(CohereChat().read_whole(body))


def sse(*payloads: Any) -> bytes:
    """A stream of these events, as bytes."""
    lines = (f"event: {payload['type']}\ndata: {json.dumps(payload)}\n\n" for payload in payloads)
    return "".join(lines).encode() + b"data: [DONE]\n\n"


def read_stream(body: bytes) -> Reply:
    """Our reading of a stream."""
    reader, source, builder = CohereChat().open_stream(), SseReader(), ReplyBuilder()
    for event in [*source.feed(body), *source.flush()]:
        for reply_event in reader.feed(event):
            builder.add(reply_event)
    for reply_event in reader.end():
        builder.add(reply_event)
    return builder.build()


def delta(kind: str, index: int, **message: Any) -> dict[str, Any]:
    """One event of a stream."""
    return {"type": kind, "index": index, "delta": {"message": message}}


def message_end(**changes: Any) -> dict[str, Any]:
    """The last event of a stream, as in a whole answer with these changes."""
    answer = whole(**changes)
    return {"type": "message-end", "delta": {"finish_reason": answer["finish_reason"], "usage": answer["usage"]}}


START = {
    "type": "message-start",
    "id": "a1",
    "delta": {"message": {"role": "assistant", "content": [], "citations": []}},
}
HELLO = (
    START,
    delta("content-start", 0, content={"type": "text", "text": ""}),
    delta("content-delta", 0, content={"text": "Hel"}),
    delta("content-delta", 0, content={"text": "lo"}),
    {"type": "content-end", "index": 0},
    message_end(),
)


def stream_of(answer: dict[str, Any], pieces: int = 3) -> bytes:
    """The stream that says the same as this whole answer, in pieces of so many characters."""
    message = answer["message"]
    payloads: list[dict[str, Any]] = [START]
    for piece in cut(message.get("tool_plan", ""), pieces):
        payloads.append({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": piece}}})
    for index, block in enumerate(message.get("content", [])):
        payloads += block_events(index, block, pieces)
    for index, call in enumerate(message.get("tool_calls", [])):
        payloads += call_events(index, call, pieces)
    for index, citation in enumerate(message.get("citations", [])):
        payloads.append(delta("citation-start", index, citations=citation))
        payloads.append({"type": "citation-end", "index": index})
    end = {"finish_reason": answer.get("finish_reason"), "usage": answer.get("usage")}
    return sse(*payloads, {"type": "message-end", "delta": end})


def block_events(index: int, block: dict[str, Any], pieces: int) -> list[dict[str, Any]]:
    """The events of one block of content, in pieces of so many characters."""
    field = next(name for name in block if name != "type")
    events = [delta("content-start", index, content={"type": block["type"], field: ""})]
    events += [delta("content-delta", index, content={field: piece}) for piece in cut(block[field], pieces)]
    return [*events, {"type": "content-end", "index": index}]


def call_events(index: int, call: dict[str, Any], pieces: int) -> list[dict[str, Any]]:
    """The events of one tool call, likewise."""
    function = call["function"]
    events = [delta("tool-call-start", index, tool_calls={**call, "function": {**function, "arguments": ""}})]
    for piece in cut(function["arguments"], pieces):
        events.append(delta("tool-call-delta", index, tool_calls={"function": {"arguments": piece}}))
    return [*events, {"type": "tool-call-end", "index": index}]


def cut(text: str, size: int) -> list[str]:
    """The text in pieces of this size."""
    return [text[start : start + size] for start in range(0, len(text), size)]


CITED = {
    "start": 29,
    "end": 36,
    "text": "4:20 PM",
    "type": "TEXT_CONTENT",
    "sources": [
        {"type": "tool", "id": "clock:0", "tool_output": {"content": "4:20 PM"}},
        {"type": "document", "id": "d1", "document": {"id": "d1", "url": "https://example.org", "title": "Time"}},
    ],
}


REASONS = [
    ("COMPLETE", FinishReason.STOP),
    ("STOP_SEQUENCE", FinishReason.STOP),
    ("MAX_TOKENS", FinishReason.LENGTH),
    ("ERROR_LIMIT", FinishReason.LENGTH),
    ("TOOL_CALL", FinishReason.TOOL_CALLS),
    ("ERROR_TOXIC", FinishReason.CONTENT_FILTER),
    ("ERROR", FinishReason.ERROR),
    ("TIMEOUT", FinishReason.ERROR),
    ("USER_CANCEL", FinishReason.ERROR),
    ("SOMETHING_NEW", FinishReason.UNKNOWN),
    ("", FinishReason.UNKNOWN),
    (None, FinishReason.UNKNOWN),
]


words = st.text(max_size=12)
blocks = st.one_of(
    st.builds(lambda text: {"type": "text", "text": text}, words),
    st.builds(lambda text: {"type": "thinking", "thinking": text}, words),
    st.builds(lambda text: {"type": "chart", "points": text}, words),
)
citations = st.fixed_dictionaries(
    {"start": st.integers(0, 9), "end": st.integers(0, 9), "text": words},
    optional={
        "content_index": st.integers(0, 3),
        "type": st.sampled_from(["TEXT_CONTENT", "PLAN", "THINKING_CONTENT"]),
        "sources": st.lists(st.builds(lambda id_: {"type": "tool", "id": id_}, words), max_size=2),
    },
)
