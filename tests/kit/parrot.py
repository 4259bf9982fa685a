"""A provider that says again what it was asked last, whole or in small pieces."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from kit.upstream import HELLO, Script, Upstream, chunk, json_script, sse_script

PIECE_CHARACTERS = 3


class Parrot(Upstream):
    """Answers in OpenAI's dialect with this `status`; other than 200, its error quotes the request."""

    status = 200

    def next_script(self) -> Script:
        """The last words of the request, as the request wants them."""
        self.calls += 1
        body = self.bodies[-1]
        text = _text(body["messages"][-1]["content"])
        if self.status != 200:
            return json_script({"error": {"message": f"cannot do: {text}", "type": "server_error"}}, self.status)
        if body.get("stream"):
            pieces = (text[at : at + PIECE_CHARACTERS] for at in range(0, len(text), PIECE_CHARACTERS))
            return sse_script(*map(chunk, pieces), chunk(finish="stop"))
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return json_script({**HELLO, "choices": [choice]})


@asynccontextmanager
async def running_parrot() -> AsyncGenerator[Parrot, None]:
    """It on a free port."""
    parrot = Parrot()
    server = await asyncio.start_server(parrot.serve, "127.0.0.1", 0, limit=1 << 24)
    parrot.base_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield parrot
    finally:
        server.close()
        parrot.close()
        await parrot.nobody_connected.wait()


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)
