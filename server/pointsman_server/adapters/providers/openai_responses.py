"""The Responses API: an answer is a list of items, a stream tells of each item's beginning, growth and end.

An item that has ended is read by the same code as an item of a whole answer; only what the stream has told before is
left out, so that a streamed answer and a whole one cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from pointsman_server.adapters.providers.certainty import TokenCertainty
from pointsman_server.adapters.providers.dialect import Outgoing, StreamReader
from pointsman_server.adapters.providers.json_reading import CountReader, as_list, as_object, as_text, read_object
from pointsman_server.adapters.providers.openai_errors import fault_in_answer, read_error_body
from pointsman_server.adapters.providers.openai_reading import text_range
from pointsman_server.adapters.providers.openai_responses_request import shape_body
from pointsman_server.adapters.providers.sse import SseEvent
from pointsman_server.domain.catalog import Dialect
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import (
    Certainty,
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

_PATH = "/responses"
_DIALECT = Dialect.OPENAI_RESPONSES.value
_PARAGRAPH = "\n\n"

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "completed": FinishReason.STOP,
    "max_output_tokens": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
    "cancelled": FinishReason.ERROR,
}
_UNFINISHED = frozenset({"queued", "in_progress"})

_Json = Mapping[str, Any]
_Events = Sequence[ReplyEvent]


class OpenAiResponses:
    """The `WireDialect` of the Responses API; see `openai_request` for the options of a deployment."""

    def shape(self, call: ProviderCall) -> Outgoing:
        """See `WireDialect.shape`."""
        return Outgoing(_PATH, shape_body(call), {})

    def read_whole(self, body: _Json) -> _Events:
        """See `WireDialect.read_whole`."""
        answer = _Answer()
        names = answer.read_names(body)
        return [*names, *answer.close(body, as_text(body.get("status")))]

    def open_stream(self) -> StreamReader:
        """See `WireDialect.open_stream`."""
        return _ResponseStream()

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFault:
        """See `WireDialect.read_error`."""
        return read_error_body(status, headers, body)


class _ResponseStream:
    """Reads one stream, to the event that holds the whole response."""

    __slots__ = ("_answer", "_ended")

    def __init__(self) -> None:
        self._answer = _Answer()
        self._ended = False

    def feed(self, event: SseEvent) -> _Events:
        """See `StreamReader.feed`."""
        data = event.data
        if self._ended or (data[:1] != b"{" and _is_filler(data)):
            return ()
        payload = read_object(data, "an event of the stream")
        kind = payload.get("type")
        read = _EVENT_READERS.get(kind) if isinstance(kind, str) else None
        if read is not None:
            return read(self._answer, payload)
        if kind in _CLOSING_EVENTS:
            self._ended = True
            return self._answer.close(as_object(payload.get("response")), kind.removeprefix("response."))
        if kind == "error" or event.name == "error" or payload.get("error"):
            raise fault_in_answer(payload)
        return ()

    def end(self) -> _Events:
        """See `StreamReader.end`."""
        if not self._ended:
            raise ProviderFault(FaultKind.STREAM_CUT, "the stream ended before its response.completed event")
        return ()


class _Answer:
    """What an answer has said so far; parts are known by the item's index and, in messages, the part's."""

    __slots__ = (
        "_begun", "_has_calls", "_named", "_open_items", "_refused", "_section", "_sources", "_text_lengths",
        "_with_arguments",
    )  # fmt: skip

    def __init__(self) -> None:
        self._begun: set[str] = set()
        self._with_arguments: set[str] = set()
        self._open_items: set[int] = set()
        self._section: dict[str, object] = {}
        self._text_lengths: dict[tuple[int, int], int] = {}
        self._sources: set[Citation] = set()
        self._has_calls = False
        self._refused = False
        self._named = False

    def read_names(self, response: _Json) -> _Events:
        """Takes in the names of the response, once."""
        response_id, model = as_text(response.get("id")), as_text(response.get("model"))
        if self._named or not (response_id or model):
            return ()
        self._named = True
        return [Identified(response_id, model)]

    def read_created(self, payload: _Json) -> _Events:
        """Takes in that the response exists."""
        return self.read_names(as_object(payload.get("response")))

    def read_text(self, payload: _Json) -> _Events:
        """Takes in a piece of text."""
        text = as_text(payload.get("delta"))
        return self._grow_text(_index(payload, "output_index"), _index(payload, "content_index"), text) if text else ()

    def read_refusal(self, payload: _Json) -> _Events:
        """Takes in a piece of a refusal, which is text that says no."""
        self._refused = True
        return self.read_text(payload)

    def _grow_text(self, item: int, part: int, text: str) -> _Events:
        key = f"{item}.{part}"
        self._begun.add(key)
        self._text_lengths[item, part] = self._text_lengths.get((item, part), 0) + len(text)
        return [TextDelta(key, text)]

    def read_reasoning(self, payload: _Json) -> _Events:
        """Takes in a piece of reasoning; where one section ends and the next begins there is a blank line."""
        text = as_text(payload.get("delta"))
        if not text:
            return ()
        key = str(_index(payload, "output_index"))
        section = (payload.get("type"), payload.get("summary_index"), payload.get("content_index"))
        if self._section.setdefault(key, section) != section:
            self._section[key] = section
            text = _PARAGRAPH + text
        self._begun.add(key)
        return [ReasoningDelta(key, text)]

    def read_arguments(self, payload: _Json) -> _Events:
        """Takes in a piece of a call's arguments."""
        piece = as_text(payload.get("delta"))
        key = str(_index(payload, "output_index"))
        if not piece:
            return ()
        self._has_calls = True
        self._begun.add(key)
        self._with_arguments.add(key)
        return [ToolCallDelta(key, arguments_json=piece)]

    def read_annotation(self, payload: _Json) -> _Events:
        """Takes in a source."""
        item, part = _index(payload, "output_index"), _index(payload, "content_index")
        return self._cite([payload.get("annotation")], item, part)

    def read_item_begin(self, payload: _Json) -> _Events:
        """Takes in that an item begins; only calls say something then."""
        item = as_object(payload.get("item"))
        index = _index(payload, "output_index")
        self._open_items.add(index)
        if item.get("type") != "function_call":
            return ()
        key = str(index)
        self._has_calls = True
        self._begun.add(key)
        return [_call_begin(key, item)]

    def read_item_end(self, payload: _Json) -> _Events:
        """Takes in what the stream has not yet told of an item that is complete now."""
        index = _index(payload, "output_index")
        self._open_items.discard(index)
        return self._read_item(index, as_object(payload.get("item")))

    def close(self, response: _Json, status: str) -> _Events:
        """Takes in the whole response: all of it, or what is known only at the end."""
        if response.get("error") or status == "failed":
            raise fault_in_answer(response)
        if status in _UNFINISHED:
            raise ProviderFault(FaultKind.MALFORMED_REPLY, "the response is not complete")
        events: list[ReplyEvent] = [*self.read_names(response), *self._read_rest(response.get("output"))]
        usage = response.get("usage")
        if isinstance(usage, dict):
            events.append(UsageReport(_read_usage(usage)))
        raw = as_text(as_object(response.get("incomplete_details")).get("reason")) or status
        return [*events, *_read_certainty(response.get("output")), Finished(self._reason(raw), raw)]

    def _reason(self, raw: str) -> FinishReason:
        reason = _FINISH_REASONS.get(raw, FinishReason.UNKNOWN)
        if reason is FinishReason.STOP and self._refused:
            return FinishReason.REFUSAL
        if reason is FinishReason.STOP and self._has_calls:
            return FinishReason.TOOL_CALLS
        return reason

    def _read_rest(self, output: object) -> _Events:
        if not (self._begun or isinstance(output, list)):
            raise ProviderFault(FaultKind.MALFORMED_REPLY, "the response holds no output")
        rest = list(enumerate(as_list(output)))
        if self._begun:
            # Items that have ended are not read again: their indices need not be those of the final list.
            rest = [(index, item) for index, item in rest if index in self._open_items]
        return [event for index, item in rest for event in self._read_item(index, as_object(item))]

    def _read_item(self, index: int, item: _Json) -> _Events:
        match item.get("type"):
            case "message":
                return self._read_message(index, item)
            case "reasoning":
                return self._read_reasoning_item(str(index), item)
            case "function_call":
                return self._read_call(str(index), item)
            case str(kind):
                return self._read_opaque(str(index), kind, item)
            case _:
                return ()

    def _read_message(self, index: int, item: _Json) -> _Events:
        events: list[ReplyEvent] = []
        for part_index, part in enumerate(map(as_object, as_list(item.get("content")))):
            self._refused = self._refused or part.get("type") == "refusal"
            text = as_text(part.get("text")) or as_text(part.get("refusal"))
            if text and f"{index}.{part_index}" not in self._begun:
                events += self._grow_text(index, part_index, text)
            events += self._cite(as_list(part.get("annotations")), index, part_index)
        return events

    def _read_reasoning_item(self, key: str, item: _Json) -> _Events:
        signature = as_text(item.get("encrypted_content"))
        if key in self._begun:
            return [ReasoningDelta(key, "", signature)] if signature else ()
        sections = [*as_list(item.get("summary")), *as_list(item.get("content"))]
        text = _PARAGRAPH.join(filter(None, (as_text(as_object(section).get("text")) for section in sections)))
        if not (text or signature):
            return ()
        self._begun.add(key)
        return [ReasoningDelta(key, text, signature, redacted=not text)]

    def _read_call(self, key: str, item: _Json) -> _Events:
        self._has_calls = True
        arguments = as_text(item.get("arguments"))
        events: list[ReplyEvent] = [] if key in self._begun else [_call_begin(key, item)]
        self._begun.add(key)
        if arguments and key not in self._with_arguments:
            events.append(ToolCallDelta(key, arguments_json=arguments))
        return events

    def _read_opaque(self, key: str, kind: str, item: _Json) -> _Events:
        self._begun.add(key)
        return [OpaqueDelta(key, _DIALECT, kind, orjson.dumps(item).decode())]

    def _cite(self, annotations: Sequence[object], item: int, part: int) -> _Events:
        if not annotations:
            return ()
        before = sum(length for place, length in self._text_lengths.items() if place < (item, part))
        events: list[ReplyEvent] = []
        for annotation in map(as_object, annotations):
            source = _read_source(annotation, before)
            if source is not None and source not in self._sources:
                self._sources.add(source)
                events.append(CitationFound(source))
        return events


_EVENT_READERS: Mapping[str, Callable[[_Answer, _Json], _Events]] = {
    "response.created": _Answer.read_created,
    "response.output_text.delta": _Answer.read_text,
    "response.refusal.delta": _Answer.read_refusal,
    "response.reasoning_summary_text.delta": _Answer.read_reasoning,
    "response.reasoning_text.delta": _Answer.read_reasoning,
    "response.function_call_arguments.delta": _Answer.read_arguments,
    "response.output_text.annotation.added": _Answer.read_annotation,
    "response.output_item.added": _Answer.read_item_begin,
    "response.output_item.done": _Answer.read_item_end,
}
_CLOSING_EVENTS = frozenset({
    "response.completed", "response.incomplete", "response.failed", "response.cancelled",
})  # fmt: skip


def _is_filler(data: bytes) -> bool:
    stripped = data.strip()
    return not stripped or stripped == b"[DONE]"


def _index(payload: _Json, name: str) -> int:
    index = payload.get(name)
    return index if isinstance(index, int) else 0


def _call_begin(key: str, item: _Json) -> ToolCallDelta:
    return ToolCallDelta(key, as_text(item.get("call_id")) or as_text(item.get("id")), as_text(item.get("name")))


def _read_source(annotation: _Json, before: int) -> Citation | None:
    start, end = text_range(annotation)
    if start >= 0:
        start, end = start + before, end + before
    match annotation.get("type"):
        case "url_citation":
            url, title = as_text(annotation.get("url")), as_text(annotation.get("title"))
            return Citation(url=url, title=title, start_index=start, end_index=end)
        case "file_citation" | "container_file_citation" | "file_path":
            file_id, name = as_text(annotation.get("file_id")), as_text(annotation.get("filename"))
            return Citation(document_id=file_id, title=name, start_index=start, end_index=end)
        case _:
            return None


def _read_certainty(output: object) -> list[Certainty]:
    """From the log-probabilities of the text, which come where the options include `message.output_text.logprobs`."""
    told = TokenCertainty()
    for item in map(as_object, as_list(output)):
        for part in map(as_object, as_list(item.get("content"))):
            told.read(part.get("logprobs"))
    return told.events()


def _read_usage(usage: _Json) -> Usage:
    counts = CountReader()
    inputs, outputs = as_object(usage.get("input_tokens_details")), as_object(usage.get("output_tokens_details"))
    return Usage(
        input_tokens=counts.read(usage.get("input_tokens")),
        cached_input_tokens=counts.read_or_zero(inputs.get("cached_tokens")),
        cache_write_input_tokens=counts.read_or_zero(inputs.get("cache_write_tokens")),
        output_tokens=counts.read(usage.get("output_tokens")),
        reasoning_tokens=counts.read_or_zero(outputs.get("reasoning_tokens")),
        implausible=counts.implausible,
    )
