"""Cohere v2: `POST /v2/chat`."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

import orjson

from pointsman_server.simulator.answer import Answer, Citation, Hollow, ToolCall, add_counts, pieces
from pointsman_server.simulator.ask import Ask
from pointsman_server.simulator.behaviour import Dialect, Finish
from pointsman_server.simulator.dialects.cohere_request import read_chat_request
from pointsman_server.simulator.dialects.dialect import (
    Envelope,
    ErrorWords,
    Failure,
    Frame,
    escape_markup,
    sse,
)

_FINISH_REASONS = {
    Finish.STOP: "COMPLETE",
    Finish.LENGTH: "MAX_TOKENS",
    Finish.TOOL_CALLS: "TOOL_CALL",
    Finish.STOP_SEQUENCE: "STOP_SEQUENCE",
    Finish.CONTENT_FILTER: "ERROR",
    Finish.REFUSAL: "ERROR",
}
_ERRORS = {
    Failure.INVALID: "invalid request: the request body is not valid.",
    Failure.CONTEXT: (
        "too many tokens: size limit exceeded by 3072 tokens. Try using shorter or fewer inputs. "
        "The limit for this model is 128000 tokens."
    ),
    Failure.KEY: "Incorrect API key provided: ***********. You can find your API key in the dashboard.",
    Failure.FORBIDDEN: "Your API key is not allowed to use this endpoint.",
    Failure.MODEL: (
        "model '{model}' not found, make sure the correct model ID was used and that you have access to the model."
    ),
    Failure.TOO_LARGE: "request body too large",
    Failure.RATE: "You are using a Trial key, which is limited to 20 API calls / minute.",
    Failure.QUOTA: "Your account has reached its monthly spending limit; it can be raised in the billing settings.",
    Failure.SERVER: "internal server error",
    Failure.UNAVAILABLE: "service temporarily unavailable, please try again",
    Failure.TIMEOUT: "request timed out",
    Failure.OVERLOADED: "the model is overloaded, please try again",
}
_TEMPLATE_TOKENS = 66
"""What the provider's own prompt template adds to the input it counts, but does not bill."""
_MAX_SENSIBLE_TOKENS = 10_000_000
_ESCAPED = "<>&"


class Cohere:
    """See `WireDialect`."""

    dialect = Dialect.COHERE
    json_type = "application/json"
    stream_type = "text/event-stream"
    line_end = b"\n"
    done = b"data: [DONE]\n\n"
    late_event = (
        b"event: content-delta\n"
        b'data: {"type":"content-delta","index":0,"delta":{"message":{"content":{"text":"LATE"}}}}\n\n'
    )

    def read(self, body: Mapping[str, Any], model: str, stream: bool | None) -> Ask:
        """See `WireDialect.read`."""
        return read_chat_request(body)

    def whole(self, answer: Answer, envelope: Envelope) -> bytes:
        """See `WireDialect.whole`."""
        document = {"id": _id(envelope), "message": _message(answer), "finish_reason": _finish_reason(answer)}
        if not answer.counts.missing:
            document["usage"] = _usage(answer)
        return escape_markup(orjson.dumps(document), _ESCAPED)

    def stream(self, answer: Answer, envelope: Envelope) -> list[Frame]:
        """See `WireDialect.stream`."""
        writer = _StreamWriter()
        opening = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
        writer.add("message-start", {"delta": {"message": opening}}, first={"id": _id(envelope)})
        for piece in pieces(_tool_plan(answer)):
            writer.add_message("tool-plan-delta", {"tool_plan": piece}, 1)
        _stream_content(writer, answer)
        for index, call in enumerate(answer.tool_calls):
            _stream_call(writer, index, call)
        ending: dict[str, Any] = {"finish_reason": _finish_reason(answer)}
        if not answer.counts.missing:
            ending["usage"] = _usage(answer)
        writer.add("message-end", {"delta": ending})
        writer.frames.append(Frame(self.done))
        return writer.frames

    def headers(self, envelope: Envelope) -> dict[str, str]:
        """See `WireDialect.headers`."""
        return {}

    def error(
        self, status: int, failure: Failure, model: str, envelope: Envelope, words: ErrorWords | None = None
    ) -> bytes:
        """See `WireDialect.error`."""
        error = {"id": _id(envelope)}
        if failure is Failure.CONTEXT:
            error["error_type"] = "TOO_MANY_TOKENS"
        error["message"] = words.message if words else _ERRORS[failure].replace("{model}", model)
        return orjson.dumps(error)

    def error_headers(self, failure: Failure, retry_after: str) -> dict[str, str]:
        """See `WireDialect.error_headers`."""
        headers = {"retry-after": retry_after} if retry_after else {}
        if failure is Failure.RATE:
            headers.update({"x-trial-endpoint-call-limit": "20", "x-trial-endpoint-call-remaining": "0"})
        return headers

    def stream_error(self, envelope: Envelope, *, first: bool) -> bytes:
        """See `WireDialect.stream_error`."""
        delta = {"error": _ERRORS[Failure.OVERLOADED], "finish_reason": "ERROR"}
        return sse({"type": "message-end", "id": _id(envelope), "delta": delta}, "message-end") + self.done

    def ping(self) -> bytes:
        """See `WireDialect.ping`."""
        return b": ping\n\n"


class _StreamWriter:
    """Writes events; what is a list in the whole answer is one object in a delta."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def add(
        self, kind: str, fields: Mapping[str, Any], tokens: int = 0, first: Mapping[str, Any] | None = None
    ) -> None:
        data = sse({**(first or {}), "type": kind, **fields}, kind)
        self.frames.append(Frame(escape_markup(data, _ESCAPED), tokens))

    def add_message(self, kind: str, message: Mapping[str, Any], tokens: int = 0, index: int | None = None) -> None:
        place = {} if index is None else {"index": index}
        self.add(kind, {**place, "delta": {"message": message}}, tokens)


def _stream_content(writer: _StreamWriter, answer: Answer) -> None:
    index = 0
    if answer.shows_reasoning:
        _stream_block(writer, index, "thinking", answer.reasoning)
        writer.add("content-end", {"index": index})
        index += 1
    text = answer.text or answer.refusal
    if text or answer.hollow is Hollow.EMPTY_TEXT:
        _stream_block(writer, index, "text", text)
        for number, citation in enumerate(answer.citations):
            writer.add_message("citation-start", {"citations": _citation(citation)}, index=number)
            writer.add("citation-end", {"index": number})
        writer.add("content-end", {"index": index})
    elif answer.hollow is Hollow.NULL_CONTENT:
        writer.add_message("content-start", {"content": None}, index=index)
        writer.add("content-end", {"index": index})


def _stream_block(writer: _StreamWriter, index: int, kind: str, text: str) -> None:
    writer.add_message("content-start", {"content": {"type": kind, kind: ""}}, index=index)
    for piece in pieces(text):
        writer.add_message("content-delta", {"content": {kind: piece}}, 1, index)


def _stream_call(writer: _StreamWriter, index: int, call: ToolCall) -> None:
    writer.add_message("tool-call-start", {"tool_calls": _tool_call(call, "")}, 1, index)
    arguments = "" if call.arguments_json == "{}" else call.arguments_json
    for piece in pieces(arguments):
        writer.add_message("tool-call-delta", {"tool_calls": {"function": {"arguments": piece}}}, 1, index)
    writer.add("tool-call-end", {"index": index})


def _id(envelope: Envelope) -> str:
    return str(uuid.UUID(envelope.key))


def _finish_reason(answer: Answer) -> str:
    return _FINISH_REASONS[answer.finish] if isinstance(answer.finish, Finish) else answer.finish


def _message(answer: Answer) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant"}
    content: list[dict[str, str]] = []
    if answer.shows_reasoning:
        content.append({"type": "thinking", "thinking": answer.reasoning})
    if answer.text or answer.refusal or answer.hollow is Hollow.EMPTY_TEXT:
        content.append({"type": "text", "text": answer.text or answer.refusal})
    if content or not answer.tool_calls:
        message["content"] = None if answer.hollow is Hollow.NULL_CONTENT else content
    if answer.tool_calls:
        message["tool_plan"] = _tool_plan(answer)
        message["tool_calls"] = [_tool_call(call, call.arguments_json) for call in answer.tool_calls]
    if answer.citations:
        message["citations"] = [_citation(citation) for citation in answer.citations]
    return message


def _tool_plan(answer: Answer) -> str:
    names = " and ".join(dict.fromkeys(call.name for call in answer.tool_calls))
    return f"I will use the {names} tool." if names else ""


def _tool_call(call: ToolCall, arguments: str) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments}
    return {"id": f"{call.name}_{call.key[:12]}", "type": "function", "function": function}


def _citation(citation: Citation) -> dict[str, Any]:
    document = {"id": citation.document_id, "text": citation.quoted_text}
    if citation.title:
        document["title"] = citation.title
    if citation.url:
        document["url"] = citation.url
    source = {"type": "document", "id": citation.document_id, "document": document}
    place = {"start": citation.start_index, "end": citation.end_index}
    return {**place, "text": citation.quoted_text, "sources": [source], "type": "TEXT_CONTENT"}


def _usage(answer: Answer) -> dict[str, Any]:
    counts = answer.counts
    makes_sense = isinstance(counts.input, int) and 0 <= counts.input <= _MAX_SENSIBLE_TOKENS
    tokens: dict[str, Any] = {
        "input_tokens": add_counts(counts.input, _TEMPLATE_TOKENS) if makes_sense else counts.input,
        "output_tokens": counts.output,
    }
    if counts.reasoning:
        tokens["reasoning_tokens"] = counts.reasoning
    usage: dict[str, Any] = {
        "billed_units": {"input_tokens": counts.input, "output_tokens": counts.output},
        "tokens": tokens,
    }
    if counts.cached:
        usage["cached_tokens"] = counts.cached
    return usage
