"""Readers that are slow, gone or flooding: they cost others nothing."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from kit.load_house import COMPLETE, REQUEST, STREAM, Watched, holding, until, watched
from kit.raw_http2 import BlackHole, flood, messages_in, pings, rapid_resets, raw_caller, settings
from kit.running import one_deployment_each, router, running_service, spec
from kit.upstream import Script, chunk, running_upstream
from pointsman.v1 import answer_pb2
from pointsman.v1.completion_pb2 import GenerationConfig
from pointsman.v1.router_service_pb2 import StreamCompleteRequest

STREAM_REQUEST = StreamCompleteRequest(
    completion=spec(generation=GenerationConfig(max_output_tokens=50_000_000))
).SerializeToString()
"""Whoever answers it may go on for long: what is longer than was asked for is cut."""

MIB = 1 << 20


class TestRow42HalfOpenConnections:
    async def test_a_vanished_caller_frees_its_place(self) -> None:
        async with (
            watched(keepalive_seconds=0.6) as house,
            BlackHole.to(f"127.0.0.1:{house.door.port}") as cable,
            grpc.aio.insecure_channel(cable.target) as channel,
        ):
            calls = [router(channel).Complete(holding()) for _ in range(3)]
            await house.handlers.until_serving(3)
            cable.swallow()
            started_at = time.monotonic()
            await house.handlers.until_serving(0)
            assert time.monotonic() - started_at < 3.0
            assert Counter(house.ended) == {("Complete", "CANCELLED"): 3}
            await house.is_well()
            for call in calls:
                call.cancel()


def endless(text: str, count: int = 100_000) -> Script:
    """A stream of so many pieces, as fast as they are taken."""
    piece = b"data: " + json.dumps(chunk(text)).encode() + b"\n\n"
    return Script(200, {"content-type": "text/event-stream"}, [(0.0, piece)] * count)


class TestRow41SlowReaders:
    async def test_one_that_stops_is_given_up_and_the_provider_is_left(self) -> None:
        async with (
            running_upstream(endless("x" * 2_000)) as upstream,
            slow_reader_house(upstream.base_url, reader_idle_seconds=0.5) as port,
            raw_caller(port) as raw,
        ):
            call = raw.call(STREAM, STREAM_REQUEST)
            await raw.send()
            await raw.read_bytes(call, 1)
            started_at = time.monotonic()
            async with asyncio.timeout(5):
                await upstream.nobody_connected.wait()
            assert 0.4 < time.monotonic() - started_at < 3.0
            raw.open_window(call, 100 * MIB)  # it reads on, and learns why it got no more
            await raw.send()
            await raw.read_until(call)
            assert raw.status(call) == grpc.StatusCode.UNAVAILABLE.value[0]
            assert "were not read" in raw.ends[call]["grpc-message"]
            assert len(raw.bodies[call]) < MIB

    async def test_one_that_pauses_gets_everything_in_fewer_pieces(self) -> None:
        words = [chunk(f"{number} ") for number in range(8_000)]
        pieces = [
            (0.0, b"".join(b"data: " + json.dumps(one).encode() + b"\n\n" for one in words[at : at + 5]))
            for at in range(0, len(words), 5)
        ]
        end = b"data: " + json.dumps(chunk(finish="stop")).encode() + b"\n\ndata: [DONE]\n\n"
        script = Script(200, {"content-type": "text/event-stream"}, [*pieces, (0.0, end)])
        async with (
            running_upstream(script) as upstream,
            slow_reader_house(upstream.base_url, reader_idle_seconds=10) as port,
            raw_caller(port, window_bytes=2_000) as raw,
        ):
            call = raw.call(STREAM, STREAM_REQUEST)
            await raw.send()
            await raw.read_bytes(call, 2_000)
            await asyncio.sleep(0.3)
            raw.open_window(call, 100 * MIB)
            await raw.send()
            await raw.read_until(call, seconds=20)
            assert raw.status(call) == 0
            events = [answer_pb2.StreamCompleteResponse.FromString(one) for one in messages_in(bytes(raw.bodies[call]))]
            deltas = [one.delta.text for one in events if one.HasField("delta")]
            assert "".join(deltas) == "".join(f"{number} " for number in range(8_000))
            assert len(deltas) < 800

    async def test_the_calls_own_end_comes_before_the_readers_patience(self) -> None:
        async with (
            running_upstream(endless("x" * 2_000)) as upstream,
            slow_reader_house(upstream.base_url, reader_idle_seconds=30, stream_timeout_seconds=0.5) as port,
            raw_caller(port) as raw,
        ):
            call = raw.call(STREAM, STREAM_REQUEST)
            await raw.send()
            await raw.read_bytes(call, 1)
            async with asyncio.timeout(5):
                await upstream.nobody_connected.wait()
            raw.open_window(call, 100 * MIB)
            await raw.send()
            await raw.read_until(call)
            assert raw.status(call) == grpc.StatusCode.DEADLINE_EXCEEDED.value[0]

    @pytest.mark.slow
    async def test_200_of_them_cost_little_memory(self) -> None:
        async with watched(most_calls=300) as house, AsyncExitStack() as stack:
            before = resident_bytes()
            for _ in range(200):
                raw = await stack.enter_async_context(raw_caller(house.door.port))
                call = raw.call(STREAM, STREAM_REQUEST)
                await raw.send()
                await raw.read_bytes(call, 60_000)  # the rest of the window is closed
            assert house.door.boundary.gate.in_flight == 200
            assert (resident_bytes() - before) / 200 < 2 * MIB  # callers included
            await house.is_well()


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


@asynccontextmanager
async def slow_reader_house(base_url: str, **settings_: Any) -> AsyncGenerator[int, None]:
    """A whole service with this provider; gives its port."""
    talkative: dict[str, Any] = {"max_output_tokens": 50_000_000, "context_window_tokens": 100_000_000}
    async with running_service(one_deployment_each({"one": base_url}, **talkative), **settings_) as service:
        yield service.port


async def probe_while(house: Watched, flooding: asyncio.Task[Any]) -> list[float]:
    """Seconds that other callers' calls take meanwhile."""
    took: list[float] = []
    while not flooding.done():
        took.append(await house.is_well())
        await asyncio.sleep(0.005)
    return took


def p99(seconds: Sequence[float]) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * 0.99))]


class TestRow44Floods:
    @pytest.mark.slow
    async def test_rapid_resets_are_absorbed(self) -> None:
        async with watched() as house:
            await house.is_well()
            flooding = asyncio.create_task(flood(house.door.port, rapid_resets(COMPLETE, 20_000)))
            took = await probe_while(house, flooding)
            assert p99(took) < 1.0
            await house.is_well()
            await until(lambda: house.door.boundary.active_calls == 0)
            assert house.door.boundary.gate.in_flight == 0

    async def test_a_flood_of_pings_is_turned_away(self) -> None:
        async with watched() as house:
            assert await flood(house.door.port, pings(5_000))
            await house.is_well()

    async def test_a_flood_of_settings_is_absorbed_or_turned_away(self) -> None:
        async with watched() as house:
            flooding = asyncio.create_task(flood(house.door.port, settings(20_000)))
            assert p99(await probe_while(house, flooding)) < 1.0
            await house.is_well()

    async def test_a_window_of_nothing_holds_up_nobody_else(self) -> None:
        async with watched() as house, raw_caller(house.door.port, window_bytes=0) as raw:
            stuck = [raw.call(COMPLETE, REQUEST) for _ in range(50)]
            await raw.send()
            assert p99([await house.is_well() for _ in range(20)]) < 1.0
            await until(lambda: house.door.boundary.gate.in_flight == 0)  # answered, though not yet read
            for one in stuck:
                raw.open_window(one, 1_000)
            await raw.send()
            await raw.read_until(*stuck)
            assert {raw.status(one) for one in stuck} == {0}

    async def test_silence_from_the_start_is_cut(self) -> None:
        async with watched(handshake_seconds=0.5) as house:
            reader, writer = await asyncio.open_connection("127.0.0.1", house.door.port)
            async with asyncio.timeout(5):
                while await reader.read(1 << 16):
                    pass
            writer.close()
            await house.is_well()
