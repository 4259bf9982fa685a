"""OpenAI Responses: `POST /v1/responses`."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson

from pointsman_server.simulator.answer import Answer, Citation, Hollow, ToolCall, add_counts, pieces
from pointsman_server.simulator.ask import Ask
from pointsman_server.simulator.behaviour import Dialect, Finish
from pointsman_server.simulator.dialects import openai_errors
from pointsman_server.simulator.dialects.dialect import Envelope, ErrorWords, Failure, Frame, sse
from pointsman_server.simulator.dialects.openai_responses_request import read_responses_request

_INCOMPLETE_REASONS = {Finish.LENGTH: "max_output_tokens", Finish.CONTENT_FILTER: "content_filter"}
_STATUSES = ("completed", "incomplete", "failed", "cancelled", "queued", "in_progress")
_OBFUSCATION = "Zc9wTpLsX2kRhV7q"
_ECHOED_WITH_DEFAULT: tuple[tuple[str, Any], ...] = (
    ("frequency_penalty", 0.0),
    ("max_tool_calls", None),
    ("metadata", {}),
    ("parallel_tool_calls", True),
    ("moderation", None),
    ("presence_penalty", 0.0),
    ("previous_response_id", None),
    ("prompt_cache_key", None),
    ("prompt_cache_retention", None),
    ("safety_identifier", None),
    ("store", True),
    ("temperature", 1.0),
    ("tool_choice", "auto"),
    ("tools", []),
    ("top_logprobs", 0),
    ("top_p", 1.0),
    ("truncation", "disabled"),
    ("user", None),
)


class OpenAIResponses:
    """See `WireDialect`."""

    dialect = Dialect.OPENAI_RESPONSES
    json_type = "application/json"
    stream_type = "text/event-stream; charset=utf-8"
    line_end = b"\n"
    done = b""
    late_event = (
        b"event: response.output_text.delta\n"
        b'data: {"type":"response.output_text.delta","content_index":0,"delta":"LATE","item_id":"msg_late",'
        b'"logprobs":[],"output_index":0,"sequence_number":999}\n\n'
    )

    def read(self, body: Mapping[str, Any], model: str, stream: bool | None) -> Ask:
        """See `WireDialect.read`."""
        return read_responses_request(body)

    def whole(self, answer: Answer, envelope: Envelope) -> bytes:
        """See `WireDialect.whole`."""
        response = {**_response(answer, envelope, _output(answer, envelope)), "billing": {"payer": "developer"}}
        return _ascii(orjson.dumps(response, option=orjson.OPT_INDENT_2))

    def stream(self, answer: Answer, envelope: Envelope) -> list[Frame]:
        """See `WireDialect.stream`."""
        writer = _StreamWriter()
        opening = {**_response(answer, envelope, []), **_UNFINISHED}
        writer.add("response.created", {"response": opening})
        writer.add("response.in_progress", {"response": opening})
        output = _output(answer, envelope)
        for index, item in enumerate(output or ()):
            _STREAM_ITEM[item["type"]](writer, index, item)
        response = _response(answer, envelope, output)
        writer.add(f"response.{response['status']}", {"response": response})
        return writer.frames

    def headers(self, envelope: Envelope) -> dict[str, str]:
        """See `WireDialect.headers`."""
        return openai_errors.request_headers(envelope)

    def error(
        self, status: int, failure: Failure, model: str, envelope: Envelope, words: ErrorWords | None = None
    ) -> bytes:
        """See `WireDialect.error`."""
        return openai_errors.error_body(_error_object(failure, model, words))

    def error_headers(self, failure: Failure, retry_after: str) -> dict[str, str]:
        """See `WireDialect.error_headers`."""
        return openai_errors.error_headers(failure, retry_after)

    def stream_error(self, envelope: Envelope, *, first: bool) -> bytes:
        """See `WireDialect.stream_error`. Before any content an `error` event, later a failed response."""
        error = openai_errors.error_object(Failure.OVERLOADED, "")
        said = {"code": "server_error", "message": error["message"]}
        if first:
            return sse({"type": "error", **said, "param": None, "sequence_number": 2}, "error")
        response = {"id": _response_id(envelope), "object": "response", "status": "failed", "error": said}
        failed = {**response, "incomplete_details": None, "output": [], "usage": None}
        return sse({"type": "response.failed", "response": failed, "sequence_number": 99}, "response.failed")

    def ping(self) -> bytes:
        """See `WireDialect.ping`."""
        return b'event: keepalive\ndata: {"type":"keepalive","sequence_number":3}\n\n'


_UNFINISHED = {"status": "in_progress", "completed_at": None, "incomplete_details": None, "error": None, "usage": None}


class _StreamWriter:
    """Writes numbered events that carry their name twice."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def add(self, kind: str, fields: Mapping[str, Any], tokens: int = 0) -> None:
        number = len(self.frames)
        self.frames.append(Frame(sse({"type": kind, **fields, "sequence_number": number}, kind), tokens))

    def add_delta(self, kind: str, place: Mapping[str, Any], piece: str) -> None:
        obfuscation = _OBFUSCATION[: 1 + len(self.frames) * 5 % len(_OBFUSCATION)]
        self.add(kind, {**place, "delta": piece, "obfuscation": obfuscation}, 1)


def _stream_reasoning(writer: _StreamWriter, index: int, item: dict[str, Any]) -> None:
    writer.add("response.output_item.added", {"item": {**item, "summary": []}, "output_index": index})
    for number, part in enumerate(item["summary"]):
        place = {"item_id": item["id"], "output_index": index, "summary_index": number}
        writer.add("response.reasoning_summary_part.added", {**place, "part": {"type": "summary_text", "text": ""}})
        for piece in pieces(part["text"]):
            writer.add_delta("response.reasoning_summary_text.delta", place, piece)
        writer.add("response.reasoning_summary_text.done", {**place, "text": part["text"]})
        writer.add("response.reasoning_summary_part.done", {**place, "part": part})
    writer.add("response.output_item.done", {"item": item, "output_index": index})


def _stream_message(writer: _StreamWriter, index: int, item: dict[str, Any]) -> None:
    opened = {**item, "status": "in_progress", "content": []}
    writer.add("response.output_item.added", {"item": opened, "output_index": index})
    for number, part in enumerate(item["content"] or ()):
        place = {"content_index": number, "item_id": item["id"], "output_index": index}
        _stream_part(writer, place, part)
    writer.add("response.output_item.done", {"item": item, "output_index": index})


def _stream_part(writer: _StreamWriter, place: Mapping[str, Any], part: dict[str, Any]) -> None:
    if part["type"] == "refusal":
        writer.add("response.content_part.added", {**place, "part": {**part, "refusal": ""}})
        for piece in pieces(part["refusal"]):
            writer.add_delta("response.refusal.delta", place, piece)
        writer.add("response.refusal.done", {**place, "refusal": part["refusal"]})
    else:
        writer.add("response.content_part.added", {**place, "part": {**part, "text": "", "annotations": []}})
        for piece in pieces(part["text"]):
            writer.add_delta("response.output_text.delta", {**place, "logprobs": []}, piece)
        for number, annotation in enumerate(part["annotations"]):
            added = {"annotation": annotation, "annotation_index": number, **place}
            writer.add("response.output_text.annotation.added", added)
        writer.add("response.output_text.done", {**place, "logprobs": [], "text": part["text"]})
    writer.add("response.content_part.done", {**place, "part": part})


def _stream_call(writer: _StreamWriter, index: int, item: dict[str, Any]) -> None:
    opened = {**item, "status": "in_progress", "arguments": ""}
    writer.add("response.output_item.added", {"item": opened, "output_index": index})
    place = {"item_id": item["id"], "output_index": index}
    for piece in pieces(item["arguments"]):
        writer.add_delta("response.function_call_arguments.delta", place, piece)
    writer.add("response.function_call_arguments.done", {**place, "arguments": item["arguments"]})
    writer.add("response.output_item.done", {"item": item, "output_index": index})


_STREAM_ITEM: dict[str, Callable[[_StreamWriter, int, dict[str, Any]], None]] = {
    "reasoning": _stream_reasoning,
    "message": _stream_message,
    "function_call": _stream_call,
}


def _response_id(envelope: Envelope) -> str:
    return f"resp_{envelope.key}{envelope.key[:18]}"


def _response(answer: Answer, envelope: Envelope, output: list[dict[str, Any]] | None) -> dict[str, Any]:
    body = answer.ask.body
    status, incomplete_reason = _status(answer)
    response: dict[str, Any] = {
        "id": _response_id(envelope),
        "object": "response",
        "created_at": envelope.created,
        "status": status,
        "background": False,
        "completed_at": envelope.created if status == "completed" else None,
        "error": {"code": "server_error", "message": "The model failed."} if status == "failed" else None,
        "incomplete_details": {"reason": incomplete_reason} if incomplete_reason else None,
        "instructions": body.get("instructions"),
        "max_output_tokens": body.get("max_output_tokens"),
        "model": answer.model,
        "output": output,
        "reasoning": {"effort": None, "summary": None, **(body.get("reasoning") or {})},
        "service_tier": "default",
        "text": {"format": {"type": "text"}, "verbosity": "medium", **(body.get("text") or {})},
    }
    for name, default in _ECHOED_WITH_DEFAULT:
        given = body.get(name)
        response[name] = default if given is None else given
    if not answer.counts.missing:
        response["usage"] = _usage(answer)
    return response


def _status(answer: Answer) -> tuple[str, str]:
    finish = answer.finish
    if isinstance(finish, Finish):
        reason = _INCOMPLETE_REASONS.get(finish, "")
        return ("incomplete" if reason else "completed"), reason
    return (finish, "") if finish in _STATUSES else ("incomplete", finish)


def _output(answer: Answer, envelope: Envelope) -> list[dict[str, Any]] | None:
    if answer.hollow is Hollow.NO_CHOICES:
        return []
    output: list[dict[str, Any]] = []
    if answer.reasoning:
        output.append(_reasoning_item(answer, envelope))
    if answer.text or answer.refusal or not answer.tool_calls:
        output.append(_message_item(answer, envelope))
    for index, call in enumerate(answer.tool_calls):
        output.append(_call_item(call, envelope, index))
    return output


def _reasoning_item(answer: Answer, envelope: Envelope) -> dict[str, Any]:
    item: dict[str, Any] = {"id": "rs_" + envelope.key + "00", "type": "reasoning"}
    if "reasoning.encrypted_content" in (answer.ask.body.get("include") or ()):
        item["encrypted_content"] = base64.urlsafe_b64encode(answer.ask.digest("reasoning")).decode()
    summary = [{"type": "summary_text", "text": answer.reasoning}] if answer.shows_reasoning else []
    return {**item, "summary": summary}


def _message_item(answer: Answer, envelope: Envelope) -> dict[str, Any]:
    if answer.refusal:
        content: list[dict[str, Any]] | None = [{"type": "refusal", "refusal": answer.refusal}]
    elif answer.hollow is Hollow.NULL_CONTENT:
        content = None
    elif answer.hollow is Hollow.BLOCKED_PROMPT:
        content = []
    else:
        annotations = [_annotation(citation) for citation in answer.citations]
        content = [{"type": "output_text", "annotations": annotations, "logprobs": [], "text": answer.text}]
    status = "incomplete" if _status(answer)[0] == "incomplete" else "completed"
    message_id = "msg_" + envelope.key + "01"
    return {"id": message_id, "type": "message", "status": status, "content": content, "role": "assistant"}


def _call_item(call: ToolCall, envelope: Envelope, index: int) -> dict[str, Any]:
    return {
        "id": f"fc_{envelope.key}{index + 2:02x}",
        "type": "function_call",
        "status": "completed",
        "arguments": call.arguments_json,
        "call_id": "call_" + call.key[:24],
        "name": call.name,
    }


def _annotation(citation: Citation) -> dict[str, Any]:
    place = {"end_index": citation.end_index, "start_index": citation.start_index}
    return {"type": "url_citation", **place, "title": citation.title, "url": citation.url}


def _usage(answer: Answer) -> dict[str, Any]:
    counts = answer.counts
    usage: dict[str, Any] = {
        "input_tokens": counts.input,
        "input_tokens_details": {"cache_write_tokens": counts.cache_write, "cached_tokens": counts.cached},
        "output_tokens": counts.output,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
    }
    total = add_counts(counts.input, counts.output)
    if total is not None:
        usage["total_tokens"] = total
    return usage


def _error_object(failure: Failure, model: str, words: ErrorWords | None) -> dict[str, str | None]:
    error = openai_errors.error_object(failure, model, words)
    if words is None and failure is Failure.MODEL:
        return {**error, "message": f"The requested model '{model}' does not exist.", "param": "model"}
    if words is None and failure is Failure.CONTEXT:
        message = "Your input exceeds the context window of this model. Please adjust your input and try again."
        return {**error, "message": message, "param": "input"}
    return error


def _ascii(body: bytes) -> bytes:
    """The body with everything but ASCII as escapes, as this endpoint writes whole answers."""
    if body.isascii():
        return body
    return re.sub(r"[^\x00-\x7f]", lambda found: _escape(found[0]), body.decode()).encode()


def _escape(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at] << 8 | units[at + 1]:04x}" for at in range(0, len(units), 2))
