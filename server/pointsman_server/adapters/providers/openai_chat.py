"""The chat completions API: OpenAI's own and everything that imitates it.

One reading takes the oddities of all of them. A delta and a whole message are read by the same code, so that a
streamed answer and a whole one cannot differ. Of several choices only the first is read: we never ask for more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from pointsman_server.adapters.providers.certainty import TokenCertainty
from pointsman_server.adapters.providers.dialect import Outgoing, StreamReader
from pointsman_server.adapters.providers.json_reading import CountReader, as_list, as_object, as_text, read_object
from pointsman_server.adapters.providers.openai_chat_pieces import ReasoningDetails, ToolCalls, details_text
from pointsman_server.adapters.providers.openai_chat_request import REASONING_DETAILS, shape_body
from pointsman_server.adapters.providers.openai_errors import fault_in_answer, read_error_body
from pointsman_server.adapters.providers.openai_reading import text_range
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
    Usage,
    UsageReport,
)

_PATH = "/chat/completions"
_DIALECT = Dialect.OPENAI_CHAT.value

_TEXT = "text"
_REASONING = "reasoning"
_REFUSAL = "refusal"
_DETAILS = "details"

_DONE = b"[DONE]"
_PERPLEXITY_DONE = "chat.completion.done"
_LEGACY_INDEX = -1

_CACHED_COUNT_NAMES = ("prompt_cache_hit_tokens", "num_cached_tokens", "cached_tokens")
"""Where DeepSeek, Mistral and Together say how much of the input was cached."""

_FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": FinishReason.STOP,
    "eos": FinishReason.STOP,
    "eos_token": FinishReason.STOP,
    "end_turn": FinishReason.STOP,
    "stop_sequence": FinishReason.STOP,
    "completed": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "max_tokens": FinishReason.LENGTH,
    "max_output_tokens": FinishReason.LENGTH,
    "model_length": FinishReason.LENGTH,
    "model_context_window_exceeded": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "tool_call": FinishReason.TOOL_CALLS,
    "tool_use": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
    "content_filter": FinishReason.CONTENT_FILTER,
    "safety": FinishReason.CONTENT_FILTER,
    "sensitive": FinishReason.CONTENT_FILTER,
    "refusal": FinishReason.REFUSAL,
    "pause_turn": FinishReason.PAUSE,
    "error": FinishReason.ERROR,
    "network_error": FinishReason.ERROR,
    "insufficient_system_resource": FinishReason.ERROR,
    "abort": FinishReason.ERROR,
    "cancelled": FinishReason.ERROR,
}

_Json = Mapping[str, Any]
_Events = Sequence[ReplyEvent]


class OpenAiChat:
    """The `WireDialect` of chat completions; vendors are rows of the policy, see `openai_request` for options."""

    def shape(self, call: ProviderCall) -> Outgoing:
        """See `WireDialect.shape`."""
        return Outgoing(_PATH, shape_body(call), {})

    def read_whole(self, body: _Json) -> _Events:
        """See `WireDialect.read_whole`."""
        if _tells_of_error(body):
            raise fault_in_answer(body)
        choice = _first_choice(as_list(body.get("choices")))
        message = choice.get("message")
        if not isinstance(message, dict):
            raise ProviderFault(FaultKind.MALFORMED_REPLY, "the answer holds no choice with a message")
        answer = _Answer()
        events: list[ReplyEvent] = []
        answer.read_envelope(body, events)
        answer.read_whole(message, events)
        answer.read_certainty(choice)
        answer.read_finish(choice)
        return [*events, *answer.close()]

    def open_stream(self) -> StreamReader:
        """See `WireDialect.open_stream`."""
        return _ChatStream()

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFault:
        """See `WireDialect.read_error`."""
        return read_error_body(status, headers, body)


class _ChatStream:
    """Reads one stream: to `[DONE]`, to Perplexity's last chunk, or to a finish reason and the end of the body."""

    __slots__ = ("_answer", "_ended")

    def __init__(self) -> None:
        self._answer = _Answer()
        self._ended = False

    def feed(self, event: SseEvent) -> _Events:
        """See `StreamReader.feed`."""
        if self._ended:
            return ()
        data = event.data
        if data[:1] != b"{":
            data = data.strip()
            if data.startswith(_DONE):
                return self._close()
            if not data:
                return ()
        chunk = read_object(data, "an event of the stream")
        if event.name == "error" or _tells_of_error(chunk):
            raise fault_in_answer(chunk)
        return self._read_chunk(chunk)

    def end(self) -> _Events:
        """See `StreamReader.end`."""
        if self._ended:
            return ()
        if not self._answer.finished:
            raise ProviderFault(FaultKind.STREAM_CUT, "the stream ended before its finish reason")
        return self._close()

    def _read_chunk(self, chunk: _Json) -> _Events:
        events: list[ReplyEvent] = []
        answer = self._answer
        answer.read_envelope(chunk, events)
        choices = chunk.get("choices")
        if choices:
            choice = _first_choice(as_list(choices))
            delta = choice.get("delta")
            if isinstance(delta, dict):
                answer.read_piece(delta, events)
            answer.read_certainty(choice)
            answer.read_finish(choice)
        if chunk.get("object") == _PERPLEXITY_DONE:
            events += self._close()
        return events

    def _close(self) -> _Events:
        self._ended = True
        return self._answer.close()


class _Answer:
    """What an answer has said so far, be it in one piece or in many."""

    __slots__ = (
        "_blocks", "_calls", "_certainty", "_citations", "_details", "_envelope", "_finish", "_model", "_response_id",
        "_usage", "finished", "refused",
    )  # fmt: skip

    def __init__(self) -> None:
        self._calls = ToolCalls()
        self._certainty = TokenCertainty()
        self._details = ReasoningDetails()
        self._citations: set[Citation] = set()
        self._blocks = 0
        self._envelope: _Json = {}
        self._usage: object = None
        self._response_id = ""
        self._model = ""
        self._finish = ""
        self.finished = False
        self.refused = False

    def read_envelope(self, envelope: _Json, events: list[ReplyEvent]) -> None:
        """Takes in what surrounds the choices: names, usage, sources."""
        if not (self._response_id and self._model):
            self._read_names(as_text(envelope.get("id")), as_text(envelope.get("model")), events)
        usage = envelope.get("usage") or as_object(envelope.get("x_groq")).get("usage")
        if usage:
            self._usage = usage
        if envelope.get("citations") or envelope.get("search_results"):
            self._envelope = envelope

    def _read_names(self, response_id: str, model: str, events: list[ReplyEvent]) -> None:
        # Azure's first chunk has empty names; the first that are not are the answer's.
        new_id = "" if self._response_id else response_id
        new_model = "" if self._model else model
        if new_id or new_model:
            self._response_id, self._model = self._response_id or new_id, self._model or new_model
            events.append(Identified(new_id, new_model))

    def read_piece(self, delta: _Json, events: list[ReplyEvent]) -> None:
        """Takes in a delta."""
        self._read_text(delta, events)
        for piece in as_list(delta.get("tool_calls")):
            _add(self._calls.read_piece(as_object(piece)), events)
        self._read_rarities(delta, events)

    def read_whole(self, message: _Json, events: list[ReplyEvent]) -> None:
        """Takes in a whole message."""
        self._read_text(message, events)
        for call in as_list(message.get("tool_calls")):
            _add(self._calls.read_whole(as_object(call)), events)
        self._read_rarities(message, events)

    def _read_text(self, said: _Json, events: list[ReplyEvent]) -> None:
        reasoning = said.get("reasoning_content") or said.get("reasoning")
        details = said.get("reasoning_details")
        if details:
            blocks = [block for block in as_list(details) if isinstance(block, dict)]
            for block in blocks:
                self._details.add(block)
            reasoning = reasoning or details_text(blocks)
        if reasoning and isinstance(reasoning, str):
            events.append(ReasoningDelta(_REASONING, reasoning))
        content = said.get("content")
        if content:
            if isinstance(content, str):
                events.append(TextDelta(_TEXT, content))
            else:
                self._read_blocks(as_list(content), events)
        refusal = said.get("refusal")
        if refusal and isinstance(refusal, str):
            self.refused = True
            events.append(TextDelta(_REFUSAL, refusal))

    def _read_blocks(self, blocks: Iterable[object], events: list[ReplyEvent]) -> None:
        for block in map(as_object, blocks):
            kind = as_text(block.get("type"))
            if kind == "text":
                _add_text(TextDelta(_TEXT, as_text(block.get("text"))), events)
            elif kind == "thinking":
                _add_text(ReasoningDelta(_REASONING, _thinking_text(block.get("thinking"))), events)
            elif kind:
                self._blocks += 1
                json = orjson.dumps(block, option=orjson.OPT_SORT_KEYS).decode()
                events.append(OpaqueDelta(f"block{self._blocks}", _DIALECT, kind, json))

    def _read_rarities(self, said: _Json, events: list[ReplyEvent]) -> None:
        legacy = said.get("function_call")
        if legacy:
            _add(self._calls.read_piece({"index": _LEGACY_INDEX, "function": legacy}), events)
        for annotation in as_list(said.get("annotations")):
            citation = _read_annotation(as_object(annotation))
            if citation is not None and citation not in self._citations:
                self._citations.add(citation)
                events.append(CitationFound(citation))

    def read_certainty(self, choice: _Json) -> None:
        """Takes in the log-probabilities, which come where the deployment's options ask for them."""
        told = choice.get("logprobs")
        if told:
            self._certainty.read(as_object(told).get("content"))

    def read_finish(self, choice: _Json) -> None:
        """Takes in why the model stopped, if the choice says so."""
        if choice.get("error"):
            raise fault_in_answer(choice)
        reason = choice.get("finish_reason") or as_object(choice.get("finish_details")).get("type")
        if reason:
            self.finished = True
            self._finish = as_text(reason)

    def close(self) -> _Events:
        """What is known only at the end."""
        events: list[ReplyEvent] = [CitationFound(source) for source in _read_sources(self._envelope)]
        details = self._details.json()
        if details:
            events.append(OpaqueDelta(_DETAILS, _DIALECT, REASONING_DETAILS, details))
        if isinstance(self._usage, dict):
            events.append(UsageReport(_read_usage(self._usage)))
        return [*events, *self._certainty.events(), Finished(self._reason(), self._finish)]

    def _reason(self) -> FinishReason:
        reason = _FINISH_REASONS.get(self._finish.lower(), FinishReason.UNKNOWN)
        if reason is FinishReason.STOP and self.refused:
            return FinishReason.REFUSAL
        if reason is FinishReason.STOP and len(self._calls):
            return FinishReason.TOOL_CALLS
        return reason


def _add(event: ReplyEvent | None, events: list[ReplyEvent]) -> None:
    if event is not None:
        events.append(event)


def _add_text(delta: TextDelta | ReasoningDelta, events: list[ReplyEvent]) -> None:
    if delta.text:
        events.append(delta)


def _tells_of_error(body: _Json) -> bool:
    return bool(body.get("error")) or body.get("object") == "error" or ("detail" in body and "choices" not in body)


def _first_choice(choices: Iterable[object]) -> _Json:
    for choice in choices:
        if isinstance(choice, dict) and not choice.get("index"):
            return choice
    return {}


def _thinking_text(thinking: object) -> str:
    if isinstance(thinking, str):
        return thinking
    return "".join(as_text(as_object(block).get("text")) for block in as_list(thinking))


def _read_annotation(annotation: _Json) -> Citation | None:
    if annotation.get("type") != "url_citation":
        return None
    source = as_object(annotation.get("url_citation")) or annotation
    start, end = text_range(source)
    return Citation(as_text(source.get("url")), as_text(source.get("title")), start_index=start, end_index=end)


def _read_sources(envelope: _Json) -> list[Citation]:
    # Perplexity's [1] in the text counts from the first URL; the titles stand in the search results.
    results = [as_object(result) for result in as_list(envelope.get("search_results"))]
    titles = {as_text(result.get("url")): as_text(result.get("title")) for result in results}
    urls = [*map(as_text, as_list(envelope.get("citations"))), *titles]
    return [Citation(url=url, title=titles.get(url, "")) for url in dict.fromkeys(urls) if url]


def _read_usage(usage: _Json) -> Usage:
    counts = CountReader()
    inputs, outputs = as_object(usage.get("prompt_tokens_details")), as_object(usage.get("completion_tokens_details"))
    input_tokens = counts.read(usage.get("prompt_tokens"))
    output_tokens = counts.read(usage.get("completion_tokens"))
    reasoning = counts.read_or_zero(outputs.get("reasoning_tokens", usage.get("reasoning_tokens")))
    total = CountReader().read(usage.get("total_tokens"))
    if input_tokens is not None and output_tokens is not None and total == input_tokens + output_tokens + reasoning:
        # xAI counts reasoning beside the completion; everywhere else it is inside, and this adds up for 0 alone.
        output_tokens += reasoning
    return Usage(
        input_tokens=input_tokens,
        cached_input_tokens=counts.read_or_zero(_cached_count(usage, inputs)),
        cache_write_input_tokens=counts.read_or_zero(inputs.get("cache_write_tokens")),
        output_tokens=output_tokens,
        reasoning_tokens=reasoning,
        implausible=counts.implausible,
    )


def _cached_count(usage: _Json, details: _Json) -> object:
    counts = (details.get("cached_tokens"), *map(usage.get, _CACHED_COUNT_NAMES))
    return next((count for count in counts if count is not None), None)
