"""Calls over HTTP in the shape of gRPC's: what the load generator drives when the server is another gateway."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

import aiohttp

_HEADERS = {"content-type": "application/json"}
_EVENT_END = b"\n\n"


def http_method(
    session: aiohttp.ClientSession, url: str, *, stream: bool
) -> Callable[..., Awaitable[bytes] | AsyncGenerator[bytes, None]]:
    """Posts a body to this address: to be awaited for a whole answer, or iterated for a stream's events.

    Raises `aiohttp.ClientError`, for refusals too, or `TimeoutError`.
    """

    def post(request: bytes, timeout: float) -> aiohttp.client._RequestContextManager:
        limit = aiohttp.ClientTimeout(total=timeout)
        return session.post(url, data=request, headers=_HEADERS, timeout=limit, raise_for_status=True)

    async def whole(request: bytes, timeout: float) -> bytes:  # noqa: ASYNC109 - as gRPC names it
        async with post(request, timeout) as response:
            return await response.read()

    async def events(request: bytes, timeout: float) -> AsyncGenerator[bytes, None]:  # noqa: ASYNC109
        rest = b""
        async with post(request, timeout) as response:
            async for data in response.content.iter_any():
                *found, rest = (rest + data).split(_EVENT_END)
                for event in found:
                    yield event

    return events if stream else whole
