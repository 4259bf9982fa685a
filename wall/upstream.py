"""Fake upstreams: HTTP/1.1 on loopback, exact to the byte, that write down what they see.

One `Upstream` is one address; it may close its door and open it again at the same port. What a request gets is the
business of the scenario's `Plan`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

from wall.log import Hit, WallLog
from wall.plays import PING, Ending, Framing, Play
from wall.texts import marked, parsed

LOOPBACK = "127.0.0.1"
_PATH = "/chat/completions"
_HEADERS_END = b"\r\n\r\n"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_SETTLE_SECONDS = 0.05
_SEND_BUFFER_BYTES = 64 * 1024
_JOIN_BELOW_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Plan:
    """What an upstream does in a scenario: an answer for each hit, and seconds in which its door is closed.

    A closed door refuses new connections and resets those that are there.
    """

    answer: Callable[[Hit], Play]
    refusing: tuple[tuple[float, float], ...] = ()


class Upstream:
    """One address. Between scenarios it has no plan and answers 503."""

    def __init__(self, role: str, port: int = 0) -> None:
        self.role = role
        self.port = port
        self.connections: set[Connection] = set()
        self._plan: Plan | None = None
        self._scenario = ""
        self._log: WallLog | None = None
        self._orders = 0
        self._server: asyncio.Server | None = None
        self._door: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://{LOOPBACK}:{self.port}"

    async def open(self) -> None:
        """Listens. Raises `OSError` when the port is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            partial(Connection, self), LOOPBACK, self.port, reuse_address=True, backlog=1024
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """Refuses new connections and resets those that are there."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in list(self.connections):
            connection.reset()

    async def play(self, plan: Plan, scenario: str, log: WallLog) -> None:
        """Follows this plan from now on; the door is as the plan has it before this returns."""
        self._plan, self._scenario, self._log, self._orders = plan, scenario, log, 0
        if plan.refusing and plan.refusing[0][0] <= 0:
            self.close()
        self._door = asyncio.ensure_future(self._mind_door(plan, log))

    async def rest(self) -> None:
        """Forgets the plan; the door is open."""
        if self._door is not None:
            self._door.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._door
        self._plan = self._log = None
        for connection in list(self.connections):
            connection.reset()
        if self._server is None:
            await self.open()

    async def _mind_door(self, plan: Plan, log: WallLog) -> None:
        for begins_at, ends_at in plan.refusing:
            await asyncio.sleep(max(0.0, begins_at - log.now()))
            self.close()
            await asyncio.sleep(max(0.0, ends_at - log.now()))
            await self.open()

    def received(self, path: str, body: bytes, *, reused: bool) -> tuple[Hit | None, Play]:
        """Writes the request down; what to answer. Requests of other scenarios are sent away and not counted."""
        if self._log is not None and not path.endswith(_PATH):
            self._log.strays.append(f"{self.role} {path}")
            return None, Play("somewhere else", 404, {"content-type": "application/json"})
        marker = marked(body)
        if self._plan is None or self._log is None or marker is None or marker[0] != self._scenario:
            return None, Play("not in this scenario", 503, {"content-type": "application/json"})
        content = parsed(body)
        hit = Hit(
            upstream=self.role,
            scenario=self._scenario,
            lane=marker[1],
            number=marker[2],
            order=self._orders,
            arrived_at=self._log.now(),
            stream=bool(content.get("stream")),
            reused=reused,
            body=content,
        )
        self._orders += 1
        self._log.hits.append(hit)
        play = self._plan.answer(hit)
        hit.play = play.name
        return hit, play

    def now(self) -> float:
        """By the scenario's clock."""
        return self._log.now() if self._log is not None else 0.0


class Connection(asyncio.Protocol):
    """One connection; requests follow each other on it."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._served = 0
        self._serving: asyncio.Task[None] | None = None
        self._hit: Hit | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - TCP transports are
        self._transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Small, so that what counts as sent has nearly reached the other side.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
        transport.set_write_buffer_limits(high=_SEND_BUFFER_BYTES)
        self._upstream.connections.add(self)

    def data_received(self, data: bytes) -> None:
        """Serves as soon as a whole request has come."""
        self._received += data
        if self._serving is None or self._serving.done():
            self._begin()

    def pause_writing(self) -> None:
        """The other side does not read."""
        self._may_write.clear()

    def resume_writing(self) -> None:
        """It reads again."""
        self._may_write.set()

    def eof_received(self) -> bool:
        """The other side will send nothing more, which for a gateway means that it has left."""
        self._gone()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._gone()
        self._upstream.connections.discard(self)
        if self._serving is not None:
            self._serving.cancel()
        self._transport = None

    def reset(self) -> None:
        """Ends the connection with RST."""
        transport = self._transport
        if transport is not None:
            sock = transport.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            transport.abort()

    def _gone(self) -> None:
        if self._hit is not None and self._hit.is_open:
            self._hit.left_at = self._upstream.now()

    def _begin(self) -> None:
        end = self._received.find(_HEADERS_END)
        if end < 0:
            return
        length = _content_length(bytes(self._received[:end]))
        last = end + len(_HEADERS_END) + length
        if len(self._received) < last:
            return
        body = bytes(self._received[end + len(_HEADERS_END) : last])
        path = bytes(self._received[:end]).split(b" ", 2)[1].decode("ascii", "replace")
        del self._received[:last]
        self._hit, play = self._upstream.received(path, body, reused=self._served > 0)
        self._served += 1
        self._serving = asyncio.ensure_future(self._serve(play))

    async def _serve(self, play: Play) -> None:
        if play.wait_seconds:
            await asyncio.sleep(play.wait_seconds)
        if play.status:
            await self._write(_head(play))
            await self._send_pieces(play)
        await self._end(play)
        if self._received and self._transport is not None and not self._transport.is_closing():
            self._begin()

    async def _send_pieces(self, play: Play) -> None:
        waiting = bytearray()
        for piece in play.pieces:
            if piece.pause_seconds:
                await self._flush(waiting)
                await asyncio.sleep(piece.pause_seconds)
            waiting += _framed(play.framing, piece.data)
            if len(waiting) >= _JOIN_BELOW_BYTES or piece.characters:
                await self._flush(waiting)
        await self._flush(waiting)

    async def _flush(self, waiting: bytearray) -> None:
        if waiting:
            await self._write(bytes(waiting))
            if self._hit is not None:
                self._hit.sent_bytes += len(waiting)
            waiting.clear()

    async def _write(self, data: bytes) -> None:
        if self._transport is None or self._transport.is_closing():
            raise asyncio.CancelledError
        self._transport.write(data)
        if not self._may_write.is_set():
            await self._may_write.wait()

    async def _end(self, play: Play) -> None:
        match play.ending:
            case Ending.STALL:
                await asyncio.Event().wait()
            case Ending.PINGS:
                while True:
                    await self._write(_framed(play.framing, PING))
                    await asyncio.sleep(play.ping_seconds)
            case Ending.PROPER if play.status and play.framing is Framing.CHUNKED:
                await self._write(b"0\r\n\r\n")
        self._finish()
        if play.ending is Ending.RESET:
            await asyncio.sleep(_SETTLE_SECONDS)  # what was written should arrive before
            self.reset()
        elif self._transport is not None and not _stays(play):
            self._transport.close()

    def _finish(self) -> None:
        if self._hit is not None and self._hit.is_open:
            self._hit.finished_at = self._upstream.now()


def _stays(play: Play) -> bool:
    untrue = play.announced_bytes is not None
    return play.ending is Ending.PROPER and play.framing is not Framing.UNTIL_CLOSE and not untrue and bool(play.status)


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


def _head(play: Play) -> bytes:
    try:
        phrase = HTTPStatus(play.status).phrase
    except ValueError:
        phrase = "Overloaded"
    lines = [f"HTTP/1.1 {play.status} {phrase}", *(f"{name}: {value}" for name, value in play.headers.items())]
    match play.framing:
        case Framing.CHUNKED:
            lines.append("transfer-encoding: chunked")
        case Framing.LENGTH:
            length = len(play.body) if play.announced_bytes is None else play.announced_bytes
            lines.append(f"content-length: {length}")
        case Framing.UNTIL_CLOSE:
            lines.append("connection: close")
    return "\r\n".join([*lines, "", ""]).encode()


def _framed(framing: Framing, data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if framing is Framing.CHUNKED and data else data
