"""The floors: what gRPC and HTTP cost by themselves, with nothing of a router's work.

`python -m bench.floors UPSTREAM` prints its port and serves until it is ended. `Echo` sends the request back. The
relays ignore the request's content, post a fixed body to the upstream and hand back its bytes unread: `Whole` a whole
answer, `Events` a stream with a message for every event, `Reads` one with a message for all that had come.
"""

from __future__ import annotations

import sys
from typing import Any

import aiohttp
import grpc
import uvloop

from bench.payloads import chat_body

SERVICE = "bench.Floor"

_HEADERS = {"content-type": "application/json"}
_Context = Any


class Floor:
    """The handlers; requests and responses are bytes."""

    def __init__(self, upstream: str, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._burst = f"{upstream}/burst/v1/chat/completions"
        self._paced = f"{upstream}/paced/v1/chat/completions"
        self._whole_body, self._stream_body = chat_body(stream=False), chat_body(stream=True)

    async def echo(self, request: bytes, context: _Context) -> bytes:
        """The request."""
        return request

    async def whole(self, request: bytes, context: _Context) -> bytes:
        """The upstream's body."""
        async with self._session.post(self._burst, data=self._whole_body, headers=_HEADERS) as response:
            return await response.read()

    async def events(self, request: bytes, context: _Context) -> None:
        """The upstream's events one by one."""
        rest = b""
        async with self._session.post(self._burst, data=self._stream_body, headers=_HEADERS) as response:
            async for chunk in response.content.iter_any():
                *events, rest = (rest + chunk).split(b"\n\n")
                for event in events:
                    await context.write(event)

    async def reads(self, request: bytes, context: _Context) -> None:
        """What each read brings."""
        await self._relay_reads(self._burst, context)

    async def paced(self, request: bytes, context: _Context) -> None:
        """The same of a paced stream."""
        await self._relay_reads(self._paced, context)

    async def _relay_reads(self, url: str, context: _Context) -> None:
        async with self._session.post(url, data=self._stream_body, headers=_HEADERS) as response:
            async for chunk in response.content.iter_any():
                await context.write(chunk)

    def handlers(self) -> grpc.GenericRpcHandler:
        """What the server is given."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Echo": unary(self.echo),
            "Whole": unary(self.whole),
            "Events": stream(self.events),
            "Reads": stream(self.reads),
            "Paced": stream(self.paced),
        }
        return grpc.method_handlers_generic_handler(SERVICE, methods)


async def _serve(upstream: str) -> None:
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar()) as session:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((Floor(upstream, session).handlers(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        print(port, flush=True)
        await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
