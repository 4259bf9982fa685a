from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
import structlog

from kit.catalog import deployment, snapshot
from kit.clock import FakeClock
from kit.scraping import Scrape
from pointsman_server.adapters.telemetry.metrics import Metrics
from pointsman_server.web import server
from pointsman_server.web.server import HttpServer


class Answer(NamedTuple):
    """What came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes


class Site:
    """A running server; `state` is why it is not ready."""

    def __init__(self, exposition: Callable[[], bytes]) -> None:
        self.state = ""
        self.http = HttpServer("127.0.0.1", 0, exposition=exposition, not_ready_because=lambda: self.state)
        self.port = 0

    async def get(self, path: str, method: str = "GET", more: str = "") -> Answer:
        """One request on a connection of its own."""
        return await self.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{more}\r\n".encode())

    async def send(self, raw: bytes) -> Answer:
        """These bytes, and what comes until the connection ends."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(raw)
            head, _, body = (await asyncio.wait_for(reader.read(), 5)).partition(b"\r\n\r\n")
        finally:
            writer.close()
        status, *lines = head.decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        return Answer(int(status.split()[1]), headers, body)


@asynccontextmanager
async def site(exposition: Callable[[], bytes] = lambda: b"# none\n") -> AsyncGenerator[Site, None]:
    running = Site(exposition)
    running.port = await running.http.start()
    try:
        yield running
    finally:
        await running.http.stop()


async def test_metrics_are_read_as_prometheus_reads_them() -> None:
    metrics = Metrics(lambda: snapshot(deployment("a")), FakeClock(), "1.2.3")
    metrics.observe("Complete", "OK", 0.2)
    async with site(metrics.exposition) as running:
        answer = await running.get("/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert Scrape(answer.body).value("pointsman_requests_total", method="Complete", code="OK") == 1


async def test_alive() -> None:
    async with site() as running:
        running.state = "draining"
        answer = await running.get("/healthz")
    assert (answer.status, json.loads(answer.body)) == (200, {"status": "alive"})


async def test_ready_while_calls_are_served() -> None:
    async with site() as running:
        ready = await running.get("/readyz")
        running.state = "draining"
        draining = await running.get("/readyz")
    assert (ready.status, json.loads(ready.body)) == (200, {"status": "ready"})
    assert (draining.status, json.loads(draining.body)) == (503, {"status": "not_ready", "reason": "draining"})
    assert draining.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/", "/metrics/", "/metrics/x", "/debug", "//metrics", "/%2e%2e/etc/passwd"])
async def test_nothing_else_is_there(path: str) -> None:
    async with site() as running:
        assert (await running.get(path)).status == 404


async def test_a_query_does_not_matter() -> None:
    async with site() as running:
        assert (await running.get("/healthz?x=1")).status == 200


@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz"])
async def test_only_get(method: str, path: str) -> None:
    async with site() as running:
        answer = await running.get(path, method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET"


def broken() -> bytes:
    raise RuntimeError("canary")


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 500),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 200),
        (b"GET /canary HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 404),
        (b"canary\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\ncanary\x00: canary\r\n\r\n", 400),
        (b"GET /" + b"a" * 5_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: 1\r\n" * 100 + b"\r\n", 400),
    ],
    ids=["a fault of ours", "fine", "unknown", "no HTTP", "bad header", "long path", "long header", "many headers"],
)
async def test_no_answer_tells_a_version_or_quotes_anything(raw: bytes, status: int) -> None:
    with structlog.testing.capture_logs() as logs:
        async with site(broken) as running:
            answer = await running.send(raw)
            assert (await running.get("/healthz")).status == 200
    assert answer.status == status
    fault = {"event": "http_request_failed", "log_level": "error", "error": "RuntimeError"}
    assert logs == ([fault] if status == 500 else [])
    assert answer.headers["server"] == "pointsman"
    everything = str(answer).lower()
    assert "canary" not in everything
    assert "python" not in everything
    assert "aiohttp" not in everything


async def test_a_body_nobody_asked_for_is_not_read() -> None:
    async with site() as running:
        answer = await running.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc")
    assert answer.status == 200


async def test_metrics_are_made_beside_the_event_loop_and_one_at_a_time() -> None:
    running_now: list[int] = []
    most: list[int] = []

    def exposition() -> bytes:
        running_now.append(threading.get_ident())
        most.append(len(running_now))
        time.sleep(0.05)
        running_now.pop()
        return b""

    async with site(exposition) as running:
        scrapes = [asyncio.create_task(running.get("/metrics")) for _ in range(3)]
        await asyncio.sleep(0.02)
        assert (await running.get("/healthz")).status == 200
        assert not all(scrape.done() for scrape in scrapes)
        assert [(await scrape).status for scrape in scrapes] == [200, 200, 200]
    assert most == [1, 1, 1]


async def test_connections_that_say_nothing_lock_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MOST_CONNECTIONS", 3)
    async with site() as running:
        silent = [await asyncio.open_connection("127.0.0.1", running.port) for _ in range(3)]
        assert (await running.get("/healthz")).status == 200
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(silent[0][0].readexactly(1), 5)
        for _, writer in silent:
            writer.close()


@pytest.mark.parametrize("half", [b"", b"GET /healthz HT"])
async def test_a_connection_without_a_whole_request_is_closed(monkeypatch: pytest.MonkeyPatch, half: bytes) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.1)
    async with site() as running:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(half)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


async def test_an_address_that_is_taken() -> None:
    async with site() as running:
        second = HttpServer("127.0.0.1", running.port, exposition=lambda: b"", not_ready_because=lambda: "")
        with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1:{running.port} for HTTP"):
            await second.start()
        await second.stop()
        assert (await running.get("/healthz")).status == 200


async def test_after_the_end_nobody_listens() -> None:
    async with site() as running:
        pass
    with pytest.raises(ConnectionRefusedError):
        await running.get("/healthz")
    await running.http.stop()
