"""What every dialect of the simulator can do, and the words they share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple, Protocol

import orjson

from pointsman_server.simulator.answer import Answer
from pointsman_server.simulator.ask import Ask
from pointsman_server.simulator.behaviour import Dialect


class Frame(NamedTuple):
    """A piece of a stream: one event with its line ends. `tokens` is 0 for events that carry no content."""

    data: bytes
    tokens: int = 0


class Failure(Enum):
    """What an error says, whatever its status."""

    INVALID = "invalid"
    CONTEXT = "context"
    KEY = "key"
    FORBIDDEN = "forbidden"
    MODEL = "model"
    TOO_LARGE = "too_large"
    RATE = "rate"
    QUOTA = "quota"
    SERVER = "server"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    OVERLOADED = "overloaded"


@dataclass(frozen=True, slots=True)
class Envelope:
    """What makes one response differ from the next: 32 hexadecimal digits, and Unix seconds."""

    key: str
    created: int


@dataclass(frozen=True, slots=True)
class ErrorWords:
    """Words in place of a dialect's own for a failure, where the request itself was at fault."""

    message: str
    param: str | None = None
    code: str | None = None


class WireDialect(Protocol):
    """A provider's wire language, spoken from the provider's side. Holds no state."""

    dialect: Dialect
    json_type: str
    """Content type of whole answers and errors."""
    stream_type: str
    line_end: bytes
    done: bytes
    """The event after the last that says something, b"" where the dialect has none."""
    late_event: bytes
    """A content event that must be ignored because it comes after the end."""

    def read(self, body: Mapping[str, Any], model: str, stream: bool | None) -> Ask:
        """The request. `model` and `stream` come from the path where the dialect puts them there ("" and None if not).

        Raises `RejectedError` where the provider would refuse.
        """
        ...

    def whole(self, answer: Answer, envelope: Envelope) -> bytes:
        """The answer as one JSON body."""
        ...

    def stream(self, answer: Answer, envelope: Envelope) -> list[Frame]:
        """The answer as events, end marker included."""
        ...

    def headers(self, envelope: Envelope) -> dict[str, str]:
        """Headers of every response, errors included."""
        ...

    def error(
        self, status: int, failure: Failure, model: str, envelope: Envelope, words: ErrorWords | None = None
    ) -> bytes:
        """An error body."""
        ...

    def error_headers(self, failure: Failure, retry_after: str) -> dict[str, str]:
        """Headers that only errors have. `retry_after` in whole seconds, "" for no hint."""
        ...

    def stream_error(self, envelope: Envelope, *, first: bool) -> bytes:
        """The event that reports an overload inside a stream that answered 200."""
        ...

    def ping(self) -> bytes:
        """An event that keeps the connection alive and says nothing."""
        ...


def sse(data: Any, event: str = "") -> bytes:
    """An event with LF line ends and compact JSON."""
    line = b"data: " + orjson.dumps(data) + b"\n\n"
    return b"event: " + event.encode() + b"\n" + line if event else line


def escape_markup(body: bytes, characters: str) -> bytes:
    """JSON with these characters, which only occur inside texts, written as escapes: some providers do so."""
    for character in characters:
        body = body.replace(character.encode(), b"\\u%04x" % ord(character))
    return body
