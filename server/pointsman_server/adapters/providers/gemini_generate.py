"""The dialect of Google's generateContent and streamGenerateContent (Gemini API; Vertex AI's bodies are the same)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pointsman_server.adapters.providers.dialect import Outgoing
from pointsman_server.adapters.providers.gemini_failures import read_failure
from pointsman_server.adapters.providers.gemini_reading import AnswerReader
from pointsman_server.adapters.providers.gemini_shape import shape_call
from pointsman_server.adapters.providers.json_reading import read_object
from pointsman_server.adapters.providers.sse import SseEvent
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import ReplyEvent


class GeminiGenerate:
    """Speaks generateContent. Streams are asked for as SSE; the vendor's other form, one JSON array, is not read.

    `finishMessage` and the vendor's continuation tokens are dropped: an answer that stops at a per-request limit
    finishes with LENGTH.
    """

    def shape(self, call: ProviderCall) -> Outgoing:
        """See `WireDialect.shape`."""
        return shape_call(call)

    def read_whole(self, body: Mapping[str, Any]) -> Sequence[ReplyEvent]:
        """See `WireDialect.read_whole`. A blocked prompt, which has no candidates, finishes with CONTENT_FILTER."""
        reader = AnswerReader()
        events = reader.read(body)
        if reader.finished:
            return events
        if not reader.has_candidate:
            raise ProviderFault(FaultKind.MALFORMED_REPLY, "the answer has no candidates")
        return [*events, *reader.finish(None)]

    def open_stream(self) -> GeminiStream:
        """See `WireDialect.open_stream`."""
        return GeminiStream()

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFault:
        """See `WireDialect.read_error`. A `RetryInfo` in the body says how long to wait."""
        return read_failure(status, headers, body)


class GeminiStream:
    """Reads one stream, whose end is the chunk with a finish reason or the one that blocks the prompt."""

    __slots__ = ("_reader",)

    def __init__(self) -> None:
        self._reader = AnswerReader()

    def feed(self, event: SseEvent) -> Sequence[ReplyEvent]:
        """See `StreamReader.feed`."""
        if self._reader.finished:
            return ()
        return self._reader.read(read_object(event.data, "an event of the stream"))

    def end(self) -> Sequence[ReplyEvent]:
        """See `StreamReader.end`."""
        if not self._reader.finished:
            raise ProviderFault(FaultKind.STREAM_CUT, "the stream ended without a finish reason")
        return ()
