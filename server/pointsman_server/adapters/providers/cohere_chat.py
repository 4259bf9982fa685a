"""Cohere's chat API, version 2: one JSON object or a stream of typed events.

Its two places for the model's thoughts, the plan before tool calls and the thinking blocks, both become reasoning.
On the way back the reasoning of a turn with tool calls is its `tool_plan`, which is where the models look for it;
the reasoning of a finished turn is not asked for again and stays out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from pointsman_server.adapters.providers.cohere_request import shape_body
from pointsman_server.adapters.providers.dialect import Outgoing, StreamReader
from pointsman_server.adapters.providers.failures import ErrorWords, failure_from_status, failure_in_answer
from pointsman_server.adapters.providers.json_reading import CountReader, as_list, as_object, as_text, read_object
from pointsman_server.adapters.providers.sse import SseEvent
from pointsman_server.domain.catalog import Dialect
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.ports import ProviderCall
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

_PATH = "/v2/chat"
_DIALECT = Dialect.COHERE_CHAT.value
_PLAN_KEY = "plan"

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "COMPLETE": FinishReason.STOP,
    "STOP_SEQUENCE": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "ERROR_LIMIT": FinishReason.LENGTH,
    "TOOL_CALL": FinishReason.TOOL_CALLS,
    "ERROR_TOXIC": FinishReason.CONTENT_FILTER,
    "ERROR": FinishReason.ERROR,
    "TIMEOUT": FinishReason.ERROR,
    "USER_CANCEL": FinishReason.ERROR,
}

_LONGEST_PLAIN_ERROR_BYTES = 4_096

_Json = Mapping[str, Any]
_Events = Sequence[ReplyEvent]


class CohereChat:
    """The `WireDialect` of Cohere's chat API v2."""

    def shape(self, call: ProviderCall) -> Outgoing:
        """See `WireDialect.shape`."""
        return Outgoing(_PATH, shape_body(call), {})

    def read_whole(self, body: _Json) -> _Events:
        """See `WireDialect.read_whole`."""
        message = body.get("message")
        if not isinstance(message, dict):
            raise _fault_in_answer(body) or ProviderFault(FaultKind.MALFORMED_REPLY, "the answer holds no message")
        events: list[ReplyEvent] = [Identified(as_text(body.get("id")))]
        events += _plan_events(message)
        blocks = [block for block in as_list(message.get("content")) if isinstance(block, dict)]
        for index, block in enumerate(blocks):
            events += _block_events(str(index), block)
        calls = as_list(message.get("tool_calls"))
        for index, tool_call in enumerate(calls):
            events += _with_arguments(_tool_call_events(f"call{index}", as_object(tool_call)))
        lengths = {i: len(as_text(block.get("text"))) for i, block in enumerate(blocks) if block.get("type") == "text"}
        for citation in as_list(message.get("citations")):
            events += _citation_events(as_object(citation), lengths)
        return [*events, *_closing_events(body, has_tool_calls=bool(calls))]

    def open_stream(self) -> StreamReader:
        """See `WireDialect.open_stream`."""
        return _CohereStream()

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFault:
        """See `WireDialect.read_error`."""
        try:
            words = _error_words(read_object(body, "the error"))
        except ProviderFault:
            words = ErrorWords(message=body[:_LONGEST_PLAIN_ERROR_BYTES].decode("utf-8", "replace"))
        return failure_from_status(status, words, headers)


def _plan_events(message: _Json) -> _Events:
    plan = as_text(message.get("tool_plan"))
    return [ReasoningDelta(_PLAN_KEY, plan)] if plan else ()


def _block_events(key: str, block: _Json) -> _Events:
    match as_text(block.get("type")):
        case "text" | "":
            text = as_text(block.get("text"))
            return [TextDelta(key, text)] if text else ()
        case "thinking":
            thinking = as_text(block.get("thinking"))
            return [ReasoningDelta(key, thinking)] if thinking else ()
        case kind:
            return [OpaqueDelta(key, _DIALECT, kind, orjson.dumps(block).decode())]


def _tool_call_events(key: str, tool_call: _Json) -> list[ToolCallDelta]:
    function = as_object(tool_call.get("function"))
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str):
        arguments = orjson.dumps(arguments).decode()
    return [ToolCallDelta(key, as_text(tool_call.get("id")), as_text(function.get("name")), arguments or "")]


def _citation_events(citation: _Json, text_lengths: Mapping[int, int]) -> _Events:
    start, end = _indices(citation, text_lengths)
    found = Citation(quoted_text=as_text(citation.get("text")), start_index=start, end_index=end)
    sources = [as_object(source) for source in as_list(citation.get("sources"))] or [{}]
    return [CitationFound(_with_source(found, source)) for source in sources]


def _indices(citation: _Json, text_lengths: Mapping[int, int]) -> tuple[int, int]:
    start, end = citation.get("start"), citation.get("end")
    inside_text = citation.get("type") in (None, "", "TEXT_CONTENT")
    if not (inside_text and isinstance(start, int) and isinstance(end, int)):
        return -1, -1
    block = citation.get("content_index")
    before = sum(length for index, length in text_lengths.items() if isinstance(block, int) and index < block)
    return start + before, end + before


def _with_source(found: Citation, source: _Json) -> Citation:
    content = as_object(source.get("document")) or as_object(source.get("tool_output"))
    return Citation(
        url=as_text(content.get("url")),
        title=as_text(content.get("title")),
        document_id=as_text(source.get("id")),
        quoted_text=found.quoted_text,
        start_index=found.start_index,
        end_index=found.end_index,
    )


def _with_arguments(deltas: list[ToolCallDelta]) -> list[ToolCallDelta]:
    if any(delta.arguments_json for delta in deltas):
        return deltas
    return [*deltas, ToolCallDelta(deltas[0].key, arguments_json="{}")]


def _closing_events(end: _Json, *, has_tool_calls: bool) -> _Events:
    if end.get("error"):
        raise failure_in_answer(_error_words(end))
    raw = as_text(end.get("finish_reason"))
    reason = _FINISH_REASONS.get(raw, FinishReason.UNKNOWN)
    if reason is FinishReason.STOP and has_tool_calls:
        reason = FinishReason.TOOL_CALLS
    return [UsageReport(_read_usage(as_object(end.get("usage")))), Finished(reason, raw)]


def _read_usage(usage: _Json) -> Usage:
    tokens, billed = as_object(usage.get("tokens")), as_object(usage.get("billed_units"))
    counts = CountReader()
    return Usage(
        input_tokens=counts.read(tokens.get("input_tokens")),
        cached_input_tokens=counts.read_or_zero(usage.get("cached_tokens")),
        output_tokens=counts.read(tokens.get("output_tokens")),
        reasoning_tokens=counts.read_or_zero(tokens.get("reasoning_tokens")),
        billed_input_tokens=counts.read(billed.get("input_tokens")),
        billed_output_tokens=counts.read(billed.get("output_tokens")),
        implausible=counts.implausible,
    )


def _fault_in_answer(body: _Json) -> ProviderFault | None:
    # Errors have no type of their own: `message` is then a text, where an answer has an object.
    if body.get("error") or as_text(body.get("message")):
        return failure_in_answer(_error_words(body))
    return None


def _error_words(body: _Json) -> ErrorWords:
    error = body.get("error")
    inner = as_object(error)
    return ErrorWords(
        type=as_text(body.get("error_type")) or as_text(inner.get("type")),
        code=as_text(body.get("code")) or as_text(inner.get("code")),
        message=as_text(body.get("message")) or as_text(error) or as_text(inner.get("message")),
    )


class _CohereStream:
    """Reads one stream. Blocks and calls get keys of their own, because an index may come again after its end."""

    __slots__ = ("_call_keys", "_ended", "_keys", "_keys_with_arguments", "_opaque", "_parts_begun", "_text_lengths")

    def __init__(self) -> None:
        self._keys: dict[object, str] = {}
        self._call_keys: dict[object, str] = {}
        self._keys_with_arguments: set[str] = set()
        self._opaque: dict[object, dict[str, Any]] = {}
        self._text_lengths: dict[int, int] = {}
        self._parts_begun = 0
        self._ended = False

    def feed(self, event: SseEvent) -> _Events:
        """See `StreamReader.feed`."""
        if self._ended or event.data == b"[DONE]":
            return ()
        payload = read_object(event.data, "an event of the stream")
        read = _EVENT_READERS.get(as_text(payload.get("type")))
        if read is not None:
            return read(self, payload)
        fault = _fault_in_answer(payload)
        if fault is not None:
            raise fault
        return ()

    def end(self) -> _Events:
        """See `StreamReader.end`."""
        if not self._ended:
            raise ProviderFault(FaultKind.STREAM_CUT, "the stream ended before its message-end event")
        return ()

    def _new_key(self, prefix: str) -> str:
        self._parts_begun += 1
        return f"{prefix}{self._parts_begun}"

    def _read_start(self, payload: _Json) -> _Events:
        return [Identified(as_text(payload.get("id")))]

    def _read_plan(self, payload: _Json) -> _Events:
        return _plan_events(_message(payload))

    def _open_block(self, payload: _Json) -> _Events:
        index = _index(payload)
        block = as_object(_message(payload).get("content"))
        self._keys[index] = self._new_key("block")
        if as_text(block.get("type")) not in ("text", "thinking", ""):
            self._opaque[index] = dict(block)
            return ()
        return self._read_block(index, block)

    def _read_delta(self, payload: _Json) -> _Events:
        index = _index(payload)
        piece = as_object(_message(payload).get("content"))
        if index in self._opaque:
            _grow(self._opaque[index], piece)
            return ()
        return self._read_block(index, piece)

    def _read_block(self, index: int, piece: _Json) -> _Events:
        key = self._keys.get(index)
        if key is None:
            key = self._keys[index] = self._new_key("block")
        text = as_text(piece.get("text"))
        if text:
            self._text_lengths[index] = self._text_lengths.get(index, 0) + len(text)
            return [TextDelta(key, text)]
        thinking = as_text(piece.get("thinking"))
        # The suffix keeps thinking and text apart, should both come under one index.
        return [ReasoningDelta(f"{key}t", thinking)] if thinking else ()

    def _close_block(self, payload: _Json) -> _Events:
        index = _index(payload)
        block = self._opaque.pop(index, None)
        return () if block is None else _block_events(self._keys[index], block)

    def _open_call(self, payload: _Json) -> _Events:
        key = self._call_keys[_index(payload)] = self._new_key("call")
        return self._read_piece(key, payload)

    def _read_call(self, payload: _Json) -> _Events:
        key = self._call_keys.get(_index(payload))
        return self._open_call(payload) if key is None else self._read_piece(key, payload)

    def _read_piece(self, key: str, payload: _Json) -> _Events:
        deltas = _tool_call_events(key, as_object(_message(payload).get("tool_calls")))
        if any(delta.arguments_json for delta in deltas):
            self._keys_with_arguments.add(key)
        return deltas

    def _close_call(self, payload: _Json) -> _Events:
        # A call without arguments has {} in a whole answer and nothing in a stream; both shall read alike.
        key = self._call_keys.get(_index(payload))
        if key is None or key in self._keys_with_arguments:
            return ()
        return [ToolCallDelta(key, arguments_json="{}")]

    def _read_citation(self, payload: _Json) -> _Events:
        return _citation_events(as_object(_message(payload).get("citations")), self._text_lengths)

    def _close(self, payload: _Json) -> _Events:
        events: list[ReplyEvent] = []
        for index, block in self._opaque.items():
            events += _block_events(self._keys[index], block)
        events += _closing_events(as_object(payload.get("delta")), has_tool_calls=bool(self._call_keys))
        self._ended = True
        return events


_EVENT_READERS: Mapping[str, Callable[[_CohereStream, _Json], _Events]] = {
    "message-start": _CohereStream._read_start,
    "content-start": _CohereStream._open_block,
    "content-delta": _CohereStream._read_delta,
    "content-end": _CohereStream._close_block,
    "tool-plan-delta": _CohereStream._read_plan,
    "tool-call-start": _CohereStream._open_call,
    "tool-call-delta": _CohereStream._read_call,
    "tool-call-end": _CohereStream._close_call,
    "citation-start": _CohereStream._read_citation,
    "message-end": _CohereStream._close,
}


def _message(payload: _Json) -> _Json:
    return as_object(as_object(payload.get("delta")).get("message"))


def _index(payload: _Json) -> int:
    index = payload.get("index")
    return index if isinstance(index, int) else 0


def _grow(block: dict[str, Any], piece: _Json) -> None:
    for name, value in piece.items():
        held = block.get(name)
        grows = name != "type" and isinstance(held, str) and isinstance(value, str)
        block[name] = held + value if grows else value
