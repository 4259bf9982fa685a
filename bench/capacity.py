"""How much the upstream could serve by itself, so that nobody takes it for the limit."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from bench.answers import CHAT
from bench.machine import cores, cpu_seconds, on_core
from bench.payloads import chat_body
from bench.processes import Server

_CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Capacity:
    """Answers for each second of one core, whole and streamed."""

    whole_per_second: float
    streams_per_second: float


def measure_upstream(upstream: Server, seconds: float) -> Capacity:
    """Asks over raw connections, from the servers' core, which is idle then."""
    pair = cores()
    with on_core(pair[0] if pair else None):
        return Capacity(
            asyncio.run(_rate(upstream, _request(stream=False), len(CHAT.whole), seconds)),
            asyncio.run(_rate(upstream, _request(stream=True), _stream_bytes(), seconds)),
        )


async def _rate(upstream: Server, request: bytes, response_bytes: int, seconds: float) -> float:
    before, ends_at = cpu_seconds(upstream.pid), time.monotonic() + seconds
    counts = await asyncio.gather(*(_ask(upstream, request, response_bytes, ends_at) for _ in range(_CONNECTIONS)))
    return sum(counts) / max(cpu_seconds(upstream.pid) - before, 1e-9)


async def _ask(upstream: Server, request: bytes, response_bytes: int, ends_at: float) -> int:
    host, _, port = upstream.address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    count = 0
    while time.monotonic() < ends_at:
        writer.write(request)
        await reader.readexactly(response_bytes)
        count += 1
    writer.close()
    await writer.wait_closed()
    return count


def _request(*, stream: bool) -> bytes:
    body = chat_body(stream=stream)
    return b"POST /burst/v1/chat/completions HTTP/1.1\r\nhost: upstream\r\ncontent-length: %d\r\n\r\n%b" % (
        len(body),
        body,
    )


def _stream_bytes() -> int:
    return len(CHAT.head) + sum(map(len, CHAT.events))
