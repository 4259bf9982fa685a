"""What is learned about ports and providers, with real sockets."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing

import pytest
from aiohttp import web

from pointsman_server.config.probes import port_fault, reach
from pointsman_server.config.settings import Address


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(1)
        yield listening


def port_of(listening: socket.socket) -> int:
    return int(listening.getsockname()[1])


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return port_of(probe)


def test_taken_port_is_told(listener: socket.socket) -> None:
    assert "in use" in port_fault(Address("127.0.0.1", port_of(listener)))


def test_free_port_and_any_port_are_fine() -> None:
    assert port_fault(Address("127.0.0.1", free_port())) == ""
    assert port_fault(Address("127.0.0.1", 0)) == ""


def test_address_of_another_machine_is_told() -> None:
    assert port_fault(Address("192.0.2.1", 0)) != ""


def test_nothing_listening_is_told() -> None:
    assert reach(f"http://127.0.0.1:{free_port()}/v1").fault == "nothing listens there"


def test_silence_is_told_in_time(listener: socket.socket) -> None:
    found = reach(f"http://127.0.0.1:{port_of(listener)}", timeout_seconds=0.2)
    assert found.fault == "it does not answer in time"
    assert found.seconds < 1


def test_https_to_a_plain_server_is_told() -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with closing(connection):
                connection.recv(1024)
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert reach(f"https://127.0.0.1:{port_of(server)}").fault == "no secure connection can be made"
        thread.join()


@pytest.fixture
async def seen() -> AsyncIterator[tuple[str, list[web.Request]]]:
    requests: list[web.Request] = []

    async def answer(request: web.Request) -> web.Response:
        requests.append(request)
        return web.Response(status=302, headers={"location": "http://169.254.169.254/"})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1", requests
    await runner.cleanup()


async def test_any_answer_counts_and_nothing_of_value_is_sent(
    seen: tuple[str, list[web.Request]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, requests = seen
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    found = await asyncio.to_thread(reach, url)
    assert (found.status, found.fault) == (302, "")
    (request,) = requests
    assert (request.method, request.path) == ("GET", "/v1")
    assert set(map(str.lower, request.headers)) == {"host", "accept-encoding", "user-agent"}
