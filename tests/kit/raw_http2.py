"""Clients that speak HTTP/2 by hand: they send half of a call, read when they like, or flood the server."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import h2.config
import h2.connection
import h2.events
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Encoder, NeverIndexedHeaderTuple

from kit.connections import Cable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DEFAULT_WINDOW_BYTES = 65_535
_HEADERS, _RST_STREAM, _SETTINGS, _PING = 1, 3, 4, 6
_END_HEADERS = 4


def headers_of(method: str, **more: str) -> list[tuple[str, str]]:
    """The headers of a gRPC call."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", method),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *((name.replace("_", "-"), value) for name, value in more.items()),
    ]


def framed(message: bytes) -> bytes:
    """A gRPC message as it stands in the body."""
    return b"\0" + struct.pack(">I", len(message)) + message


class RawCaller:
    """One connection. What comes is read only within `read_until`; flow control opens only by `open_window`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.bodies: dict[int, bytearray] = {}
        self.ends: dict[int, dict[str, str]] = {}
        """Headers and trailers by stream, of streams that ended."""
        self.resets: dict[int, int] = {}
        self.gone_away: bytes | None = None
        self.closed = False
        self._headers: dict[int, dict[str, str]] = {}

    async def greet(self, window_bytes: int | None) -> None:
        """Opens the connection; `window_bytes` is how much of each stream, and of all, may come unasked."""
        self._http.initiate_connection()
        if window_bytes is not None:
            self._http.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window_bytes})
            if window_bytes > DEFAULT_WINDOW_BYTES:
                self._http.increment_flow_control_window(window_bytes - DEFAULT_WINDOW_BYTES)
        await self.send()

    def begin(self, method: str, **headers: str) -> int:
        """The headers of a call and nothing else; gives the stream's id."""
        stream_id = self._http.get_next_available_stream_id()
        self._http.send_headers(stream_id, headers_of(method, **headers))
        return stream_id

    def go_on(self, stream_id: int, body: bytes, *, end: bool = False) -> None:
        """More of the call's body."""
        self._http.send_data(stream_id, body, end_stream=end)

    def call(self, method: str, message: bytes, **headers: str) -> int:
        """A whole call."""
        stream_id = self.begin(method, **headers)
        self.go_on(stream_id, framed(message), end=True)
        return stream_id

    def reset(self, stream_id: int) -> None:
        """Cancels a call."""
        self._http.reset_stream(stream_id, ErrorCodes.CANCEL)

    def open_window(self, stream_id: int, size: int) -> None:
        """Lets so many more bytes of this stream come."""
        self._http.increment_flow_control_window(size)
        self._http.increment_flow_control_window(size, stream_id)

    async def send(self) -> None:
        """Sends what was prepared."""
        self._writer.write(self._http.data_to_send())
        await self._writer.drain()

    async def read_until(self, *ended: int, seconds: float = 5.0) -> None:
        """Reads until these streams ended, or the connection did."""
        async with asyncio.timeout(seconds):
            while not self.closed and not all(one in self.ends or one in self.resets for one in ended):
                await self._read_once()

    async def read_bytes(self, stream_id: int, count: int, seconds: float = 5.0) -> None:
        """Reads until so much of this stream's body came."""
        async with asyncio.timeout(seconds):
            while not self.closed and len(self.bodies.get(stream_id, b"")) < count:
                await self._read_once()

    async def read_to_end(self, seconds: float = 5.0) -> None:
        """Reads until the server closes the connection."""
        async with asyncio.timeout(seconds):
            while not self.closed:
                await self._read_once()

    def status(self, stream_id: int) -> int:
        """The gRPC status with which this stream ended."""
        return int(self.ends[stream_id]["grpc-status"])

    async def _read_once(self) -> None:
        try:
            data = await self._reader.read(1 << 16)
        except ConnectionError:
            data = b""
        if not data:
            self.closed = True
            return
        for event in self._http.receive_data(data):
            self._take(event)
        await self.send()

    def _take(self, event: Any) -> None:
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                self._headers.setdefault(event.stream_id, {}).update(
                    {_text(name): _text(value) for name, value in event.headers}
                )
            case h2.events.DataReceived():
                self.bodies.setdefault(event.stream_id, bytearray()).extend(event.data)
            case h2.events.StreamEnded():
                self.ends[event.stream_id] = self._headers.get(event.stream_id, {})
            case h2.events.StreamReset():
                self.resets[event.stream_id] = int(event.error_code)
            case h2.events.ConnectionTerminated():
                self.gone_away = event.additional_data or b""


def _text(value: bytes | str) -> str:
    return value if isinstance(value, str) else value.decode("latin-1")


def messages_in(body: bytes) -> list[bytes]:
    """The whole gRPC messages of a body."""
    found, at = [], 0
    while at + 5 <= len(body):
        size = int.from_bytes(body[at + 1 : at + 5], "big")
        if at + 5 + size > len(body):
            break
        found.append(bytes(body[at + 5 : at + 5 + size]))
        at += 5 + size
    return found


@asynccontextmanager
async def raw_caller(port: int, window_bytes: int | None = None) -> AsyncGenerator[RawCaller, None]:
    """A connection to a server on the loopback interface."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    caller = RawCaller(reader, writer)
    await caller.greet(window_bytes)
    try:
        yield caller
    finally:
        writer.transport.abort()


class BlackHole(Cable):
    """A cable that, once told to, swallows what comes from either end; neither is told that the other is gone."""

    _swallowing = False

    @classmethod
    @asynccontextmanager
    async def to(cls, target: str) -> AsyncIterator[BlackHole]:
        """Such a cable to a server."""
        async with super().to(target) as cable:
            assert isinstance(cable, BlackHole)
            yield cable

    def swallow(self) -> None:
        """From now on nothing arrives."""
        self._swallowing = True

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if not self._swallowing:
                    writer.write(data)


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    """One frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream_id.to_bytes(4, "big") + payload


def rapid_resets(method: str, count: int) -> bytes:
    """A connection on which so many calls begin and are cancelled at once."""
    names: Sequence[tuple[str, str]] = headers_of(method)
    # Never indexed, so that the same bytes say the same on every stream.
    block = Encoder().encode([NeverIndexedHeaderTuple(*one) for one in names], huffman=False)
    cancel = int(ErrorCodes.CANCEL).to_bytes(4, "big")
    pieces = [PREFACE, frame(_SETTINGS, 0, 0, b"")]
    for stream_id in range(1, 2 * count, 2):
        pieces.append(frame(_HEADERS, _END_HEADERS, stream_id, block))
        pieces.append(frame(_RST_STREAM, 0, stream_id, cancel))
    return b"".join(pieces)


def pings(count: int) -> bytes:
    """A connection that sends nothing but so many pings."""
    return PREFACE + frame(_SETTINGS, 0, 0, b"") + frame(_PING, 0, 0, b"\0" * 8) * count


def settings(count: int) -> bytes:
    """A connection that changes its settings so many times."""
    return PREFACE + frame(_SETTINGS, 0, 0, b"\0\x04\0\0\xff\xff") * count


async def flood(port: int, data: bytes, seconds: float = 10.0) -> bool:
    """Sends it all and reads what comes; says whether the server closed the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def drain_answers() -> None:
        while await reader.read(1 << 16):
            pass

    answers = asyncio.create_task(drain_answers())
    try:
        async with asyncio.timeout(seconds):
            for at in range(0, len(data), 1 << 16):
                writer.write(data[at : at + (1 << 16)])
                await writer.drain()
            done, _ = await asyncio.wait([answers], timeout=0.5)
            return bool(done)
    except ConnectionError:
        return True
    finally:
        answers.cancel()
        writer.transport.abort()
        await asyncio.gather(answers, return_exceptions=True)
