"""Reads Gemini answers, whole or in chunks: a whole answer is a stream of one chunk."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import orjson

from pointsman_server.adapters.providers.certainty import certainty_of_mean
from pointsman_server.adapters.providers.gemini_citations import read_citations
from pointsman_server.adapters.providers.gemini_failures import failure_of_error
from pointsman_server.adapters.providers.gemini_turns import DIALECT
from pointsman_server.adapters.providers.json_reading import CountReader, as_list, as_object, as_text
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.reply import (
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

_REASONS: Mapping[str, FinishReason] = {
    "STOP": FinishReason.STOP,
    "MAX_TOKENS": FinishReason.LENGTH,
    "CONTINUATION": FinishReason.LENGTH,
    "SAFETY": FinishReason.CONTENT_FILTER,
    "RECITATION": FinishReason.CONTENT_FILTER,
    "LANGUAGE": FinishReason.CONTENT_FILTER,
    "BLOCKLIST": FinishReason.CONTENT_FILTER,
    "PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "SPII": FinishReason.CONTENT_FILTER,
    "MODEL_ARMOR": FinishReason.CONTENT_FILTER,
    "ESCALATION": FinishReason.CONTENT_FILTER,
    "IMAGE_SAFETY": FinishReason.CONTENT_FILTER,
    "IMAGE_PROHIBITED_CONTENT": FinishReason.CONTENT_FILTER,
    "IMAGE_RECITATION": FinishReason.CONTENT_FILTER,
    "MALFORMED_FUNCTION_CALL": FinishReason.ERROR,
    "UNEXPECTED_TOOL_CALL": FinishReason.ERROR,
    "TOO_MANY_TOOL_CALLS": FinishReason.ERROR,
    "MISSING_THOUGHT_SIGNATURE": FinishReason.ERROR,
    "MALFORMED_RESPONSE": FinishReason.ERROR,
    "PUP_LIMITED_DISABLED": FinishReason.ERROR,
    "NO_IMAGE": FinishReason.ERROR,
    # OTHER and IMAGE_OTHER say that there is a reason and not which: UNKNOWN.
}

_REASONS_BY_NUMBER: Mapping[int, FinishReason] = {
    1: FinishReason.STOP,
    2: FinishReason.LENGTH,
    3: FinishReason.CONTENT_FILTER,
    4: FinishReason.CONTENT_FILTER,
    6: FinishReason.CONTENT_FILTER,
    7: FinishReason.CONTENT_FILTER,
    8: FinishReason.CONTENT_FILTER,
}
"""With enums sent as numbers. The vendor's two APIs agree on these; from 9 on they count differently."""

_NOT_FINISHED = (None, "", 0, "FINISH_REASON_UNSPECIFIED")

_ATTRIBUTES = frozenset({"thought", "thoughtSignature", "partMetadata", "mediaResolution", "videoMetadata"})
"""Keys of a part that describe it and are not its content."""

_NOT_IN_ID = re.compile(r"[^A-Za-z0-9_-]")
_LONGEST_ID = 40
"""The strictest limit on tool-call ids among the vendors that a conversation may move on to."""


class AnswerReader:
    """Reads the chunks of one answer in order and remembers what the next one depends on.

    A text or thought part continues the one before it; a signature ends it. In a whole answer the signature stands on
    the text, in a stream on the last piece or on an empty one after it, and both shall read alike. Parts that are not
    known go through as opaque ones.
    """

    __slots__ = (
        "_has_calls", "_mean_log_probability", "_next_key", "_open_kind", "_response_id", "_sources", "_texts",
        "finished", "has_candidate",
    )  # fmt: skip

    def __init__(self) -> None:
        self._next_key = 0
        self._open_kind: type[TextDelta] | type[ReasoningDelta] | None = None
        self._texts: list[str] = []
        self._sources: list[Mapping[str, Any]] = []
        self._has_calls = False
        self._response_id = ""
        self._mean_log_probability: object = None
        self.has_candidate = False
        self.finished = False

    def read(self, chunk: Mapping[str, Any]) -> list[ReplyEvent]:
        """What the chunk says. Raises `ProviderFault` for an error object."""
        if chunk.get("error"):
            raise failure_of_error(chunk["error"])
        events: list[ReplyEvent] = []
        if not self._response_id:
            self._response_id = as_text(chunk.get("responseId"))
            events.append(Identified(self._response_id, as_text(chunk.get("modelVersion"))))
        usage = read_usage(as_object(chunk.get("usageMetadata")))
        if usage is not None:
            events.append(UsageReport(usage))
        candidate = _first_candidate(chunk.get("candidates"))
        if candidate is None:
            self._read_block(as_object(chunk.get("promptFeedback")), events)
        else:
            self._read_candidate(candidate, events)
        return events

    def _read_block(self, feedback: Mapping[str, Any], events: list[ReplyEvent]) -> None:
        reason = feedback.get("blockReason")
        if reason is not None:
            self.finished = True
            events.append(Finished(FinishReason.CONTENT_FILTER, str(reason)))

    def finish(self, reason: object) -> list[ReplyEvent]:
        """The sources, whose places in the text are known only now, how sure the model was, and the end."""
        self.finished = True
        text = "".join(self._texts)
        events: list[ReplyEvent] = [
            CitationFound(citation) for candidate in self._sources for citation in read_citations(candidate, text)
        ]
        certainty = certainty_of_mean(self._mean_log_probability)
        return [*events, *certainty, _read_finish(reason, self._has_calls)]

    def _read_candidate(self, candidate: Mapping[str, Any], events: list[ReplyEvent]) -> None:
        self.has_candidate = True
        content = candidate.get("content")
        if isinstance(content, dict):
            for part in as_list(content.get("parts")):
                if isinstance(part, dict):
                    self._read_part(part, events)
        if candidate.get("groundingMetadata") or candidate.get("citationMetadata"):
            self._sources.append(candidate)
        self._mean_log_probability = candidate.get("avgLogprobs", self._mean_log_probability)
        reason = candidate.get("finishReason")
        if reason not in _NOT_FINISHED:
            events.extend(self.finish(reason))

    def _read_part(self, part: Mapping[str, Any], events: list[ReplyEvent]) -> None:
        if "text" in part:
            self._add_text(part, as_text(part["text"]), events)
        elif "functionCall" in part:
            self._add_call(part, as_object(part["functionCall"]), events)
        elif not _ATTRIBUTES.issuperset(part):
            kind = next(name for name in part if name not in _ATTRIBUTES)
            events.append(OpaqueDelta(self._open_part(None), DIALECT, kind, _dump(part)))
        else:
            self._add_text(part, "", events)

    def _add_text(self, part: Mapping[str, Any], text: str, events: list[ReplyEvent]) -> None:
        signature = as_text(part.get("thoughtSignature"))
        if not text and not signature:
            return
        kind: type[TextDelta] | type[ReasoningDelta] = ReasoningDelta if part.get("thought") is True else TextDelta
        key = self._next_key - 1 if kind is self._open_kind else self._open_part(kind)
        if signature:
            self._open_kind = None
        if kind is TextDelta:
            self._texts.append(text)
        events.append(kind(key, text, signature))

    def _add_call(self, part: Mapping[str, Any], call: Mapping[str, Any], events: list[ReplyEvent]) -> None:
        if call.get("partialArgs") or call.get("willContinue"):
            raise ProviderFault(
                FaultKind.MALFORMED_REPLY,
                "the arguments of a tool call came in pieces; take streamFunctionCallArguments out of the options",
            )
        self._has_calls = True
        key = self._open_part(None)
        call_id = as_text(call.get("id")) or self._make_id(key, as_text(call.get("name")))
        arguments = _dump(as_object(call.get("args")))
        signature = as_text(part.get("thoughtSignature"))
        events.append(ToolCallDelta(key, call_id, as_text(call.get("name")), arguments, signature))

    def _make_id(self, key: int, name: str) -> str:
        # Made of what the answer itself says, so that it is the same however the answer is read, and is unique in a
        # conversation of many answers.
        return _NOT_IN_ID.sub("_", f"call_{key}_{self._response_id or name}")[:_LONGEST_ID]

    def _open_part(self, kind: type[TextDelta] | type[ReasoningDelta] | None) -> int:
        key = self._next_key
        self._next_key += 1
        self._open_kind = kind
        return key


def read_usage(said: Mapping[str, Any]) -> Usage | None:
    """The usage; None when nothing was counted. Counts of 0 are left out by the provider."""
    prompt, answer = said.get("promptTokenCount"), said.get("candidatesTokenCount")
    thought, searched = said.get("thoughtsTokenCount"), said.get("toolUsePromptTokenCount")
    if prompt is None and answer is None and thought is None:
        return None
    counts = CountReader()
    thought_tokens = counts.read(thought) if thought else 0
    return Usage(
        input_tokens=_sum(counts.read(prompt), counts.read(searched) if searched else 0),
        cached_input_tokens=counts.read_or_zero(said.get("cachedContentTokenCount")),
        output_tokens=_sum(counts.read(answer) if answer else 0, thought_tokens),
        reasoning_tokens=thought_tokens or 0,
        implausible=counts.implausible,
    )


def _sum(first: int | None, second: int | None) -> int | None:
    return None if first is None or second is None else first + second


def _first_candidate(candidates: object) -> Mapping[str, Any] | None:
    # More than one comes only if the policy's options ask for it; an answer is one of them.
    for candidate in as_list(candidates):
        if isinstance(candidate, dict) and not candidate.get("index"):
            return candidate
    return None


def _read_finish(reason: object, has_calls: bool) -> Finished:
    raw = "" if reason is None else str(reason)
    known = _REASONS_BY_NUMBER.get(reason) if isinstance(reason, int) else _REASONS.get(raw)
    if known is FinishReason.STOP and has_calls:
        known = FinishReason.TOOL_CALLS
    return Finished(known or FinishReason.UNKNOWN, raw)


def _dump(value: Mapping[str, Any]) -> str:
    try:
        return orjson.dumps(value).decode("utf-8")
    except orjson.JSONEncodeError as error:
        raise ProviderFault(FaultKind.MALFORMED_REPLY, "a part of the answer is nested too deeply") from error
