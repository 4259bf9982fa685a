"""Anthropic Messages: `POST /v1/messages`."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import orjson

from pointsman_server.simulator.answer import Answer, Citation, Hollow, ToolCall, pieces, subtract_counts
from pointsman_server.simulator.ask import Ask
from pointsman_server.simulator.behaviour import Dialect, Finish
from pointsman_server.simulator.dialects.anthropic_request import read_messages_request
from pointsman_server.simulator.dialects.dialect import Envelope, ErrorWords, Failure, Frame

_STOP_REASONS = {
    Finish.STOP: "end_turn",
    Finish.LENGTH: "max_tokens",
    Finish.TOOL_CALLS: "tool_use",
    Finish.STOP_SEQUENCE: "stop_sequence",
    Finish.CONTENT_FILTER: "refusal",
    Finish.REFUSAL: "refusal",
}
_ERRORS = {
    Failure.INVALID: ("invalid_request_error", "messages: Input does not match the expected shape."),
    Failure.CONTEXT: ("invalid_request_error", "prompt is too long: 215034 tokens > 200000 maximum"),
    Failure.KEY: ("authentication_error", "invalid x-api-key"),
    Failure.FORBIDDEN: ("permission_error", "Your API key does not have permission to use the specified resource."),
    Failure.MODEL: ("not_found_error", "model: {model}"),
    Failure.TOO_LARGE: ("request_too_large", "Request exceeds the maximum size"),
    Failure.RATE: ("rate_limit_error", "This request would exceed the rate limit for your organization."),
    Failure.QUOTA: ("billing_error", "Your credit balance is too low to access the Anthropic API."),
    Failure.SERVER: ("api_error", "Internal server error"),
    Failure.UNAVAILABLE: ("api_error", "Service temporarily unavailable"),
    Failure.TIMEOUT: ("timeout_error", "Request timed out"),
    Failure.OVERLOADED: ("overloaded_error", "Overloaded"),
}
_FINAL_FAILURES = (Failure.INVALID, Failure.CONTEXT, Failure.KEY, Failure.FORBIDDEN, Failure.MODEL)
_PING = b'event: ping\ndata: {"type": "ping"}\n\n'
_PADDING_CYCLE = 16


class AnthropicMessages:
    """See `WireDialect`."""

    dialect = Dialect.ANTHROPIC
    json_type = "application/json"
    stream_type = "text/event-stream; charset=utf-8"
    line_end = b"\n"
    done = b""
    late_event = (
        b"event: content_block_delta\n"
        b'data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"LATE"}}\n\n'
    )

    def read(self, body: Mapping[str, Any], model: str, stream: bool | None) -> Ask:
        """See `WireDialect.read`."""
        return read_messages_request(body)

    def whole(self, answer: Answer, envelope: Envelope) -> bytes:
        """See `WireDialect.whole`."""
        message = _message(answer, envelope)
        message["content"] = _whole_content(answer)
        message.update(_ending(answer))
        if not answer.counts.missing:
            message["usage"] = _usage(answer)
        return orjson.dumps(message)

    def stream(self, answer: Answer, envelope: Envelope) -> list[Frame]:
        """See `WireDialect.stream`."""
        writer = _StreamWriter()
        message = {**_message(answer, envelope), "content": [], "stop_reason": None, "stop_sequence": None}
        if not answer.counts.missing:
            message["usage"] = _opening_usage(answer)
        writer.add("message_start", {"message": message})
        _stream_blocks(writer, answer)
        closing: dict[str, Any] = {"delta": _ending(answer)}
        if not answer.counts.missing:
            usage = _usage(answer)
            closing["usage"] = {key: usage[key] for key in _CLOSING_USAGE}
        writer.add("message_delta", closing)
        writer.add("message_stop", {})
        return writer.frames

    def headers(self, envelope: Envelope) -> dict[str, str]:
        """See `WireDialect.headers`."""
        return {"request-id": _request_id(envelope)}

    def error(
        self, status: int, failure: Failure, model: str, envelope: Envelope, words: ErrorWords | None = None
    ) -> bytes:
        """See `WireDialect.error`."""
        kind, message = _ERRORS[failure]
        said = words.message if words else message.replace("{model}", model)
        error = {"type": kind, "message": said}
        return orjson.dumps({"type": "error", "error": error, "request_id": _request_id(envelope)})

    def error_headers(self, failure: Failure, retry_after: str) -> dict[str, str]:
        """See `WireDialect.error_headers`."""
        if failure in _FINAL_FAILURES:
            return {"x-should-retry": "false"}
        return {"retry-after": retry_after} if retry_after else {}

    def stream_error(self, envelope: Envelope, *, first: bool) -> bytes:
        """See `WireDialect.stream_error`."""
        return b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'

    def ping(self) -> bytes:
        """See `WireDialect.ping`."""
        return _PING


_CLOSING_USAGE = (
    "input_tokens",
    "cache_creation_input_tokens",
    "cache_read_input_tokens",
    "output_tokens",
    "output_tokens_details",
)


class _StreamWriter:
    """Writes events as the provider does: a name line, blanks of changing number before the last brace."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def add(self, kind: str, fields: Mapping[str, Any], tokens: int = 0) -> None:
        data = orjson.dumps({"type": kind, **fields})
        padding = b" " * (len(self.frames) * 7 % _PADDING_CYCLE)
        self.frames.append(Frame(b"event: " + kind.encode() + b"\ndata: " + data[:-1] + padding + b"}\n\n", tokens))

    def add_delta(self, index: int, delta: Mapping[str, Any], tokens: int = 1) -> None:
        self.add("content_block_delta", {"index": index, "delta": delta}, tokens)

    def add_ping(self) -> None:
        self.frames.append(Frame(_PING))


def _request_id(envelope: Envelope) -> str:
    return "req_011" + envelope.key[:21]


def _message(answer: Answer, envelope: Envelope) -> dict[str, Any]:
    message_id = "msg_01" + envelope.key[:22]
    return {"model": answer.model, "id": message_id, "type": "message", "role": "assistant"}


def _ending(answer: Answer) -> dict[str, Any]:
    reason = answer.finish
    return {
        "stop_reason": _STOP_REASONS[reason] if isinstance(reason, Finish) else reason,
        "stop_sequence": answer.stop_sequence,
        "stop_details": None,
    }


def _usage(answer: Answer) -> dict[str, Any]:
    counts = answer.counts
    return {
        "input_tokens": subtract_counts(counts.input, counts.cached, counts.cache_write),
        "cache_creation_input_tokens": counts.cache_write,
        "cache_read_input_tokens": counts.cached,
        "cache_creation": {"ephemeral_5m_input_tokens": counts.cache_write, "ephemeral_1h_input_tokens": 0},
        "output_tokens": counts.output,
        "output_tokens_details": {"thinking_tokens": counts.reasoning},
        "service_tier": "standard",
        "inference_geo": "not_available",
    }


def _opening_usage(answer: Answer) -> dict[str, Any]:
    usage = _usage(answer)
    del usage["output_tokens_details"]
    # The first count is a guess of the provider; only the one at the end is true.
    return {**usage, "output_tokens": 1}


def _whole_content(answer: Answer) -> list[dict[str, Any]] | None:
    if answer.hollow is Hollow.NULL_CONTENT:
        return None
    if answer.hollow is Hollow.EMPTY_TEXT:
        return [{"type": "text", "text": ""}]
    content: list[dict[str, Any]] = []
    if answer.shows_reasoning:
        content.append({"type": "thinking", "thinking": answer.reasoning, "signature": _signature(answer)})
    text = answer.text or answer.refusal
    if text:
        block: dict[str, Any] = {"type": "text", "text": text}
        if answer.citations:
            block["citations"] = [_citation(citation) for citation in answer.citations]
        content.append(block)
    content.extend({**_tool_use(call), "input": call.arguments} for call in answer.tool_calls)
    return content


def _stream_blocks(writer: _StreamWriter, answer: Answer) -> None:
    index = 0
    if answer.shows_reasoning:
        _stream_thinking(writer, index, answer)
        index += 1
    text = answer.text or answer.refusal
    if text or answer.hollow is Hollow.EMPTY_TEXT:
        _stream_text(writer, index, text, answer.citations)
        index += 1
    for call in answer.tool_calls:
        _stream_tool_use(writer, index, call)
        index += 1


def _start_block(writer: _StreamWriter, index: int, block: Mapping[str, Any]) -> None:
    writer.add("content_block_start", {"index": index, "content_block": block})
    if index == 0:
        writer.add_ping()


def _stream_thinking(writer: _StreamWriter, index: int, answer: Answer) -> None:
    _start_block(writer, index, {"type": "thinking", "thinking": "", "signature": ""})
    for piece in pieces(answer.reasoning):
        writer.add_delta(index, {"type": "thinking_delta", "thinking": piece})
    writer.add_delta(index, {"type": "signature_delta", "signature": _signature(answer)}, tokens=0)
    writer.add("content_block_stop", {"index": index})


def _stream_text(writer: _StreamWriter, index: int, text: str, citations: tuple[Citation, ...]) -> None:
    block = {"citations": [], "type": "text", "text": ""} if citations else {"type": "text", "text": ""}
    _start_block(writer, index, block)
    for citation in citations:
        writer.add_delta(index, {"type": "citations_delta", "citation": _citation(citation)}, tokens=0)
    for piece in pieces(text):
        writer.add_delta(index, {"type": "text_delta", "text": piece})
    writer.add("content_block_stop", {"index": index})


def _stream_tool_use(writer: _StreamWriter, index: int, call: ToolCall) -> None:
    _start_block(writer, index, {**_tool_use(call), "input": {}})
    arguments = "" if call.arguments_json == "{}" else call.arguments_json
    for number, piece in enumerate(("", *pieces(arguments))):
        writer.add_delta(index, {"type": "input_json_delta", "partial_json": piece}, tokens=min(number, 1))
    writer.add("content_block_stop", {"index": index})


def _tool_use(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": "toolu_01" + call.key[:22], "name": call.name, "caller": {"type": "direct"}}


def _signature(answer: Answer) -> str:
    return base64.b64encode(answer.ask.digest("signature")).decode()


def _citation(citation: Citation) -> dict[str, Any]:
    if not citation.url:
        return {
            "type": "char_location",
            "cited_text": citation.quoted_text,
            "document_index": 0,
            "document_title": citation.title or None,
            "file_id": citation.document_id or None,
            "start_char_index": citation.start_index,
            "end_char_index": citation.end_index,
        }
    return {
        "type": "web_search_result_location",
        "cited_text": citation.quoted_text,
        "url": citation.url,
        "title": citation.title,
        "encrypted_index": base64.b64encode(citation.url.encode()).decode(),
    }
