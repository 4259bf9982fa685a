"""The upstream's fixed answers, framed for HTTP/1.1 once at import."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

EVENTS_PER_STREAM = 52
"""Server-sent events of one streamed answer, in every dialect."""

NO_TIME = b"@0000000000000000@"
"""Stands in a paced answer's first piece until the upstream knows how long it took; see `payloads.THINKING_MARK`."""

_WORDS = [
    "The",
    "carriers",
    "did",
    "well",
    "this",
    "week,",
    "and",
    "returns",
    "went",
    "down",
    "by",
    "a",
    "tenth;",
    "two",
    "of",
    "them",
    "still",
    "deserve",
    "a",
    "call.",
]
_TEXT = " ".join(_WORDS * 3)
_INPUT_TOKENS, _OUTPUT_TOKENS = 201, 64
_END_CHARS = 24

WHOLE_END = _TEXT[-_END_CHARS:].encode()
"""How the text of a whole answer ends."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One dialect's answers: a whole response, and the pieces of a streamed one (headers with the first event)."""

    whole: bytes
    head: bytes
    events: Sequence[bytes]
    first_content: int
    """Which event holds the first text."""
    stream_end: bytes
    """How the text of a streamed answer ends."""


def _pieces(count: int) -> list[str]:
    """So many pieces of text, the first one with room for the time mark."""
    return [NO_TIME.decode(), *(f" {_WORDS[number % len(_WORDS)]}" for number in range(count - 1))]


def _framed(body: Mapping[str, Any], events: Sequence[bytes], texts: Sequence[str], first_content: int) -> Answer:
    content = json.dumps(body, separators=(",", ":")).encode()
    if len(events) != EVENTS_PER_STREAM:
        raise ValueError(f"a stream has {len(events)} events; the figures for each event count on {EVENTS_PER_STREAM}")
    *chunks, last = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    return Answer(
        whole=b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
        % (len(content), content),
        head=b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n",
        events=[*chunks, last + b"0\r\n\r\n"],
        first_content=first_content,
        stream_end="".join(texts)[-_END_CHARS:].encode(),
    )


def _chat() -> Answer:
    usage = {
        "prompt_tokens": _INPUT_TOKENS,
        "completion_tokens": _OUTPUT_TOKENS,
        "total_tokens": _INPUT_TOKENS + _OUTPUT_TOKENS,
    }
    envelope = {"id": "chatcmpl-bench", "created": 1_750_000_000, "model": "bench"}
    message = {"role": "assistant", "content": _TEXT}
    body = {
        **envelope,
        "object": "chat.completion",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": usage,
    }

    def chunk(delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        data = {**envelope, "object": "chat.completion.chunk", "choices": [choice], **more}
        return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"

    texts = _pieces(EVENTS_PER_STREAM - 4)
    events = [
        chunk({"role": "assistant", "content": ""}),
        *(chunk({"content": piece}) for piece in texts),
        chunk({}, "stop"),
        chunk({}, choices=[], usage=usage),
        b"data: [DONE]\n\n",
    ]
    return _framed(body, events, texts, first_content=1)


def _messages() -> Answer:
    usage = {"input_tokens": _INPUT_TOKENS, "output_tokens": _OUTPUT_TOKENS}
    envelope = {"id": "msg_bench", "type": "message", "role": "assistant", "model": "bench"}
    body = {**envelope, "content": [{"type": "text", "text": _TEXT}], "stop_reason": "end_turn", "usage": usage}

    def event(kind: str, **more: Any) -> bytes:
        data = json.dumps({"type": kind, **more}, separators=(",", ":"))
        return f"event: {kind}\ndata: {data}\n\n".encode()

    start: Mapping[str, Any] = {**envelope, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    texts = _pieces(EVENTS_PER_STREAM - 5)
    deltas = [event("content_block_delta", index=0, delta={"type": "text_delta", "text": piece}) for piece in texts]
    events = [
        event("message_start", message=start),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *deltas,
        event("content_block_stop", index=0),
        event("message_delta", delta={"stop_reason": "end_turn"}, usage=usage),
        event("message_stop"),
    ]
    return _framed(body, events, texts, first_content=2)


CHAT = _chat()
MESSAGES = _messages()
