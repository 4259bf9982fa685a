"""Gemini: `POST /v1beta/models/{model}:generateContent` and `:streamGenerateContent?alt=sse`."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import orjson

from pointsman_server.simulator.answer import Answer, Hollow, add_counts, pieces, subtract_counts
from pointsman_server.simulator.ask import Ask
from pointsman_server.simulator.behaviour import Count, Dialect, Finish
from pointsman_server.simulator.dialects.dialect import Envelope, ErrorWords, Failure, Frame, escape_markup
from pointsman_server.simulator.dialects.gemini_request import read_generate_request

_FINISH_REASONS = {
    Finish.STOP: "STOP",
    Finish.LENGTH: "MAX_TOKENS",
    Finish.TOOL_CALLS: "STOP",
    Finish.STOP_SEQUENCE: "STOP",
    Finish.CONTENT_FILTER: "SAFETY",
    Finish.REFUSAL: "PROHIBITED_CONTENT",
}
_ERRORS = {
    Failure.INVALID: ("INVALID_ARGUMENT", "Request contains an invalid argument."),
    Failure.CONTEXT: (
        "INVALID_ARGUMENT",
        "The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).",
    ),
    Failure.KEY: ("UNAUTHENTICATED", "Request had invalid authentication credentials."),
    Failure.FORBIDDEN: ("PERMISSION_DENIED", "The caller does not have permission"),
    Failure.MODEL: (
        "NOT_FOUND",
        "models/{model} is not found for API version v1beta, or is not supported for generateContent. Call "
        "ModelService.ListModels to see the list of available models and their supported methods.",
    ),
    Failure.TOO_LARGE: ("INVALID_ARGUMENT", "Request payload size exceeds the limit: 20971520 bytes."),
    Failure.RATE: (
        "RESOURCE_EXHAUSTED",
        "You exceeded your current quota, please check your plan and billing details. \n* Quota exceeded for metric: "
        "generativelanguage.googleapis.com/generate_content_requests_per_minute, limit: 1000, model: {model}\n"
        "Please retry in 2s.",
    ),
    Failure.QUOTA: (
        "RESOURCE_EXHAUSTED",
        "Your prepayment credits are depleted. Please manage your project and billing to go on.",
    ),
    Failure.SERVER: ("INTERNAL", "An internal error has occurred. Please retry or report it."),
    Failure.UNAVAILABLE: ("UNAVAILABLE", "The service is currently unavailable."),
    Failure.TIMEOUT: ("DEADLINE_EXCEEDED", "Deadline expired before operation could complete."),
    Failure.OVERLOADED: ("UNAVAILABLE", "The model is overloaded. Please try again later."),
}
_BAD_KEY_AT_400 = "API key not valid. Please pass a valid API key."
_PRETTY = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
_TOKENS_PER_CHUNK = 8
_ESCAPED = "<>"


class Gemini:
    """See `WireDialect`."""

    dialect = Dialect.GEMINI
    json_type = "application/json; charset=UTF-8"
    stream_type = "text/event-stream"
    line_end = b"\r\n"
    done = b""
    late_event = (
        b'data: {"candidates": [{"content": {"parts": [{"text": "LATE"}],"role": "model"},"index": 0}]}\r\n\r\n'
    )

    def read(self, body: Mapping[str, Any], model: str, stream: bool | None) -> Ask:
        """See `WireDialect.read`."""
        return read_generate_request(body, model, bool(stream))

    def whole(self, answer: Answer, envelope: Envelope) -> bytes:
        """See `WireDialect.whole`."""
        document: dict[str, Any] = {}
        if answer.hollow is Hollow.BLOCKED_PROMPT:
            document["promptFeedback"] = _FEEDBACK
        else:
            document["candidates"] = [] if answer.hollow is Hollow.NO_CHOICES else [_whole_candidate(answer)]
        if not answer.counts.missing:
            document["usageMetadata"] = _usage(answer, _visible_output(answer), answer.counts.reasoning)
        return escape_markup(orjson.dumps({**document, **_names(answer, envelope)}, option=_PRETTY), _ESCAPED)

    def stream(self, answer: Answer, envelope: Envelope) -> list[Frame]:
        """See `WireDialect.stream`."""
        chunks = _StreamWriter(answer, envelope)
        if answer.hollow is Hollow.BLOCKED_PROMPT:
            chunks.add({"promptFeedback": _FEEDBACK}, 0)
        elif answer.hollow is Hollow.NO_CHOICES:
            chunks.add({"candidates": []}, 0)
        else:
            _stream_candidate(chunks, answer)
        return chunks.frames

    def headers(self, envelope: Envelope) -> dict[str, str]:
        """See `WireDialect.headers`."""
        return {}

    def error(
        self, status: int, failure: Failure, model: str, envelope: Envelope, words: ErrorWords | None = None
    ) -> bytes:
        """See `WireDialect.error`."""
        name, message = _ERRORS[failure]
        if failure is Failure.KEY and status == 400:
            name, message = "INVALID_ARGUMENT", _BAD_KEY_AT_400
        said = words.message if words else message.replace("{model}", model)
        error: dict[str, Any] = {"code": status, "message": said, "status": name}
        details = _error_details(status, failure)
        if details:
            error["details"] = details
        return orjson.dumps({"error": error}, option=_PRETTY)

    def error_headers(self, failure: Failure, retry_after: str) -> dict[str, str]:
        """See `WireDialect.error_headers`. The wait stands in the body."""
        return {}

    def stream_error(self, envelope: Envelope, *, first: bool) -> bytes:
        """See `WireDialect.stream_error`."""
        name, message = _ERRORS[Failure.OVERLOADED]
        return _event({"error": {"code": 503, "message": message, "status": name}})

    def ping(self) -> bytes:
        """See `WireDialect.ping`."""
        return b": ping\r\n\r\n"


_FEEDBACK = {"blockReason": "PROHIBITED_CONTENT"}


def _error_details(status: int, failure: Failure) -> list[dict[str, Any]]:
    if failure is Failure.RATE:
        return [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "2s"}]
    if failure is Failure.KEY and status == 400:
        info = {"reason": "API_KEY_INVALID", "domain": "googleapis.com"}
        return [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", **info}]
    return []


def _event(document: Mapping[str, Any]) -> bytes:
    # The provider sets a blank after colons and none after commas.
    text = json.dumps(document, ensure_ascii=False, separators=(",", ": "))
    return escape_markup(b"data: " + text.encode() + b"\r\n\r\n", _ESCAPED)


class _StreamWriter:
    """Writes chunks, each with the usage so far."""

    def __init__(self, answer: Answer, envelope: Envelope) -> None:
        self._answer = answer
        self._names = _names(answer, envelope)
        self._thought_tokens = 0
        self._text_tokens = 0
        self.frames: list[Frame] = []

    def add_candidate(
        self,
        parts: list[dict[str, Any]],
        tokens: int,
        *,
        thought: bool = False,
        ending: Mapping[str, Any] | None = None,
    ) -> None:
        if thought:
            self._thought_tokens += tokens
        else:
            self._text_tokens += tokens
        candidate = {"content": _content(parts), **(ending or {}), "index": 0}
        self.add({"candidates": [candidate]}, tokens, last=ending is not None)

    def add(self, document: Mapping[str, Any], tokens: int, *, last: bool = True) -> None:
        chunk = dict(document)
        if not self._answer.counts.missing:
            chunk["usageMetadata"] = self._usage(last)
        self.frames.append(Frame(_event({**chunk, **self._names}), tokens))

    def _usage(self, last: bool) -> dict[str, Any]:
        counts = self._answer.counts
        if last:
            return _usage(self._answer, _visible_output(self._answer), counts.reasoning)
        hidden = counts.reasoning if not self._answer.shows_reasoning else self._thought_tokens
        return _usage(self._answer, self._text_tokens, hidden)


def _stream_candidate(chunks: _StreamWriter, answer: Answer) -> None:
    if answer.shows_reasoning:
        for group in _groups(answer.reasoning):
            chunks.add_candidate([{"text": "".join(group), "thought": True}], len(group), thought=True)
    ending = _ending(answer)
    groups = _groups(answer.text)
    if answer.tool_calls:
        for group in groups:
            chunks.add_candidate([{"text": "".join(group)}], len(group))
        calls = _call_parts(answer)
        chunks.add_candidate(calls, len(pieces(json.dumps(calls))), ending=ending)
        return
    for group in groups[:-1]:
        chunks.add_candidate([{"text": "".join(group)}], len(group))
    last = groups[-1] if groups else []
    chunks.add_candidate(_text_parts(answer, "".join(last)), len(last), ending=ending)


def _groups(text: str) -> list[list[str]]:
    """The text in chunks of several tokens: this provider sends few and large ones."""
    tokens = pieces(text)
    return [tokens[at : at + _TOKENS_PER_CHUNK] for at in range(0, len(tokens), _TOKENS_PER_CHUNK)]


def _names(answer: Answer, envelope: Envelope) -> dict[str, str]:
    return {"modelVersion": answer.model, "responseId": envelope.key[:23]}


def _whole_candidate(answer: Answer) -> dict[str, Any]:
    parts: list[dict[str, Any]] = []
    if answer.shows_reasoning:
        parts.append({"text": answer.reasoning, "thought": True})
    if answer.tool_calls:
        parts += [{"text": answer.text}] if answer.text else []
        parts += _call_parts(answer)
    else:
        parts += _text_parts(answer, answer.text)
    return {"content": _content(parts), **_ending(answer), "index": 0}


def _content(parts: list[dict[str, Any]]) -> dict[str, Any]:
    # An answer without any part comes without the field.
    return {"parts": parts, "role": "model"} if parts else {"role": "model"}


def _text_parts(answer: Answer, text: str) -> list[dict[str, Any]]:
    if answer.hollow is Hollow.NULL_CONTENT:
        return [{"text": None}]
    if not text and answer.hollow is not Hollow.EMPTY_TEXT:
        return []
    return [{"text": text, **_signature(answer)}]


def _call_parts(answer: Answer) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [
        {"functionCall": {"name": call.name, "args": call.arguments}} for call in answer.tool_calls
    ]
    parts[0].update(_signature(answer))
    return parts


def _signature(answer: Answer) -> dict[str, str]:
    if not answer.reasoning:
        return {}
    return {"thoughtSignature": base64.b64encode(answer.ask.digest("signature")).decode()}


def _ending(answer: Answer) -> dict[str, Any]:
    reason = answer.finish
    ending: dict[str, Any] = {"finishReason": _FINISH_REASONS[reason] if isinstance(reason, Finish) else reason}
    if answer.tool_calls:
        ending["finishMessage"] = "Model generated function call(s)."
    if answer.citations:
        ending["groundingMetadata"] = _grounding(answer)
    return ending


def _grounding(answer: Answer) -> dict[str, Any]:
    chunks = [{"web": {"uri": citation.url, "title": citation.title}} for citation in answer.citations]
    supports = []
    for index, citation in enumerate(answer.citations):
        # Segments are counted in UTF-8 bytes; a start of 0 is left out.
        start = len(answer.text[: citation.start_index].encode())
        end = len(answer.text[: citation.end_index].encode())
        place = {"startIndex": start, "endIndex": end} if start else {"endIndex": end}
        segment: dict[str, Any] = {**place, "text": citation.quoted_text}
        supports.append({"segment": segment, "groundingChunkIndices": [index]})
    return {"groundingChunks": chunks, "groundingSupports": supports, "webSearchQueries": ["simulated search"]}


def _visible_output(answer: Answer) -> Count:
    return subtract_counts(answer.counts.output, answer.counts.reasoning)


def _usage(answer: Answer, visible_output: Count, reasoning: Count) -> dict[str, Any]:
    counts = answer.counts
    usage: dict[str, Any] = {"promptTokenCount": counts.input}
    if visible_output:
        # Counts of 0 are left out.
        usage["candidatesTokenCount"] = visible_output
    total = add_counts(counts.input, visible_output, reasoning)
    if total is not None:
        usage["totalTokenCount"] = total
    if counts.cached:
        usage["cachedContentTokenCount"] = counts.cached
    usage["promptTokensDetails"] = [{"modality": "TEXT", "tokenCount": counts.input}]
    if reasoning:
        usage["thoughtsTokenCount"] = reasoning
    return {**usage, "serviceTier": "standard"}
