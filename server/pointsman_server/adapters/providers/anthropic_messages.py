"""Anthropic's Messages API as a wire dialect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pointsman_server.adapters.providers.anthropic_reading import (
    MessageStreamReader,
    read_error_words,
    read_whole_answer,
)
from pointsman_server.adapters.providers.anthropic_shape import shape_call
from pointsman_server.adapters.providers.dialect import Outgoing, StreamReader
from pointsman_server.adapters.providers.failures import ErrorWords, failure_from_status
from pointsman_server.adapters.providers.json_reading import read_object
from pointsman_server.domain.faults import ProviderFault
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import ReplyEvent

_MAX_PLAIN_ERROR_BYTES = 4096


class AnthropicMessages:
    """A `WireDialect`: POST /v1/messages, server-sent events that end with message_stop."""

    def shape(self, call: ProviderCall) -> Outgoing:
        """See `WireDialect.shape`."""
        return shape_call(call)

    def read_whole(self, body: Mapping[str, Any]) -> Sequence[ReplyEvent]:
        """See `WireDialect.read_whole`."""
        return read_whole_answer(body)

    def open_stream(self) -> StreamReader:
        """See `WireDialect.open_stream`."""
        return MessageStreamReader()

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFault:
        """See `WireDialect.read_error`."""
        try:
            words = read_error_words(read_object(body, "the error"))
        except ProviderFault:
            words = ErrorWords(message=body[:_MAX_PLAIN_ERROR_BYTES].decode("utf-8", "replace"))
        return failure_from_status(status, words, headers)
