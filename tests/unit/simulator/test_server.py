"""Starting, stopping, logging and pacing."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from pointsman_server.simulator import calls as call_log
from pointsman_server.simulator.app import build_app
from pointsman_server.simulator.calls import CallLog, ReceivedCall
from pointsman_server.simulator.script import Behaviour, Dialect, Fault, Rule, Script
from pointsman_server.simulator.server import RunningSimulator, start_simulator
from unit.simulator.sdk_reading import KEY
from unit.simulator.wire_client import events


async def until(condition: Any) -> None:
    async with asyncio.timeout(2):
        while not condition():  # noqa: ASYNC110 - nothing tells but the condition itself
            await asyncio.sleep(0.005)


async def test_health(raw: Any) -> None:
    async with raw.session.get("/healthz") as response:
        assert (response.status, await response.json()) == (200, {"status": "ok"})


async def test_listens_on_loopback_alone(simulator: RunningSimulator) -> None:
    assert simulator.base_url.startswith("http://127.0.0.1:")
    own = socket.gethostbyname(socket.gethostname())
    if own.startswith("127."):
        pytest.skip("this machine has no address beside loopback")
    with pytest.raises(OSError, match=r"refused|Connect call failed"):
        await asyncio.open_connection(own, int(simulator.base_url.rpartition(":")[2]))


async def test_a_taken_port_is_an_error(simulator: RunningSimulator) -> None:
    with pytest.raises(OSError, match="address"):
        await start_simulator(port=int(simulator.base_url.rpartition(":")[2]))


async def test_log_of_calls(raw: Any, simulator: RunningSimulator) -> None:
    await raw.send(Dialect.OPENAI_CHAT, temperature=0.5)
    path = "/v1beta/models/models%2Fg:generateContent?key=in-the-query"
    async with raw.session.post(path, json={"contents": []}) as response:
        assert response.status == 400
    first, second = simulator.calls
    assert (first.dialect, first.path, first.model) == (Dialect.OPENAI_CHAT, "/v1/chat/completions", "some-model")
    assert first.body["temperature"] == 0.5
    assert first.headers["content-type"] == "application/json"
    assert first.has_key
    assert first.key_sha256 == hashlib.sha256(KEY.encode()).hexdigest()
    assert KEY not in repr(first)
    assert second.key_sha256 == hashlib.sha256(b"in-the-query").hexdigest()
    assert simulator.calls[-1:] == (second,)
    simulator.calls.clear()
    assert (len(simulator.calls), simulator.calls.total) == (0, 0)


@pytest.mark.parametrize("name", ["x-api-key", "X-Goog-Api-Key", "api-key", "Authorization"])
def test_keys_are_hashed_out_of_headers(name: str) -> None:
    headers, key_sha256 = call_log.split_headers({name: "secret", "Other": "kept"}, "")
    assert headers == {"other": "kept"}
    assert key_sha256 == hashlib.sha256(b"secret").hexdigest()
    assert call_log.split_headers({"Other": "kept"}, "") == ({"other": "kept"}, "")


def test_log_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(call_log, "MAX_CALLS", 3)
    monkeypatch.setattr(call_log, "MAX_BYTES", 100)
    log = CallLog()

    def add(size: int) -> None:
        log.add(ReceivedCall(Dialect.COHERE, "/v2/chat", "m", {}, "", b"x" * size))

    for size in (1, 2, 3, 4):
        add(size)
    assert [len(call.raw_body) for call in log] == [2, 3, 4]
    add(99)
    assert [len(call.raw_body) for call in log] == [99]
    add(1000)
    assert (len(log), log.total, log[0].body) == (1, 6, None)


async def test_open_connections_follow_the_callers(raw: Any, simulator: RunningSimulator) -> None:
    assert simulator.open_connections == 0
    waiting = [asyncio.create_task(raw.send(Dialect.ANTHROPIC, model="sim-fault-stall_headers")) for _ in range(3)]
    await until(lambda: simulator.open_connections == 3)
    waiting[0].cancel()
    await until(lambda: simulator.open_connections == 2)
    for task in waiting:
        task.cancel()
    await until(lambda: simulator.open_connections == 0)


async def test_callers_that_leave_in_the_middle_of_a_stream(raw: Any, simulator: RunningSimulator) -> None:
    simulator.use(Script((Rule(Behaviour(tokens_per_second=100, output_tokens=10_000)),)))
    async with raw.open(Dialect.OPENAI_CHAT, stream=True) as response:
        await response.content.readany()
        assert simulator.open_connections == 1
        response.close()
    await until(lambda: simulator.open_connections == 0)


@pytest.mark.parametrize("fault", [Fault.STALL_HEADERS, Fault.STALL_MID_STREAM, Fault.PINGS_ONLY])
async def test_without_cancelled_handlers_a_stall_ends_all_the_same(fault: Fault) -> None:
    """The application may be served by a server that lets handlers run on when the caller has left."""
    app = build_app(Script((Rule(Behaviour(fault=fault, ping_interval_seconds=0.01)),)))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/v2/chat"
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    async with aiohttp.ClientSession() as session:
        with pytest.raises(TimeoutError):
            await read_all(session, url, body)
    started = time.monotonic()
    await runner.cleanup()
    assert time.monotonic() - started < 1, "a handler was still waiting"


async def read_all(session: aiohttp.ClientSession, url: str, body: Any) -> None:
    async with session.post(url, json=body, timeout=aiohttp.ClientTimeout(total=0.1)) as response:
        await response.read()


async def test_stop_cuts_what_is_served() -> None:
    simulator = await start_simulator(script=Script((Rule(Behaviour(fault=Fault.STALL_MID_STREAM)),)))
    async with aiohttp.ClientSession(simulator.base_url) as session:
        body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
        async with session.post("/v2/chat", json=body) as response:
            await response.content.readany()
            started = time.monotonic()
            await simulator.stop()
            assert time.monotonic() - started < 1
            with pytest.raises(aiohttp.ClientError):
                await response.read()


async def test_calls_are_counted_per_rule(raw: Any, simulator: RunningSimulator) -> None:
    simulator.use(
        Script(
            (
                Rule(Behaviour(fault=Fault.STATUS_500), "a*", last_call=2),
                Rule(Behaviour(fault=Fault.STATUS_429), "*", Dialect.COHERE, first_call=2, last_call=2),
            )
        )
    )

    async def statuses(dialect: Dialect, model: str, times: int) -> list[int]:
        return [(await raw.send(dialect, model=model)).status for _ in range(times)]

    assert await statuses(Dialect.OPENAI_CHAT, "b", 2) == [200, 200]
    assert await statuses(Dialect.COHERE, "b", 3) == [200, 429, 200]
    assert await statuses(Dialect.OPENAI_CHAT, "abc", 3) == [500, 500, 200]
    simulator.use(Script((Rule(Behaviour(fault=Fault.STATUS_500), last_call=1),)))
    assert await statuses(Dialect.OPENAI_CHAT, "abc", 2) == [500, 200]


async def test_ids_repeat_with_the_seed_and_never_within(raw: Any, simulator: RunningSimulator) -> None:
    async def ids(seed: int) -> list[str]:
        simulator.use(Script(seed=seed))
        return [(await raw.send(Dialect.ANTHROPIC)).json["id"] for _ in range(3)]

    first = await ids(1)
    assert len(set(first)) == 3
    assert await ids(1) == first
    assert not set(await ids(2)) & set(first)


async def timed(raw: Any, behaviour_stream: bool) -> tuple[float, float, int]:
    """Seconds to the headers, seconds to the end, chunks."""
    started = time.monotonic()
    async with raw.open(Dialect.OPENAI_CHAT, stream=behaviour_stream) as response:
        headers_after = time.monotonic() - started
        chunks = 0
        body = b""
        async for chunk in response.content.iter_any():
            chunks += 1
            body += chunk
        return headers_after, time.monotonic() - started, chunks if behaviour_stream else len(body)


async def test_pace(raw: Any, simulator: RunningSimulator) -> None:
    behaviour = Behaviour(latency_seconds=0.05, first_token_seconds=0.1, tokens_per_second=200, output_tokens=40)
    simulator.use(Script((Rule(behaviour),)))
    headers_after, all_after, chunks = await timed(raw, True)
    # Never early; late only as far as a busy machine makes it.
    assert 0.05 <= headers_after < all_after
    assert all_after >= 0.05 + 0.1 + 39 / 200 - 0.01
    assert chunks > 1
    headers_after, all_after, _ = await timed(raw, False)
    assert headers_after >= 0.05 + 0.1 + 40 / 200 - 0.01


async def test_paced_and_immediate_streams_have_the_same_events(raw: Any, simulator: RunningSimulator) -> None:
    bodies = []
    for rate in (0, 2000):
        simulator.use(Script((Rule(Behaviour(tokens_per_second=rate, output_tokens=30)),), seed=5))
        bodies.append(events((await raw.send(Dialect.COHERE, stream=True)).body))
    assert bodies[0] == bodies[1]


@pytest.mark.slow
def test_blocking_entry_serves_until_it_is_told_to_end() -> None:
    code = (
        "from pointsman_server.simulator.server import run_simulator\n"
        "run_simulator(port=0, on_ready=lambda url: print(url, flush=True))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    killer = threading.Timer(20, process.kill)
    killer.start()
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(f"{url}/healthz") as response:
            assert response.status == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
    finally:
        killer.cancel()
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
