"""What a provider answers, as events and as the whole they fold into.

Every adapter speaks in `ReplyEvent`s, whether the provider streamed or not; `ReplyBuilder` is the one place
that folds them, so a streamed answer and a whole one cannot differ.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum
from itertools import groupby
from typing import TypeAlias

from pointsman_server.domain.message import (
    OpaquePart,
    Part,
    ReasoningPart,
    TextPart,
    ToolCallPart,
)

Vector: TypeAlias = "array[float]"
"""Components in single precision (type code "f"), as they travel: a list of Python's own takes eight times as much."""

PartKey = int | str
"""The adapter's own name for a part of the answer; equal keys are pieces of the same part."""


class FinishReason(Enum):
    """Why the model stopped. UNKNOWN is a reason the provider gave that we do not know."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"
    PAUSE = "pause"
    ERROR = "error"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them; None where it did not say or said something impossible.

    `input_tokens` counts all input, cached tokens included; `output_tokens` counts all output, reasoning included.
    The other counts are parts of these two. `billed_*` are set by providers that bill other numbers than they count.
    """

    input_tokens: int | None = None
    cached_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    output_tokens: int | None = None
    reasoning_tokens: int = 0
    billed_input_tokens: int | None = None
    billed_output_tokens: int | None = None
    implausible: bool = False


@dataclass(frozen=True, slots=True)
class Citation:
    """A source the answer leans on. The indices are code points in the answer's whole text, -1 when unknown."""

    url: str = ""
    title: str = ""
    document_id: str = ""
    quoted_text: str = ""
    start_index: int = -1
    end_index: int = -1


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A piece of text."""

    key: PartKey
    text: str
    signature: str = ""


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """A piece of visible reasoning."""

    key: PartKey
    text: str
    signature: str = ""
    redacted: bool = False


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """A piece of a tool call: id and name come once, the arguments in any number of pieces."""

    key: PartKey
    id: str = ""
    name: str = ""
    arguments_json: str = ""
    signature: str = ""


@dataclass(frozen=True, slots=True)
class OpaqueDelta:
    """A whole provider block; it never comes in pieces."""

    key: PartKey
    dialect: str
    kind: str
    json: str


ContentDelta = TextDelta | ReasoningDelta | ToolCallDelta | OpaqueDelta
CONTENT_DELTAS = (TextDelta, ReasoningDelta, ToolCallDelta, OpaqueDelta)
"""The same for isinstance, which is faster with a tuple."""


@dataclass(frozen=True, slots=True)
class CitationFound:
    """A source, at any time of the answer."""

    citation: Citation


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Usage so far; the last one counts."""

    usage: Usage


@dataclass(frozen=True, slots=True)
class Identified:
    """The provider's names for this answer; empty strings say nothing."""

    response_id: str = ""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Finished:
    """The provider's own end of the answer; `raw` is its word for the reason."""

    reason: FinishReason
    raw: str = ""


@dataclass(frozen=True, slots=True)
class Certainty:
    """How sure whoever answers is of the answer, 0..1; the last one counts."""

    value: float


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of all texts of a call, in their order."""

    vectors: tuple[Vector, ...]


ReplyEvent = ContentDelta | CitationFound | UsageReport | Identified | Certainty | Finished | Embedded


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer."""

    parts: tuple[Part, ...]
    finish_reason: FinishReason
    raw_finish_reason: str
    usage: Usage
    citations: tuple[Citation, ...]
    response_id: str
    model: str
    certainty: float | None = None
    """0..1, None where nothing was said of it."""
    vectors: tuple[Vector, ...] = ()
    """Set where vectors were asked for, and nothing else then."""

    @property
    def text(self) -> str:
        """All text parts joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


class _OpenPart:
    """A part that is still growing; pieces are joined once, at the end."""

    __slots__ = ("first", "pieces", "signatures", "tool_id", "tool_name")

    def __init__(self, first: ContentDelta) -> None:
        self.first = first
        self.pieces: list[str] = []
        self.signatures: list[str] = []
        self.tool_id = ""
        self.tool_name = ""

    def add(self, delta: ContentDelta) -> None:
        if isinstance(delta, ToolCallDelta):
            self.tool_id = self.tool_id or delta.id
            self.tool_name = self.tool_name or delta.name
            self.pieces.append(delta.arguments_json)
            self.signatures.append(delta.signature)
        elif isinstance(delta, OpaqueDelta):
            self.pieces.append(delta.json)
        else:
            self.pieces.append(delta.text)
            self.signatures.append(delta.signature)

    def close(self) -> Part:
        body, signature = "".join(self.pieces), "".join(self.signatures)
        match self.first:
            case TextDelta():
                return TextPart(body, signature)
            case ReasoningDelta(redacted=redacted):
                return ReasoningPart(body, signature, redacted)
            case ToolCallDelta():
                return ToolCallPart(self.tool_id, self.tool_name, body, signature)
            case OpaqueDelta(dialect=dialect, kind=kind):
                return OpaquePart(dialect, kind, body)


class ReplyBuilder:
    """Folds events into a `Reply`. Parts are numbered in the order in which their first piece came."""

    __slots__ = (
        "_citations",
        "_index_by_key",
        "_parts",
        "certainty",
        "finished",
        "model",
        "response_id",
        "usage",
        "vectors",
    )

    def __init__(self) -> None:
        self._index_by_key: dict[PartKey, int] = {}
        self._parts: list[_OpenPart] = []
        self._citations: list[Citation] = []
        self.usage = Usage()
        self.finished: Finished | None = None
        self.response_id = ""
        self.model = ""
        self.certainty: float | None = None
        self.vectors: tuple[Vector, ...] = ()

    @property
    def has_content(self) -> bool:
        """Whether any part has begun, or vectors came."""
        return bool(self._parts or self.vectors)

    def index_of(self, key: PartKey) -> int:
        """The position in the final message of the part with this key."""
        return self._index_by_key[key]

    def add(self, event: ReplyEvent) -> None:
        """Takes one event in. A delta whose kind differs from its part's kind is a fault of the adapter."""
        if isinstance(event, CONTENT_DELTAS):
            self._add_delta(event)
        elif isinstance(event, UsageReport):
            self.usage = event.usage
        elif isinstance(event, Finished):
            self.finished = event
        elif isinstance(event, CitationFound):
            if event.citation not in self._citations:
                self._citations.append(event.citation)
        elif isinstance(event, Certainty):
            self.certainty = event.value
        elif isinstance(event, Embedded):
            self.vectors = event.vectors
        else:
            self.response_id = self.response_id or event.response_id
            self.model = self.model or event.model

    def _add_delta(self, delta: ContentDelta) -> None:
        index = self._index_by_key.get(delta.key)
        if index is None:
            index = self._index_by_key[delta.key] = len(self._parts)
            self._parts.append(_OpenPart(delta))
        part = self._parts[index]
        if type(part.first) is not type(delta):
            raise TypeError(f"part {delta.key!r} began as {type(part.first).__name__}")
        part.add(delta)

    def build(self) -> Reply:
        """The whole answer so far; the finish reason is UNKNOWN until the provider gave one."""
        finished = self.finished or Finished(FinishReason.UNKNOWN)
        return Reply(
            parts=tuple(part.close() for part in self._parts),
            finish_reason=finished.reason,
            raw_finish_reason=finished.raw,
            usage=self.usage,
            citations=tuple(self._citations),
            response_id=self.response_id,
            model=self.model,
            certainty=self.certainty,
            vectors=self.vectors,
        )


def fold(events: Iterable[ReplyEvent]) -> Reply:
    """The whole answer that these events make up."""
    builder = ReplyBuilder()
    for event in events:
        builder.add(event)
    return builder.build()


def merge_deltas(events: Iterable[ReplyEvent]) -> list[ReplyEvent]:
    """Joins neighbouring text and reasoning pieces of the same part; the fold of the result is unchanged."""
    merged: list[ReplyEvent] = []
    for run_key, run in groupby(events, _run_key):
        pieces = list(run)
        first = pieces[0]
        if run_key is None or len(pieces) == 1 or not isinstance(first, (TextDelta, ReasoningDelta)):
            merged.extend(pieces)
        else:
            text = "".join(piece.text for piece in pieces if isinstance(piece, (TextDelta, ReasoningDelta)))
            signature = "".join(piece.signature for piece in pieces if isinstance(piece, (TextDelta, ReasoningDelta)))
            merged.append(replace(first, text=text, signature=signature))
    return merged


def _run_key(event: ReplyEvent) -> tuple[type, PartKey] | None:
    return (type(event), event.key) if isinstance(event, (TextDelta, ReasoningDelta)) else None
