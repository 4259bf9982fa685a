"""A provider that does exactly what the test says, byte by byte, over real sockets."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

HELLO: Mapping[str, Any] = {
    "id": "c1",
    "object": "chat.completion",
    "model": "m-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello world"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
}
"""A whole OpenAI answer."""


@dataclass(frozen=True)
class Script:
    """What the provider answers: status, headers and pieces of the body with the pause before each.

    `end` is close (a clean end), stall (the connection stays open and silent), reset (RST), refuse (reset at once).
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})
    pieces: Sequence[tuple[float, bytes]] = ()
    end: str = "close"


def json_script(body: object, status: int = 200, **headers: str) -> Script:
    """A whole JSON answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Script(status, {"content-type": "application/json", **named}, [(0.0, json.dumps(body).encode())])


def raw_script(body: bytes, content_type: str = "application/json", status: int = 200) -> Script:
    """A whole answer of these bytes."""
    return Script(status, {"content-type": content_type}, [(0.0, body)])


def sse_script(*events: object, end: str = "close", done: bool = True) -> Script:
    """A stream of OpenAI chunks; a str is sent as it is."""
    pieces = [(0.0, e.encode() if isinstance(e, str) else b"data: " + json.dumps(e).encode() + b"\n\n") for e in events]
    if done:
        pieces.append((0.0, b"data: [DONE]\n\n"))
    return Script(200, {"content-type": "text/event-stream"}, pieces, end)


def chunk(text: str | None = None, finish: str | None = None) -> dict[str, Any]:
    """One OpenAI chunk."""
    delta = {} if text is None else {"content": text}
    return {"id": "c1", "model": "m-1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def script_of_fault(row: Mapping[str, Any]) -> Script:
    """A row of `provider_faults.jsonl`."""
    pieces = [(delay / 1000, base64.b64decode(piece)) for delay, piece in row["chunks_b64"]]
    return Script(row["status"], row["headers"], pieces * int(row.get("repeat_chunk") or 1), row["end"])


class Upstream:
    """Plays scripts in turn, the last one for ever; counts what it saw."""

    def __init__(self, *scripts: Script) -> None:
        self.scripts = list(scripts)
        self.calls = 0
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.open_connections = 0
        self.nobody_connected = asyncio.Event()
        self.nobody_connected.set()
        self.base_url = ""
        self._writers: set[asyncio.StreamWriter] = set()

    def close(self) -> None:
        """Breaks all connections."""
        for writer in self._writers:
            writer.transport.abort()

    def next_script(self) -> Script:
        """The script of this call."""
        script = self.scripts[min(self.calls, len(self.scripts) - 1)]
        self.calls += 1
        return script

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, one call."""
        self.open_connections += 1
        self.nobody_connected.clear()
        self._writers.add(writer)
        try:
            await self._answer(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open_connections -= 1
            if not self.open_connections:
                self.nobody_connected.set()
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        self.headers.append(headers)
        self.bodies.append(json.loads(await reader.readexactly(int(headers["content-length"]))))
        script = self.next_script()
        if script.status:
            lines = [f"HTTP/1.1 {script.status} X", *(f"{name}: {value}" for name, value in script.headers.items())]
            writer.write("\r\n".join([*lines, "connection: close", "", ""]).encode())
            for pause, piece in script.pieces:
                if pause:
                    await asyncio.sleep(pause)
                writer.write(piece)
                await writer.drain()
        if script.end == "stall":
            await reader.read()
        elif script.end == "reset":
            await asyncio.sleep(0.02)
            writer.transport.abort()


@asynccontextmanager
async def running_upstream(*scripts: Script) -> AsyncGenerator[Upstream, None]:
    """The provider on a free port; an OpenAI-compatible base URL."""
    async with serving(Upstream(*scripts)) as upstream:
        yield upstream


@asynccontextmanager
async def serving(upstream: Upstream) -> AsyncGenerator[Upstream, None]:
    """The same with a provider that has habits of its own."""
    server = await asyncio.start_server(upstream.serve, "127.0.0.1", 0, limit=1 << 24)
    upstream.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield upstream
    finally:
        server.close()
        upstream.close()
        await upstream.nobody_connected.wait()
