"""A streamed answer, however it is cut, folds to what the whole one says."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman_server.adapters.providers.anthropic_reading import MessageStreamReader, read_whole_answer
from pointsman_server.adapters.providers.sse import SseEvent, SseReader
from pointsman_server.domain.faults import ProviderFault
from pointsman_server.domain.reply import ReplyBuilder, fold

Json = dict[str, Any]

WORDS = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
OBJECTS = st.dictionaries(WORDS, JSON, max_size=3)
CITATIONS = st.fixed_dictionaries({"type": st.just("web_search_result_location"), "url": WORDS, "cited_text": WORDS})
BLOCKS = st.one_of(
    st.fixed_dictionaries({"type": st.just("text"), "text": WORDS, "citations": st.lists(CITATIONS, max_size=2)}),
    st.fixed_dictionaries({"type": st.just("thinking"), "thinking": WORDS, "signature": WORDS}),
    st.fixed_dictionaries({"type": st.just("redacted_thinking"), "data": WORDS}),
    st.fixed_dictionaries({"type": st.just("tool_use"), "id": WORDS, "name": WORDS, "input": OBJECTS}),
    st.fixed_dictionaries({"type": st.just("server_tool_use"), "id": WORDS, "name": WORDS, "input": OBJECTS}),
    st.fixed_dictionaries({"type": st.just("web_search_tool_result"), "content": JSON}),
)
COUNTS = st.none() | st.integers(-5, 10**9)
USAGES = st.fixed_dictionaries({"input_tokens": COUNTS, "cache_read_input_tokens": COUNTS, "output_tokens": COUNTS})
FIRST_USAGE = {"input_tokens": 1}
REASONS = st.sampled_from(["end_turn", "tool_use", "max_tokens", "pause_turn", "refusal", "something_new"])


def streamed(message: Json, pieces: int) -> bytes:
    """The message as the vendor would stream it, every string in so many pieces."""
    events: list[Json] = [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None, "usage": FIRST_USAGE}}
    ]
    for index, block in enumerate(message["content"]):
        bare, deltas = unfold(block, pieces)
        events.append({"type": "content_block_start", "index": index, "content_block": bare})
        events += [{"type": "content_block_delta", "index": index, "delta": piece} for piece in deltas]
        events += [{"type": "ping"}, {"type": "content_block_stop", "index": index}]
    delta = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events += [{"type": "message_delta", "delta": delta, "usage": message["usage"]}, {"type": "message_stop"}]
    return b"".join(
        f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode() for event in events
    )


def unfold(block: Json, pieces: int) -> tuple[Json, list[Json]]:
    match block["type"]:
        case "text":
            deltas = [{"type": "text_delta", "text": piece} for piece in split(block["text"], pieces)]
            cited = [{"type": "citations_delta", "citation": citation} for citation in block["citations"]]
            return {"type": "text", "text": ""}, [*cited, *deltas]
        case "thinking":
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in split(block["thinking"], pieces)]
            signed = {"type": "signature_delta", "signature": block["signature"]}
            return {"type": "thinking", "thinking": "", "signature": ""}, [*deltas, signed]
        case "tool_use" | "server_tool_use":
            arguments = json.dumps(block["input"], separators=(",", ":"), ensure_ascii=False)
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in split(arguments, pieces)]
            return {**block, "input": {}}, deltas
        case _:
            return block, []


def split(words: str, pieces: int) -> list[str]:
    size = max(1, len(words) // pieces)
    return [words[place : place + size] for place in range(0, len(words), size)]


@settings(max_examples=150, deadline=None)
@given(st.lists(BLOCKS, max_size=5), USAGES, REASONS, st.integers(1, 4), st.integers(1, 40))
def test_a_stream_folds_to_the_whole(blocks: list[Json], usage: Json, reason: str, pieces: int, cut: int) -> None:
    message = {"id": "msg_1", "model": "claude", "content": blocks, "stop_reason": reason, "usage": usage}
    stream = streamed(message, pieces)
    sse, reader, builder = SseReader(), MessageStreamReader(), ReplyBuilder()
    for place in range(0, len(stream), cut):
        for event in sse.feed(stream[place : place + cut]):
            for said in reader.feed(event):
                builder.add(said)
    assert not reader.end()
    expected = {**message, "usage": FIRST_USAGE | {name: count for name, count in usage.items() if count is not None}}
    assert builder.build() == fold(read_whole_answer(expected))


ODD = JSON | st.sampled_from(["text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "text_delta"])
ODD_OBJECTS = st.dictionaries(
    st.sampled_from(["type", "text", "citations", "input", "partial_json", "usage", "stop_reason", "id", "content"]),
    ODD,
)
ODD_EVENTS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"]
        )
        | JSON,
        "index": st.integers(0, 2) | JSON,
    },
    optional={name: ODD_OBJECTS | JSON for name in ("message", "content_block", "delta", "usage", "error")},
)


@settings(max_examples=80, deadline=None)
@given(st.lists(ODD_EVENTS, max_size=6))
def test_whatever_comes_is_an_answer_or_a_fault(events: list[Json]) -> None:
    reader, builder = MessageStreamReader(), ReplyBuilder()
    with suppress(ProviderFault):
        for event in [*events, {"type": "message_stop"}]:
            for said in reader.feed(SseEvent("", json.dumps(event).encode())):
                builder.add(said)
        assert builder.finished is not None
        builder.build()
    content = [event.get("content_block") for event in events]
    with suppress(ProviderFault):
        fold(read_whole_answer({"content": content, "usage": events, "stop_reason": events}))
