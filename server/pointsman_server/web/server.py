"""The HTTP side of a process: metrics for Prometheus, and whether it lives and serves. Nothing else is answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

import orjson
import structlog
from aiohttp import hdrs, web

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"
MOST_CONNECTIONS = 64
"""One more closes the oldest, so that connections left open lock nobody out."""

IDLE_SECONDS = 20.0
"""A connection that has sent no whole request for so long is closed; Prometheus asks every 15 seconds by default."""

_MOST_LINE_BYTES = 1_024
_MOST_HEADERS = 64
_MOST_HEADER_BYTES = 8_190
_BACKLOG = 128
_STOP_SECONDS = 0.5

_LOG = structlog.stdlib.get_logger("pointsman.web")

_PATHS = ("/metrics", "/healthz", "/readyz")


class HttpServer:
    """start → serve → stop. `not_ready_because` is asked for each readiness check and gives "" while calls are served.

    `exposition` gives the metrics as text; it runs in a thread, never twice at a time.
    """

    def __init__(
        self, host: str, port: int, *, exposition: Callable[[], bytes], not_ready_because: Callable[[], str]
    ) -> None:
        self._host = host
        self._port = port
        self._exposition = exposition
        self._not_ready_because = not_ready_because
        self._one_at_a_time = asyncio.Lock()
        self._runner: web.ServerRunner | None = None

    async def start(self) -> int:
        """Listens; returns the port. Raises `OSError` when the address is taken."""
        server = _Server(
            self._answer,
            access_log=None,
            keepalive_timeout=IDLE_SECONDS,
            max_line_size=_MOST_LINE_BYTES,
            max_headers=_MOST_HEADERS,
            max_field_size=_MOST_HEADER_BYTES,
            lingering_time=0.0,  # a body that nobody asked for is not read
        )
        self._runner = web.ServerRunner(server, shutdown_timeout=_STOP_SECONDS)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port, backlog=_BACKLOG).start()
        except OSError as error:
            await self.stop()
            raise OSError(f"cannot listen on {self._host}:{self._port} for HTTP: {error.strerror}") from error
        return int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stops listening and closes all connections."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path not in _PATHS:
            return _plain(HTTPStatus.NOT_FOUND)
        if request.method != hdrs.METH_GET:
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED, {hdrs.ALLOW: hdrs.METH_GET})
        if request.path == "/metrics":
            return await self._metrics()
        if request.path == "/healthz":
            return _json(HTTPStatus.OK, {"status": "alive"})
        reason = self._not_ready_because()
        if reason:
            return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"status": "not_ready", "reason": reason})
        return _json(HTTPStatus.OK, {"status": "ready"})

    async def _metrics(self) -> web.Response:
        async with self._one_at_a_time:
            text = await asyncio.to_thread(self._exposition)
        return _response(HTTPStatus.OK, text, PROMETHEUS_TEXT)


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        oldest = self.connections[0]
        if len(self.connections) > MOST_CONNECTIONS and oldest.transport is not None:
            oldest.transport.abort()


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        # The library's answer quotes the request and tells its own version; its log line has the traceback.
        if status == HTTPStatus.INTERNAL_SERVER_ERROR:
            _LOG.error("http_request_failed", error=type(exc).__name__)
        response = _plain(HTTPStatus(status))
        response.force_close()
        return response


def _json(status: HTTPStatus, body: dict[str, str]) -> web.Response:
    return _response(status, orjson.dumps(body) + b"\n", "application/json")


def _plain(status: HTTPStatus, headers: dict[str, str] | None = None) -> web.Response:
    return _response(status, f"{status.phrase}\n".encode(), "text/plain; charset=utf-8", headers)


def _response(
    status: HTTPStatus, body: bytes, content_type: str, headers: dict[str, str] | None = None
) -> web.Response:
    fixed: dict[str, str] = {
        hdrs.CONTENT_TYPE: content_type,
        hdrs.SERVER: "pointsman",  # otherwise the library's name and version
        hdrs.CACHE_CONTROL: "no-store",
    }
    return web.Response(status=status, body=body, headers={**fixed, **(headers or {})})
