"""A provider that costs next to nothing: fixed answers over HTTP/1.1, from a protocol that parses almost nothing.

`python -m bench.upstream` prints its port and serves until it is ended. Under `/burst` a stream's events are sent back
to back, each in a write of its own; under `/paced` they come every `PACE_SECONDS` after `THINKING_SECONDS`.
"""

from __future__ import annotations

import asyncio
import time

from bench.answers import CHAT, EVENTS_PER_STREAM, MESSAGES, NO_TIME, Answer

PACE_SECONDS = 0.02
THINKING_SECONDS = 0.05
STREAM_SECONDS = THINKING_SECONDS + PACE_SECONDS * EVENTS_PER_STREAM
"""How long a paced stream takes, or a little less."""

_HEADERS_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Upstream(asyncio.Protocol):
    """One connection; requests follow each other on it, never pipelined."""

    def __init__(self) -> None:
        self._received = b""
        self._body_starts = 0
        self._ends = 0
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - TCP transports are
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """Answers as soon as a whole request has come."""
        self._received += data
        if not self._ends:
            self._read_head()
        if self._ends and len(self._received) >= self._ends:
            request, self._received = self._received[: self._ends], self._received[self._ends :]
            self._ends = 0
            self._answer(request, request[self._body_starts :])

    def _read_head(self) -> None:
        end = self._received.find(_HEADERS_END)
        if end < 0:
            return
        head = self._received[:end].lower()
        length = head[head.index(_LENGTH) + len(_LENGTH) :].partition(b"\r\n")[0]
        self._body_starts = end + len(_HEADERS_END)
        self._ends = self._body_starts + int(length)

    def _answer(self, request: bytes, body: bytes) -> None:
        path = request[: request.index(b" HTTP/")]
        answer = MESSAGES if path.endswith(b"/messages") else CHAT
        if b'"stream":true' not in body:
            self._write(answer.whole)
        elif b"/paced/" in path:
            _Paced(self, answer)
        else:
            self._write(answer.head)
            for event in answer.events:
                self._write(event)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


class _Paced:
    """One answer that comes in steps."""

    def __init__(self, upstream: Upstream, answer: Answer) -> None:
        self._write = upstream._write
        self._answer = answer
        self._loop = asyncio.get_running_loop()
        self._started_ns = time.monotonic_ns()
        self._next_at = self._loop.time() + THINKING_SECONDS
        self._loop.call_at(self._next_at, self._begin)

    def _begin(self) -> None:
        opening = self._answer.events[: self._answer.first_content + 1]
        mark = b"@%016d@" % (time.monotonic_ns() - self._started_ns)
        self._write(self._answer.head + b"".join(opening).replace(NO_TIME, mark))
        self._schedule(len(opening))

    def _schedule(self, number: int) -> None:
        if number < len(self._answer.events):
            self._next_at += PACE_SECONDS
            self._loop.call_at(self._next_at, self._step, number)

    def _step(self, number: int) -> None:
        self._write(self._answer.events[number])
        self._schedule(number + 1)


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve())
