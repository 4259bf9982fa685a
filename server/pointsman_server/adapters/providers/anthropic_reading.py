"""Reads answers of Anthropic's Messages API. A whole answer is read as a stream whose blocks open complete."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import orjson

from pointsman_server.adapters.providers.anthropic_turns import DIALECT_NAME, read_arguments
from pointsman_server.adapters.providers.failures import ErrorWords, failure_in_answer
from pointsman_server.adapters.providers.json_reading import CountReader, as_list, as_object, as_text, read_object
from pointsman_server.adapters.providers.sse import SseEvent
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.reply import (
    Citation,
    CitationFound,
    Finished,
    FinishReason,
    Identified,
    OpaqueDelta,
    ReasoningDelta,
    ReplyEvent,
    TextDelta,
    ToolCallDelta,
    Usage,
    UsageReport,
)

FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "tool_use": FinishReason.TOOL_CALLS,
    "max_tokens": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "pause_turn": FinishReason.PAUSE,
    "compaction": FinishReason.PAUSE,
    "refusal": FinishReason.REFUSAL,
}


def read_whole_answer(body: Mapping[str, Any]) -> Sequence[ReplyEvent]:
    """The events of a whole answer; the fault it means when it is an error object."""
    if "error" in body:
        raise failure_in_answer(read_error_words(body))
    content = body.get("content")
    if not isinstance(content, list):
        raise ProviderFault(FaultKind.MALFORMED_REPLY, "the answer has no list of content blocks")
    blocks = _Blocks()
    events: list[ReplyEvent] = [Identified(as_text(body.get("id")), as_text(body.get("model")))]
    for index, block in enumerate(content):
        events += blocks.open(index, as_object(block))
        events += blocks.close(index)
    events.append(UsageReport(read_usage(as_object(body.get("usage")))))
    events.append(_finished(as_text(body.get("stop_reason")), blocks))
    return events


def read_error_words(body: Mapping[str, Any]) -> ErrorWords:
    """What an error object says."""
    error = body.get("error")
    if not isinstance(error, dict):
        return ErrorWords(message=as_text(error) or as_text(body.get("message")))
    return ErrorWords(
        type=as_text(error.get("type")),
        code=as_text(as_object(error.get("details")).get("error_code")),
        message=as_text(error.get("message")),
    )


def read_usage(raw: Mapping[str, Any]) -> Usage:
    """Usage with all input counted: the vendor's `input_tokens` leaves out what was read from or put into a cache."""
    counts = CountReader()
    fresh = counts.read(raw.get("input_tokens"))
    cached = counts.read_or_zero(raw.get("cache_read_input_tokens"))
    written = counts.read_or_zero(raw.get("cache_creation_input_tokens"))
    input_unknown = fresh is None or counts.implausible
    return Usage(
        input_tokens=None if fresh is None or input_unknown else fresh + cached + written,
        cached_input_tokens=cached,
        cache_write_input_tokens=written,
        output_tokens=counts.read(raw.get("output_tokens")),
        reasoning_tokens=counts.read_or_zero(as_object(raw.get("output_tokens_details")).get("thinking_tokens")),
        implausible=counts.implausible,
    )


class MessageStreamReader:
    """Reads one stream of message_start, content_block_*, message_delta and message_stop events."""

    __slots__ = ("_blocks", "_stop_reason", "_stopped", "_usage")

    def __init__(self) -> None:
        self._blocks = _Blocks()
        self._usage: dict[str, Any] = {}
        self._stop_reason = ""
        self._stopped = False

    def feed(self, event: SseEvent) -> Sequence[ReplyEvent]:
        """See `StreamReader.feed`. Unknown events are ignored, and so is everything after message_stop."""
        if self._stopped:
            return ()
        data = read_object(event.data, "an event of the stream")
        match data.get("type"):
            case "content_block_delta":
                return self._blocks.add(_index(data), as_object(data.get("delta")))
            case "content_block_start":
                return self._blocks.open(_index(data), as_object(data.get("content_block")))
            case "content_block_stop":
                return self._blocks.close(_index(data))
            case "message_start":
                return self._start(as_object(data.get("message")))
            case "message_delta":
                return self._finish(data)
            case "message_stop":
                self._stopped = True
                return [*self._blocks.close_all(), _finished(self._stop_reason, self._blocks)]
            case "error":
                raise failure_in_answer(read_error_words(data))
            case _:
                return ()

    def end(self) -> Sequence[ReplyEvent]:
        """See `StreamReader.end`; the end marker is message_stop."""
        if not self._stopped:
            raise ProviderFault(FaultKind.STREAM_CUT, "the stream ended before its message_stop event")
        return ()

    def _start(self, message: Mapping[str, Any]) -> Sequence[ReplyEvent]:
        identified = Identified(as_text(message.get("id")), as_text(message.get("model")))
        return [identified, *self._count(message)]

    def _finish(self, data: Mapping[str, Any]) -> Sequence[ReplyEvent]:
        self._stop_reason = as_text(as_object(data.get("delta")).get("stop_reason")) or self._stop_reason
        return self._count(data)

    def _count(self, holder: Mapping[str, Any]) -> Sequence[ReplyEvent]:
        # Counts are running totals, and a later event may leave out what an earlier one said.
        said = {name: value for name, value in as_object(holder.get("usage")).items() if value is not None}
        if not said:
            return ()
        self._usage |= said
        return (UsageReport(read_usage(self._usage)),)


def _finished(stop_reason: str, blocks: _Blocks) -> Finished:
    reason = FINISH_REASONS.get(stop_reason, FinishReason.UNKNOWN)
    if reason is FinishReason.STOP and blocks.has_tool_calls:
        reason = FinishReason.TOOL_CALLS
    return Finished(reason, stop_reason)


def _index(data: Mapping[str, Any]) -> int:
    index = data.get("index")
    return index if isinstance(index, int) else -1


class _Block(Protocol):
    """A content block that is being read."""

    def begin(self) -> Sequence[ReplyEvent]: ...

    def add(self, delta: Mapping[str, Any]) -> Sequence[ReplyEvent]: ...

    def end(self) -> Sequence[ReplyEvent]: ...


class _Blocks:
    """The content blocks of one answer. Those still open are found by the vendor's index, keys are our own count."""

    __slots__ = ("_begun", "_open", "_text_length", "has_tool_calls")

    def __init__(self) -> None:
        self._open: dict[int, _Block] = {}
        self._begun = 0
        self._text_length = 0
        self.has_tool_calls = False

    def open(self, index: int, raw: Mapping[str, Any]) -> Sequence[ReplyEvent]:
        kind = as_text(raw.get("type"))
        if not kind:
            raise ProviderFault(FaultKind.MALFORMED_REPLY, "a content block of the answer has no type")
        before = self.close(index)
        block = self._open[index] = self._new_block(kind, raw)
        self._begun += 1
        return [*before, *block.begin()]

    def _new_block(self, kind: str, raw: Mapping[str, Any]) -> _Block:
        match kind:
            case "text":
                return _Text(self._begun, raw, self._text_length)
            case "thinking" | "redacted_thinking":
                return _Thinking(self._begun, raw)
            case "tool_use":
                self.has_tool_calls = True
                return _ToolCall(self._begun, raw)
            case _:
                return _Opaque(self._begun, kind, raw)

    def add(self, index: int, delta: Mapping[str, Any]) -> Sequence[ReplyEvent]:
        block = self._open.get(index)
        if block is None:
            raise ProviderFault(FaultKind.MALFORMED_REPLY, "the stream continues a content block that is not open")
        return block.add(delta)

    def close(self, index: int) -> Sequence[ReplyEvent]:
        block = self._open.pop(index, None)
        if block is None:
            return ()
        if isinstance(block, _Text):
            self._text_length += block.length
        return block.end()

    def close_all(self) -> list[ReplyEvent]:
        return [event for index in list(self._open) for event in self.close(index)]


class _Text:
    """Text with its citations. A citation speaks for its whole block, so it waits for the block's end."""

    __slots__ = ("_citations", "_key", "_start", "_text", "length")

    def __init__(self, key: int, raw: Mapping[str, Any], start: int) -> None:
        self._key = key
        self._text = as_text(raw.get("text"))
        self._citations = [*as_list(raw.get("citations"))]
        self._start = start
        self.length = len(self._text)

    def begin(self) -> Sequence[ReplyEvent]:
        return (TextDelta(self._key, self._text),) if self._text else ()

    def add(self, delta: Mapping[str, Any]) -> Sequence[ReplyEvent]:
        kind = delta.get("type")
        if kind == "text_delta":
            text = as_text(delta.get("text"))
            if text:
                self.length += len(text)
                return (TextDelta(self._key, text),)
        elif kind == "citations_delta":
            self._citations.append(delta.get("citation"))
        return ()

    def end(self) -> Sequence[ReplyEvent]:
        end = self._start + self.length
        return [CitationFound(_citation(raw, self._start, end)) for raw in self._citations if isinstance(raw, dict)]


class _Thinking:
    """Visible thinking, or redacted thinking that is all signature."""

    __slots__ = ("_key", "_raw")

    def __init__(self, key: int, raw: Mapping[str, Any]) -> None:
        self._key = key
        self._raw = raw

    def begin(self) -> Sequence[ReplyEvent]:
        if self._raw.get("type") == "redacted_thinking":
            data = as_text(self._raw.get("data"))
            return (ReasoningDelta(self._key, "", data, redacted=True),) if data else ()
        return self._piece(as_text(self._raw.get("thinking")), as_text(self._raw.get("signature")))

    def add(self, delta: Mapping[str, Any]) -> Sequence[ReplyEvent]:
        kind = delta.get("type")
        if kind == "thinking_delta":
            return self._piece(as_text(delta.get("thinking")), "")
        return self._piece("", as_text(delta.get("signature"))) if kind == "signature_delta" else ()

    def end(self) -> Sequence[ReplyEvent]:
        return ()

    def _piece(self, text: str, signature: str) -> Sequence[ReplyEvent]:
        return (ReasoningDelta(self._key, text, signature),) if text or signature else ()


class _ToolCall:
    """A call for the caller's own tool; without pieces of arguments the block's first word on them counts."""

    __slots__ = ("_has_pieces", "_key", "_raw")

    def __init__(self, key: int, raw: Mapping[str, Any]) -> None:
        self._key = key
        self._raw = raw
        self._has_pieces = False

    def begin(self) -> Sequence[ReplyEvent]:
        return (ToolCallDelta(self._key, as_text(self._raw.get("id")), as_text(self._raw.get("name"))),)

    def add(self, delta: Mapping[str, Any]) -> Sequence[ReplyEvent]:
        piece = as_text(delta.get("partial_json"))
        if not piece:
            return ()
        self._has_pieces = True
        return (ToolCallDelta(self._key, arguments_json=piece),)

    def end(self) -> Sequence[ReplyEvent]:
        if self._has_pieces:
            return ()
        given = self._raw.get("input")
        arguments = given if isinstance(given, str) else _json_text({} if given is None else given)
        return (ToolCallDelta(self._key, arguments_json=arguments),)


class _Opaque:
    """A block that only the vendor understands, put together again from its pieces."""

    __slots__ = ("_input", "_key", "_kind", "_raw")

    def __init__(self, key: int, kind: str, raw: Mapping[str, Any]) -> None:
        self._key = key
        self._kind = kind
        self._raw = dict(raw)
        self._input: list[str] = []

    def begin(self) -> Sequence[ReplyEvent]:
        return ()

    def add(self, delta: Mapping[str, Any]) -> Sequence[ReplyEvent]:
        for name, value in delta.items():
            if name == "partial_json":
                self._input.append(as_text(value))
            elif name != "type" and value is not None:
                before = self._raw.get(name)
                self._raw[name] = before + value if isinstance(before, str) and isinstance(value, str) else value
        return ()

    def end(self) -> Sequence[ReplyEvent]:
        arguments = "".join(self._input)
        if arguments:
            self._raw["input"] = read_arguments(arguments)
        return (OpaqueDelta(self._key, DIALECT_NAME, self._kind, _json_text(self._raw)),)


def _citation(raw: Mapping[str, Any], start: int, end: int) -> Citation:
    return Citation(
        url=as_text(raw.get("url")) or as_text(raw.get("source")),
        title=as_text(raw.get("title")) or as_text(raw.get("document_title")),
        document_id=as_text(raw.get("file_id")) or _position(raw),
        quoted_text=as_text(raw.get("cited_text")),
        start_index=start,
        end_index=end,
    )


def _position(raw: Mapping[str, Any]) -> str:
    # Documents without an id are known by their place in the request.
    position = raw.get("document_index", raw.get("search_result_index"))
    return str(position) if isinstance(position, int) else ""


def _json_text(value: object) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:  # what only the lenient reader accepts, such as numbers beyond 64 bits
        return json.dumps(value)
