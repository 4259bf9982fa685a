"""What a fake upstream sends for one request, byte by byte: values and the words of the OpenAI chat dialect."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

UPSTREAM_WORDS = "upstream-words-91c4"
"""Part of every error that an upstream tells; none of it may reach a caller of pointsman."""

MODEL = "wall-1"

JSON_TYPE = "application/json"
STREAM_TYPE = "text/event-stream"
DONE = b"data: [DONE]\n\n"
PING = b": ping\n\n"


class Framing(Enum):
    """How the end of the body is marked."""

    LENGTH = "length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until_close"


class Ending(Enum):
    """What follows the last piece."""

    PROPER = "proper"
    """The end that the framing prescribes."""
    CLOSE = "close"
    """The connection is closed, whatever was promised."""
    RESET = "reset"
    """The connection is reset."""
    STALL = "stall"
    """Silence for as long as the other side stays."""
    PINGS = "pings"
    """Pings for as long as the other side stays."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes to be sent after a pause; `characters` is how much of the answer's text they carry."""

    data: bytes
    pause_seconds: float = 0.0
    characters: int = 0


@dataclass(frozen=True, slots=True)
class Play:
    """One answer. `status` 0 sends nothing before the ending; `wait_seconds` is the time before the headers.

    `announced_bytes` overrides the true length under `Framing.LENGTH`.
    """

    name: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: Sequence[Piece] = ()
    framing: Framing = Framing.LENGTH
    ending: Ending = Ending.PROPER
    wait_seconds: float = 0.0
    announced_bytes: int | None = None
    ping_seconds: float = 0.1

    @property
    def body(self) -> bytes:
        """All pieces."""
        return b"".join(piece.data for piece in self.pieces)

    def late(self, seconds: float) -> Play:
        """The same, so much later."""
        return replace(self, wait_seconds=self.wait_seconds + seconds)

    def paced(self, seconds: float) -> Play:
        """The same with so much time between pieces that carry text."""
        pieces = [replace(piece, pause_seconds=seconds if piece.characters else 0.0) for piece in self.pieces]
        return replace(self, pieces=tuple(pieces))

    def spread(self, seconds: float) -> Play:
        """The same, its pieces spread over so much time."""
        return self.paced(seconds / max(1, sum(1 for piece in self.pieces if piece.characters)))


def silence() -> Play:
    """The request is taken, and nothing ever comes."""
    return Play("silence", status=0, ending=Ending.STALL)


def reset() -> Play:
    """The connection is reset as soon as the request was read."""
    return Play("reset", status=0, ending=Ending.RESET)


def hang_up() -> Play:
    """The connection is closed as soon as the request was read."""
    return Play("hang up", status=0, ending=Ending.CLOSE)


def body_play(name: str, body: bytes, content_type: str = JSON_TYPE, status: int = 200, **headers: str) -> Play:
    """A whole body."""
    named = {key.replace("_", "-"): value for key, value in headers.items()}
    return Play(name, status, {"content-type": content_type, **named}, (Piece(body),))


def json_play(name: str, content: object, status: int = 200, **headers: str) -> Play:
    """A whole JSON body."""
    return body_play(name, json.dumps(content).encode(), JSON_TYPE, status, **headers)


def error_play(status: int, code: str = "", words: str = "", **headers: str) -> Play:
    """An error in OpenAI's shape."""
    error = {"message": f"{words} {UPSTREAM_WORDS}".strip(), "type": code or "server_error", "code": code or None}
    return json_play(f"{status} {code}".strip(), {"error": error}, status, **headers)


def usage_of(text: str) -> dict[str, int]:
    """Plausible counts."""
    output = max(1, len(text) // 4)
    return {"prompt_tokens": 20, "completion_tokens": output, "total_tokens": 20 + output}


def answer_body(text: str | None, finish: str = "stop", **changes: Any) -> dict[str, Any]:
    """A whole answer as OpenAI's dialect has it."""
    message = {"role": "assistant", "content": text}
    return {
        "id": "wall",
        "object": "chat.completion",
        "created": 1_750_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage_of(text or ""),
        **changes,
    }


def event(data: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def chunk(delta: Mapping[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk of a stream."""
    choice = {"index": 0, "delta": dict(delta), "finish_reason": finish}
    return {"id": "wall", "object": "chat.completion.chunk", "model": MODEL, "choices": [choice], **more}


def opening() -> Piece:
    """The chunk before the text, as the vendor sends it."""
    return Piece(event(chunk({"role": "assistant", "content": ""})))


def text_pieces(texts: Iterable[str]) -> list[Piece]:
    """Chunks of text."""
    return [Piece(event(chunk({"content": text})), characters=len(text)) for text in texts]


def closing(text: str, finish: str = "stop", *, usage: bool = True) -> list[Piece]:
    """The end of a sound stream."""
    pieces = [Piece(event(chunk({}, finish)))]
    if usage:
        pieces.append(Piece(event({**chunk({}), "choices": [], "usage": usage_of(text)})))
    return [*pieces, Piece(DONE)]


def stream_play(name: str, pieces: Iterable[Piece], ending: Ending = Ending.PROPER) -> Play:
    """A stream of these pieces."""
    return Play(name, 200, {"content-type": STREAM_TYPE}, tuple(pieces), Framing.CHUNKED, ending)


def sound(text: str, texts: Sequence[str] | None, name: str = "sound") -> Play:
    """A sound answer: streamed in these texts, whole when there are none."""
    if texts is None:
        return json_play(name, answer_body(text))
    return stream_play(name, [opening(), *text_pieces(texts), *closing(text)])


def cut(play: Play, after_characters: int, ending: Ending, name: str = "") -> Play:
    """The stream broken off after so many characters of text, at the end of a chunk."""
    kept: list[Piece] = []
    sent = 0
    for piece in play.pieces:
        if sent >= after_characters and (sent or piece.characters):
            break
        kept.append(piece)
        sent += piece.characters
    return replace(play, name=name or f"cut: {ending.value}", pieces=tuple(kept), ending=ending)
