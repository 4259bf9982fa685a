"""A receiver of webhooks on the loopback interface."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Received:
    """One request."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def content(self) -> dict[str, Any]:
        """The body, which is JSON."""
        return dict(json.loads(self.body))


@dataclass
class Receiver:
    """Answers with these statuses in turn, the last one for ever; while `open` is not set it answers nobody."""

    statuses: Sequence[int] = (204,)
    url: str = ""
    received: list[Received] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.Response:
        """One request."""
        self.received.append(Received(dict(request.headers), await request.read()))
        await self.open.wait()
        status = self.statuses[min(len(self.received), len(self.statuses)) - 1]
        elsewhere = {"location": self.url + "/elsewhere"} if 300 <= status < 400 else {}
        return web.Response(status=status, headers=elsewhere)

    async def have(self, count: int, within_seconds: float = 20.0) -> None:
        """Returns when so many have come."""
        async with asyncio.timeout(within_seconds):
            while len(self.received) < count:  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.01)


@asynccontextmanager
async def receiving(*statuses: int) -> AsyncGenerator[Receiver, None]:
    """A receiver on a free port."""
    receiver = Receiver(statuses or (204,))
    receiver.open.set()
    app = web.Application()
    app.router.add_post("/{path:.*}", receiver.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hooks/pointsman"
    try:
        yield receiver
    finally:
        receiver.open.set()
        await runner.cleanup()
