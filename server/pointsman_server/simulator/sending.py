"""Puts a delivery on the wire: pace, untrue lengths, and all the ways a connection can end."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from aiohttp import web

from pointsman_server.simulator.delivery import Delivery, Ending
from pointsman_server.simulator.dialects.dialect import Frame

_POLL_SECONDS = 0.02
_SETTLE_SECONDS = 0.01
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds before the first piece of content, and tokens a second after it (0: no limit)."""

    first_token_seconds: float = 0.0
    tokens_per_second: float = 0.0

    @property
    def is_immediate(self) -> bool:
        """Whether nothing has to be waited for."""
        return not self.first_token_seconds and not self.tokens_per_second


async def send(request: web.Request, delivery: Delivery, pace: Pace) -> web.StreamResponse:
    """Sends the delivery. Returns what the server framework needs to go on, also when the connection is gone."""
    if delivery.ending is Ending.PROPER and delivery.announced_bytes is not None:
        # Content types are sent as they are: some providers put blanks where the framework would not.
        return web.Response(status=delivery.status, headers=delivery.headers, body=delivery.body)
    if delivery.ending is Ending.CLOSE and delivery.announced_bytes is not None:
        return await _send_raw(request, delivery)
    return await _send_frames(request, delivery, pace)


async def wait_for_caller_to_leave(request: web.Request) -> None:
    """Returns once the connection is gone."""
    # Where the server cancels handlers this never gets that far; elsewhere only the transport tells.
    while request.transport is not None and not request.transport.is_closing():  # noqa: ASYNC110
        await asyncio.sleep(_POLL_SECONDS)


async def _send_frames(request: web.Request, delivery: Delivery, pace: Pace) -> web.StreamResponse:
    response = web.StreamResponse(status=delivery.status or 200, headers=delivery.headers)
    if delivery.announced_bytes is not None:
        response.content_length = delivery.announced_bytes
    if delivery.status:
        await response.prepare(request)
        await _write_frames(response, delivery, pace)
    match delivery.ending:
        case Ending.PROPER:
            await response.write_eof()
        case Ending.CLOSE | Ending.RESET:
            await _hang_up(request, with_reset=delivery.ending is Ending.RESET)
        case Ending.STALL:
            await wait_for_caller_to_leave(request)
        case Ending.PINGS:
            await _ping_for_ever(response, delivery)
    return response


async def _write_frames(response: web.StreamResponse, delivery: Delivery, pace: Pace) -> None:
    if delivery.one_by_one:
        for frame in delivery.frames:
            await response.write(frame.data)
            await asyncio.sleep(0)
    elif pace.is_immediate:
        await response.write(delivery.body)
    else:
        await _write_paced(response, delivery.frames, pace)


async def _write_paced(response: web.StreamResponse, frames: Sequence[Frame], pace: Pace) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time() + pace.first_token_seconds
    waiting: list[bytes] = []
    for frame in frames:
        if frame.tokens:
            # Due times are absolute, so that late wake-ups do not add up; what is overdue goes out together.
            delay = due - loop.time()
            if delay > 0:
                await _write_joined(response, waiting)
                await asyncio.sleep(delay)
            if pace.tokens_per_second:
                due += frame.tokens / pace.tokens_per_second
        waiting.append(frame.data)
    await _write_joined(response, waiting)


async def _write_joined(response: web.StreamResponse, waiting: list[bytes]) -> None:
    if waiting:
        data = b"".join(waiting)
        waiting.clear()
        await response.write(data)


async def _ping_for_ever(response: web.StreamResponse, delivery: Delivery) -> None:
    while True:
        await response.write(delivery.ping)
        await asyncio.sleep(delivery.ping_interval_seconds)


async def _send_raw(request: web.Request, delivery: Delivery) -> web.StreamResponse:
    """Writes past the framework, which would correct the length."""
    transport = request.transport
    if transport is not None:
        reason = HTTPStatus(delivery.status).phrase
        lines = [f"HTTP/1.1 {delivery.status} {reason}"]
        lines += [f"{name}: {value}" for name, value in delivery.headers.items()]
        lines += [f"content-length: {delivery.announced_bytes}", "", ""]
        transport.write("\r\n".join(lines).encode() + delivery.body)
        transport.close()
    return web.Response()


async def _hang_up(request: web.Request, *, with_reset: bool) -> None:
    # What was written should reach the caller before the connection goes.
    await asyncio.sleep(_SETTLE_SECONDS)
    transport = request.transport
    if transport is None:
        return
    if with_reset:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        transport.abort()
    else:
        transport.close()
