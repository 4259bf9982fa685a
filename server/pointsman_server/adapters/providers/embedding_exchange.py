"""What a dialect has to say for vectors, and the adapter that asks for them beside a provider's completions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import orjson

from pointsman_server.adapters.providers.dialect import Endpoint, Outgoing, fault_of
from pointsman_server.adapters.providers.json_reading import read_object
from pointsman_server.adapters.providers.vectors import read_vectors
from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.ports import ProviderAdapter, ProviderCall
from pointsman_server.domain.reply import (
    Embedded,
    Finished,
    FinishReason,
    Identified,
    ReplyEvent,
    Usage,
    UsageReport,
)
from pointsman_server.domain.request import EmbeddingInput

ON_LOOP_BYTES = 65_536
"""Larger answers are read in a thread: a megabyte of numbers takes some 5 ms, and more on a busy machine."""

_BLANK = b" \t\r\n\xef\xbb\xbf"


class FoundVectors(NamedTuple):
    """What an answer holds: a row for each text in their order, whatever it is made of, and what else it says."""

    rows: Sequence[object]
    usage: Usage
    response_id: str = ""
    model: str = ""


class EmbeddingDialect(Protocol):
    """A provider's language for vectors. Holds no state; safe to share."""

    def shape(self, call: ProviderCall, wanted: EmbeddingInput) -> Outgoing:
        """The call in this dialect."""
        ...

    def read(self, body: Mapping[str, Any]) -> FoundVectors:
        """What a whole answer holds. Raises `ProviderFault` for an error object."""
        ...

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFault:
        """See `WireDialect.read_error`."""
        ...


class EmbeddingAdapter:
    """A `ProviderAdapter` that asks for vectors itself and leaves all else to the adapter for completions."""

    def __init__(
        self, completions: ProviderAdapter, dialect: EmbeddingDialect, endpoint: Endpoint, wire: HttpWire
    ) -> None:
        self._completions = completions
        self._dialect = dialect
        self._endpoint = endpoint
        self._wire = wire

    def exchange(self, call: ProviderCall) -> AsyncGenerator[Sequence[ReplyEvent], None]:
        """See `ProviderAdapter.exchange`. Vectors come in one batch of events, checked: one for each text, all of the
        length that was to be expected, every number finite; MALFORMED_REPLY otherwise."""
        if call.embedding is None:
            return self._completions.exchange(call)
        return self._embed(call, call.embedding)

    async def close(self) -> None:
        """Closes the adapter for completions; the wire is shared and closed by its owner."""
        await self._completions.close()

    async def _embed(self, call: ProviderCall, wanted: EmbeddingInput) -> AsyncGenerator[Sequence[ReplyEvent], None]:
        length = _expected_length(call, wanted)
        outgoing = self._dialect.shape(call, wanted)
        headers = {**call.headers, **outgoing.headers}
        request = self._endpoint.prepare(outgoing.path, orjson.dumps(outgoing.body), headers)
        connect_seconds = call.deployment.timeouts.connect_seconds
        async with self._wire.send(
            request, connect_seconds=connect_seconds, total_seconds=call.timeout_seconds
        ) as response:
            if response.status != 200:
                raise await fault_of(response, self._dialect.read_error)
            body = (await response.whole()).lstrip(_BLANK)
        yield await _off_loop(lambda: _read(self._dialect, body, len(wanted.texts), length), len(body))


async def _off_loop(read: Callable[[], Sequence[ReplyEvent]], size_bytes: int) -> Sequence[ReplyEvent]:
    return read() if size_bytes <= ON_LOOP_BYTES else await asyncio.to_thread(read)


def _read(dialect: EmbeddingDialect, body: bytes, count: int, length: int) -> Sequence[ReplyEvent]:
    found = dialect.read(read_object(body, "the answer"))
    vectors = read_vectors(found.rows, count, length)
    return (
        Identified(found.response_id, found.model),
        Embedded(vectors),
        UsageReport(found.usage),
        Finished(FinishReason.STOP),
    )


def _expected_length(call: ProviderCall, wanted: EmbeddingInput) -> int:
    traits = call.deployment.model.embedding
    if traits is None:
        raise ProviderFault(FaultKind.UNSUPPORTED, "the deployment's model makes no vectors")
    return wanted.dimensions or traits.dimensions
