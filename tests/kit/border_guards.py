"""Providers that note who was sent what: every text names the class and the regions that its data is bound to."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import orjson
from aiohttp import web

CLASSES = ("public", "internal", "confidential", "restricted")
_MARK = re.compile(r"bound<(\w+):([a-z,]*):\w+>")


@dataclass(frozen=True)
class Approval:
    """What a deployment may see."""

    data_class: str
    regions: frozenset[str]

    def covers(self, data_class: str, regions: Collection[str]) -> bool:
        """Whether data of this class, bound to these regions, may go there."""
        is_in = not regions or not self.regions.isdisjoint(regions)
        return CLASSES.index(data_class) <= CLASSES.index(self.data_class) and is_in


def mark(data_class: str, regions: Collection[str], name: str) -> str:
    """A word to be put in a text: the class and regions that its data is bound to; `name` tells texts apart."""
    return f"bound<{data_class}:{','.join(sorted(regions))}:{name}>"


@dataclass
class Border:
    """Providers at `URL/place/v1`, one for each place; `moods` are what they may do, drawn anew for each call.

    `trespasses` are the calls that held what the place is not approved for, `unmarked` those that held no mark.
    """

    approvals: Mapping[str, Approval]
    random: Random
    moods: Mapping[str, tuple[str, ...]]
    seen: dict[str, int] = field(default_factory=dict)
    trespasses: list[str] = field(default_factory=list)
    unmarked: list[str] = field(default_factory=list)
    url: str = ""

    def note(self, place: str, body: bytes) -> None:
        """Somebody sent this to a place."""
        self.seen[place] = self.seen.get(place, 0) + 1
        marks = _MARK.findall(body.decode())
        if not marks:
            self.unmarked.append(place)
        for data_class, regions in marks:
            if not self.approvals[place].covers(data_class, [one for one in regions.split(",") if one]):
                self.trespasses.append(f"{place}: {data_class} data bound to [{regions}]")

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """OpenAI's chat completions, in a mood."""
        place, raw = request.match_info["place"], await request.read()
        self.note(place, raw)
        mood = self.random.choice(self.moods[place])
        if mood == "slow":
            await asyncio.sleep(0.25)
        if mood == "failing":
            return web.json_response({"error": {"message": "no"}}, status=503)
        if orjson.loads(raw).get("stream"):
            return await self._stream(request, breaks_off=mood == "breaking")
        choice = {"index": 0, "message": {"role": "assistant", "content": "So it is."}, "finish_reason": "stop"}
        return web.json_response({"id": "c", "object": "chat.completion", "model": "m-1", "choices": [choice]})

    async def vectors(self, request: web.Request) -> web.StreamResponse:
        """OpenAI's embeddings, in a mood."""
        place, raw = request.match_info["place"], await request.read()
        self.note(place, raw)
        if self.random.choice(self.moods[place]) in ("failing", "breaking"):
            return web.json_response({"error": {"message": "no"}}, status=503)
        data = [{"index": n, "embedding": [1.0, 0.0]} for n, _ in enumerate(orjson.loads(raw)["input"])]
        usage = {"prompt_tokens": 2, "total_tokens": 2}
        return web.json_response({"object": "list", "data": data, "model": "m-1", "usage": usage})

    async def _stream(self, request: web.Request, *, breaks_off: bool) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        with suppress(ConnectionResetError):  # a race was lost, and we are hung up on
            await self._say(response, request, breaks_off=breaks_off)
        return response

    async def _say(self, response: web.StreamResponse, request: web.Request, *, breaks_off: bool) -> None:
        await response.prepare(request)
        for word in ("So it ", "is, and ", "so it stays."):
            await response.write(_event({"content": word}, None))
            if breaks_off and request.transport is not None:
                await asyncio.sleep(0.01)
                request.transport.close()
                return
        await response.write(_event({}, "stop") + b"data: [DONE]\n\n")


def _event(delta: Mapping[str, Any], finish: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + orjson.dumps({"id": "c", "model": "m-1", "choices": [choice]}) + b"\n\n"


@asynccontextmanager
async def running_border(
    approvals: Mapping[str, Approval], moods: Mapping[str, tuple[str, ...]], seed: int
) -> AsyncGenerator[Border, None]:
    """They on a free port."""
    border = Border(approvals, Random(seed), moods)
    app = web.Application(client_max_size=1 << 24)
    app.router.add_post("/{place}/v1/chat/completions", border.chat)
    app.router.add_post("/{place}/v1/embeddings", border.vectors)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    border.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield border
    finally:
        await runner.cleanup()
