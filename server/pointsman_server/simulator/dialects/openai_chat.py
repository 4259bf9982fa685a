"""OpenAI chat completions: `POST /v1/chat/completions`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from pointsman_server.simulator.answer import Answer, Citation, Hollow, ToolCall, add_counts, pieces
from pointsman_server.simulator.ask import Ask, ToolDemand
from pointsman_server.simulator.behaviour import Dialect, Finish
from pointsman_server.simulator.dialects import openai_errors
from pointsman_server.simulator.dialects.dialect import Envelope, ErrorWords, Failure, Frame, sse
from pointsman_server.simulator.dialects.openai_chat_request import read_chat_request

_FINISH_REASONS = {
    Finish.STOP: "stop",
    Finish.LENGTH: "length",
    Finish.TOOL_CALLS: "tool_calls",
    Finish.STOP_SEQUENCE: "stop",
    Finish.CONTENT_FILTER: "content_filter",
    Finish.REFUSAL: "stop",
}
_PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
_FINGERPRINT = "fp_5151c1a7ed"
_OBFUSCATION = "q7VhRk2XsLpT9wZc"
_LOG_PROBABILITIES = 20


class OpenAIChat:
    """See `WireDialect`."""

    dialect = Dialect.OPENAI_CHAT
    json_type = "application/json"
    stream_type = "text/event-stream; charset=utf-8"
    line_end = b"\n"
    done = b"data: [DONE]\n\n"
    late_event = (
        b'data: {"id":"chatcmpl-late","object":"chat.completion.chunk","created":0,"model":"late",'
        b'"choices":[{"index":0,"delta":{"content":"LATE"},"finish_reason":null}]}\n\n'
    )

    def read(self, body: Mapping[str, Any], model: str, stream: bool | None) -> Ask:
        """See `WireDialect.read`."""
        return read_chat_request(body)

    def whole(self, answer: Answer, envelope: Envelope) -> bytes:
        """See `WireDialect.whole`."""
        choice = {
            "index": 0,
            "message": _message(answer),
            "logprobs": _log_probabilities(answer, pieces(answer.text)),
            "finish_reason": _finish_reason(answer),
        }
        completion = {
            "id": _id(envelope),
            "object": "chat.completion",
            "created": envelope.created,
            "model": answer.model,
            "choices": [] if answer.hollow is Hollow.NO_CHOICES else [choice],
        }
        if not answer.counts.missing:
            completion["usage"] = _usage(answer)
        completion["service_tier"] = "default"
        completion["system_fingerprint"] = _FINGERPRINT
        return orjson.dumps(completion, option=_PRETTY)

    def stream(self, answer: Answer, envelope: Envelope) -> list[Frame]:
        """See `WireDialect.stream`."""
        writer = _StreamWriter(answer, envelope)
        if answer.hollow is Hollow.NO_CHOICES:
            writer.add_chunk([])
        else:
            _stream_choice(writer, answer)
        if writer.reports_usage and not answer.counts.missing:
            writer.add_chunk([], _usage(answer))
        writer.frames.append(Frame(self.done))
        return writer.frames

    def headers(self, envelope: Envelope) -> dict[str, str]:
        """See `WireDialect.headers`."""
        return openai_errors.request_headers(envelope)

    def error(
        self, status: int, failure: Failure, model: str, envelope: Envelope, words: ErrorWords | None = None
    ) -> bytes:
        """See `WireDialect.error`."""
        return openai_errors.error_body(openai_errors.error_object(failure, model, words))

    def error_headers(self, failure: Failure, retry_after: str) -> dict[str, str]:
        """See `WireDialect.error_headers`."""
        return openai_errors.error_headers(failure, retry_after)

    def stream_error(self, envelope: Envelope, *, first: bool) -> bytes:
        """See `WireDialect.stream_error`."""
        return sse({"error": openai_errors.error_object(Failure.OVERLOADED, "")})

    def ping(self) -> bytes:
        """See `WireDialect.ping`."""
        return b": ping\n\n"


class _StreamWriter:
    """Writes chunks; usage is `null` in all but the last when it was asked for, and absent when it was not."""

    def __init__(self, answer: Answer, envelope: Envelope) -> None:
        options = answer.ask.body.get("stream_options") or {}
        self.reports_usage = bool(options.get("include_usage"))
        self._obfuscates = options.get("include_obfuscation", True)
        self._head = {
            "id": _id(envelope),
            "object": "chat.completion.chunk",
            "created": envelope.created,
            "model": answer.model,
            "service_tier": "default",
            "system_fingerprint": _FINGERPRINT,
        }
        self.frames: list[Frame] = []

    def add_delta(
        self,
        delta: Mapping[str, Any],
        tokens: int = 0,
        finish_reason: str | None = None,
        log_probabilities: Mapping[str, Any] | None = None,
    ) -> None:
        choice = {"index": 0, "delta": delta, "logprobs": log_probabilities, "finish_reason": finish_reason}
        self.add_chunk([choice], None, tokens)

    def add_chunk(self, choices: list[Any], usage: Mapping[str, Any] | None = None, tokens: int = 0) -> None:
        chunk = {**self._head, "choices": choices}
        if self.reports_usage:
            chunk["usage"] = usage
        if self._obfuscates:
            chunk["obfuscation"] = _OBFUSCATION[: 1 + len(self.frames) * 5 % len(_OBFUSCATION)]
        self.frames.append(Frame(sse(chunk), tokens))


def _stream_choice(writer: _StreamWriter, answer: Answer) -> None:
    opening: dict[str, Any] = {"role": "assistant", "content": "", "refusal": None}
    if not answer.text and (answer.tool_calls or answer.hollow is Hollow.NULL_CONTENT or answer.refusal):
        opening["content"] = None
    writer.add_delta(opening)
    if answer.shows_reasoning:
        for piece in pieces(answer.reasoning):
            writer.add_delta({"reasoning_content": piece}, 1)
    for piece in pieces(answer.text):
        writer.add_delta({"content": piece}, 1, log_probabilities=_log_probabilities(answer, [piece]))
    for piece in pieces(answer.refusal):
        writer.add_delta({"refusal": piece}, 1)
    for index, call in enumerate(answer.tool_calls):
        _stream_call(writer, index, call)
    if answer.citations:
        writer.add_delta({"annotations": [_annotation(citation) for citation in answer.citations]})
    writer.add_delta({}, finish_reason=_finish_reason(answer))


def _log_probabilities(answer: Answer, tokens: list[str]) -> dict[str, Any] | None:
    """Where they were asked for; made of the tokens' first letters, so that each answer has its own."""
    if answer.ask.body.get("logprobs") is not True or not tokens:
        return None
    return {
        "content": [
            {
                "token": token,
                "logprob": -(ord(token[0]) % _LOG_PROBABILITIES) / 50,
                "bytes": list(token.encode()),
                "top_logprobs": [],
            }
            for token in tokens
        ],
        "refusal": None,
    }


def _stream_call(writer: _StreamWriter, index: int, call: ToolCall) -> None:
    writer.add_delta({"tool_calls": [{"index": index, **_tool_call(call, "")}]}, 1)
    for piece in pieces(call.arguments_json):
        writer.add_delta({"tool_calls": [{"index": index, "function": {"arguments": piece}}]}, 1)


def _id(envelope: Envelope) -> str:
    return "chatcmpl-" + envelope.key[:29]


def _finish_reason(answer: Answer) -> str:
    if answer.finish is Finish.TOOL_CALLS and answer.ask.tool_demand is ToolDemand.NAMED:
        # The provider says so when the call of one function was forced.
        return "stop"
    return _FINISH_REASONS[answer.finish] if isinstance(answer.finish, Finish) else answer.finish


def _message(answer: Answer) -> dict[str, Any]:
    empty = None if answer.tool_calls or answer.refusal or answer.hollow is Hollow.NULL_CONTENT else ""
    message: dict[str, Any] = {"role": "assistant", "content": answer.text or empty}
    if answer.shows_reasoning:
        # OpenAI itself shows none; the providers that speak its dialect do so under this name.
        message["reasoning_content"] = answer.reasoning
    if answer.tool_calls:
        message["tool_calls"] = [_tool_call(call, call.arguments_json) for call in answer.tool_calls]
    message["refusal"] = answer.refusal or None
    message["annotations"] = [_annotation(citation) for citation in answer.citations]
    return message


def _tool_call(call: ToolCall, arguments: str) -> dict[str, Any]:
    function = {"name": call.name, "arguments": arguments}
    return {"id": "call_" + call.key[:24], "type": "function", "function": function}


def _annotation(citation: Citation) -> dict[str, Any]:
    place = {"end_index": citation.end_index, "start_index": citation.start_index}
    return {"type": "url_citation", "url_citation": {**place, "title": citation.title, "url": citation.url}}


def _usage(answer: Answer) -> dict[str, Any]:
    counts = answer.counts
    usage: dict[str, Any] = {"prompt_tokens": counts.input, "completion_tokens": counts.output}
    total = add_counts(counts.input, counts.output)
    if total is not None:
        usage["total_tokens"] = total
    usage["prompt_tokens_details"] = {"cached_tokens": counts.cached, "audio_tokens": 0}
    if counts.cache_write:
        usage["prompt_tokens_details"]["cache_write_tokens"] = counts.cache_write
    usage["completion_tokens_details"] = {
        "reasoning_tokens": counts.reasoning,
        "audio_tokens": 0,
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    }
    return usage
