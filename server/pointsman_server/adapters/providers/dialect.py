"""What a wire dialect has to say for itself, and the adapter that walks one exchange with it.

A dialect is pure: it shapes a call into a path and a JSON body, and reads what came back. An endpoint knows where
that goes and who we are there (URL, authorisation, version headers). The wire carries it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import orjson

from pointsman_server.adapters.providers.json_reading import read_object
from pointsman_server.adapters.providers.sealing import Sealer, unseal
from pointsman_server.adapters.providers.sse import SseEvent, SseReader
from pointsman_server.adapters.providers.wire import HttpWire, PreparedRequest, WireResponse, join_chunks
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import ReplyEvent

_OPENING_BYTES = 8
_SSE_STARTS = (b"data:", b"event:", b"id:", b"retry:", b":")
_BLANK = b" \t\r\n\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A call in a dialect: path below the base URL, JSON body, and headers only this call needs."""

    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, str]


class StreamReader(Protocol):
    """Reads one stream of a dialect; keeps whatever state that takes."""

    def feed(self, event: SseEvent) -> Sequence[ReplyEvent]:
        """What this event says. Raises `ProviderFault` for an error inside the stream or unreadable data."""
        ...

    def end(self) -> Sequence[ReplyEvent]:
        """What remains to be said when the body has ended; STREAM_CUT when the end marker never came."""
        ...


class WireDialect(Protocol):
    """A provider's language. Holds no state; safe to share."""

    def shape(self, call: ProviderCall) -> Outgoing:
        """The call in this dialect. Nothing the caller asked for is dropped: what cannot be said raises
        `ProviderFault` INVALID_REQUEST (the decision should have excluded the deployment)."""
        ...

    def read_whole(self, body: Mapping[str, Any]) -> Sequence[ReplyEvent]:
        """The events of a whole answer, `Finished` included. Raises `ProviderFault` for an error object."""
        ...

    def open_stream(self) -> StreamReader:
        """A reader for one streamed answer."""
        ...

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ProviderFault:
        """What a response with this status means. Header names are lower case."""
        ...


class Endpoint(Protocol):
    """Where a provider's calls go and how they are authorised."""

    def prepare(self, path: str, body: bytes, headers: Mapping[str, str]) -> PreparedRequest:
        """The request, ready to be sent."""
        ...


class DialectAdapter:
    """A `ProviderAdapter` made of a dialect, an endpoint and the wire."""

    def __init__(self, dialect: WireDialect, endpoint: Endpoint, wire: HttpWire) -> None:
        self._dialect = dialect
        self._endpoint = endpoint
        self._wire = wire

    async def exchange(self, call: ProviderCall) -> AsyncGenerator[Sequence[ReplyEvent], None]:
        """See `ProviderAdapter.exchange`."""
        outgoing = self._shape(call)
        request = self._endpoint.prepare(
            outgoing.path, orjson.dumps(outgoing.body), {**call.headers, **outgoing.headers}
        )
        connect_seconds = call.deployment.timeouts.connect_seconds
        async with self._wire.send(
            request, connect_seconds=connect_seconds, total_seconds=call.timeout_seconds
        ) as response:
            if response.status != 200:
                raise await fault_of(response, self._dialect.read_error)
            sealer = Sealer(call.deployment.provider.id)
            async for batch in read_answer(response, self._dialect):
                yield sealer.seal(batch)

    async def close(self) -> None:
        """The wire is shared and closed by its owner."""

    def _shape(self, call: ProviderCall) -> Outgoing:
        messages = unseal(call.messages, call.deployment.provider.id)
        if messages is not call.messages:
            call = replace(call, messages=messages)
        try:
            return self._dialect.shape(call)
        except ProviderFault as fault:
            # Nothing was sent, so another candidate may well be able to.
            raise ProviderFault(FaultKind.UNSUPPORTED, fault.detail) from fault


async def fault_of(
    response: WireResponse, read_error: Callable[[int, Mapping[str, str], bytes], ProviderFault]
) -> ProviderFault:
    """What a response with another status than 200 means."""
    if 300 <= response.status < 400:
        return ProviderFault(
            FaultKind.MALFORMED_REPLY,
            "the provider answered with a redirect, which is never followed",
            status=response.status,
        )
    try:
        body = await response.whole()
    except ProviderFault:
        body = b""
    return read_error(response.status, response.headers, body)


async def read_answer(response: WireResponse, dialect: WireDialect) -> AsyncGenerator[Sequence[ReplyEvent], None]:
    """The events of a 200 response, whether it is a stream or one JSON body.

    The first bytes decide, not the content type: providers send either under the other's name.
    """
    chunks = response.chunks()
    opening = await _read_opening(chunks)
    if opening.lstrip(_BLANK).startswith(_SSE_STARTS):
        async for batch in _read_stream(opening, chunks, dialect.open_stream()):
            yield batch
    else:
        body = await join_chunks(chunks, opening)
        yield dialect.read_whole(read_object(body.lstrip(_BLANK), "the answer"))


async def _read_opening(chunks: AsyncIterator[bytes]) -> bytes:
    # Some providers send white space for minutes to keep the connection alive.
    opening = b""
    async for chunk in chunks:
        opening = (opening + chunk).lstrip(_BLANK)
        if len(opening) >= _OPENING_BYTES:
            break
    return opening


async def _read_stream(
    opening: bytes, chunks: AsyncIterator[bytes], reader: StreamReader
) -> AsyncGenerator[Sequence[ReplyEvent], None]:
    sse = SseReader()
    cut: ProviderFault | None = None
    chunk: bytes | None = opening
    while chunk is not None:
        for batch in _read_events(reader, sse.feed(chunk)):
            yield batch
        try:
            chunk = await anext(chunks, None)
        except ProviderFault as fault:
            cut, chunk = fault, None
    for batch in _read_last_events(reader, sse, cut):
        yield batch


def _read_last_events(
    reader: StreamReader, sse: SseReader, cut: ProviderFault | None
) -> Iterator[Sequence[ReplyEvent]]:
    # A connection lost after the end marker takes nothing from the answer.
    try:
        yield from _read_events(reader, sse.flush())
        yield reader.end()
    except ProviderFault:
        if cut is None:
            raise
        raise cut from cut.__cause__


def _read_events(reader: StreamReader, events: Sequence[SseEvent]) -> Iterator[Sequence[ReplyEvent]]:
    """One batch for all events of a network read. What came before a fault is handed out before the fault is raised,
    so that the outcome does not depend on how the network cut the stream."""
    if len(events) == 1:
        yield reader.feed(events[0])
        return
    batch: list[ReplyEvent] = []
    try:
        for event in events:
            batch.extend(reader.feed(event))
    except ProviderFault:
        yield batch
        raise
    yield batch
