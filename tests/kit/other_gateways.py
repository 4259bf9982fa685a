"""Small OpenAI-compatible gateways, to see what the fault wall says of them: an honest one and a careless one."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

_LOST = (aiohttp.ClientError, ConnectionError, TimeoutError)


class Gateway:
    """Asks its upstreams in turn and passes on what the first sound one sends.

    When a stream breaks, the honest one breaks its caller's too. The `careless` one ends it as if it were whole. Who
    does not send the header that it `needs`, if any, is refused.
    """

    def __init__(self, base_urls: Sequence[str], *, careless: bool, needs: str = "") -> None:
        self._urls = [f"{url}/chat/completions" for url in base_urls]
        self._careless = careless
        self._needs = needs
        # Other than most, it does not keep connections, which would need a retry of its own.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(sock_read=1.0))

    async def close(self) -> None:
        """Closes all connections."""
        await self._session.close()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """One call."""
        if self._needs and self._needs not in request.headers:
            return web.json_response({"error": f"without {self._needs}"}, status=401)
        body = await request.json()
        refusal = web.json_response({"error": "nobody answers"}, status=503)
        for url in self._urls:
            try:
                async with self._session.post(url, json=body) as answer:
                    if answer.status == 200:
                        return await self._pass_on(request, answer, body["stream"])
                    refusal = web.Response(status=answer.status, body=await answer.read())
                    if answer.status == 400:
                        break
            except _LOST:
                continue
        return refusal

    async def _pass_on(self, request: web.Request, answer: aiohttp.ClientResponse, stream: bool) -> web.StreamResponse:
        if not stream:
            return web.json_response(json.loads(await answer.read()))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        ended = False
        try:
            async for piece in answer.content.iter_any():
                if not response.prepared:
                    await response.prepare(request)
                await response.write(piece)
                ended = ended or b"[DONE]" in piece
        except _LOST:
            if not response.prepared:
                raise
        if response.prepared and not ended and not self._careless and request.transport is not None:
            request.transport.abort()
        elif not response.prepared:
            await response.prepare(request)
        return response


@asynccontextmanager
async def running_gateway(base_urls: Sequence[str], *, careless: bool, needs: str = "") -> AsyncGenerator[str, None]:
    """The gateway's own base URL."""
    gateway = Gateway(base_urls, careless=careless, needs=needs)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", gateway.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()
        await gateway.close()
