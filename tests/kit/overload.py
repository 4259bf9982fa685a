"""A server under more load than it takes, in a process of its own: `PYTHONPATH=tests python -m kit.overload`.

The server has so many places and takes so long for each call that it can end a known number of calls a second. Calls
come evenly, whether earlier ones are answered or not; refused ones do not come back. Then there are 200 readers that do
not read, and a flood of cancelled calls.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import psutil
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.house import open_door
from kit.raw_http2 import flood, rapid_resets, raw_caller
from kit.running import router, spec
from pointsman.v1 import answer_pb2, router_service_pb2_grpc
from pointsman.v1.router_service_pb2 import CompleteRequest, StreamCompleteRequest

COMPLETE = "/pointsman.v1.RouterService/Complete"
STREAM = "/pointsman.v1.RouterService/StreamComplete"

PLACES = 20
SERVICE_SECONDS = 0.2
CAPACITY_PER_SECOND = PLACES / SERVICE_SECONDS
CONNECTIONS = 4


class Slow(router_service_pb2_grpc.RouterServiceServicer):
    """Every answer takes the same time and no work; streams go on as long as they are read."""

    async def Complete(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(SERVICE_SECONDS)
        return answer_pb2.CompleteResponse(request_id="done")

    async def StreamComplete(self, request: Any, context: Any) -> None:  # type: ignore[override]
        piece = answer_pb2.StreamCompleteResponse(delta=answer_pb2.Delta(text="x" * 64_000))
        while True:
            await context.write(piece)


@dataclass(frozen=True)
class Server:
    """A server in a process of its own."""

    port: int
    process: psutil.Process

    @property
    def resident_bytes(self) -> int:
        """Its memory."""
        return int(self.process.memory_info().rss)

    @property
    def cpu_seconds(self) -> float:
        """The time it used so far."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


@dataclass
class Outcome:
    """What became of the calls of one run."""

    load: float
    seconds: float
    served: int = 0
    refused_after: list[float] = field(default_factory=list)
    others: int = 0

    @property
    def goodput(self) -> float:
        """Answered calls a second, as a share of what the server can do."""
        return self.served / self.seconds / CAPACITY_PER_SECOND

    def refused_within(self, share: float) -> float:
        """Seconds within which this share of the refusals arrived."""
        ordered = sorted(self.refused_after)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


@asynccontextmanager
async def overloaded_server(places: int = PLACES) -> AsyncGenerator[Server, None]:
    """The server, started."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kit.overload",
        "serve",
        str(places),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    try:
        yield Server(int(await process.stdout.readline()), psutil.Process(process.pid))
    finally:
        process.kill()
        await process.wait()


async def offer(server: Server, load: float, seconds: float) -> Outcome:
    """Calls for so long, at so many times what the server can do."""
    outcome = Outcome(load, seconds)
    async with AsyncExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        stubs: list[Any] = [
            router(
                await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{server.port}", options=options))
            )
            for _ in range(CONNECTIONS)
        ]
        count = round(load * CAPACITY_PER_SECOND * seconds)
        began_at = time.monotonic()
        calls = []
        for number in range(count):
            await asyncio.sleep(max(0.0, began_at + number / count * seconds - time.monotonic()))
            calls.append(asyncio.create_task(_call(stubs[number % CONNECTIONS], outcome)))
        await asyncio.gather(*calls)
    return outcome


async def _call(stub: Any, outcome: Outcome) -> None:
    started_at = time.monotonic()
    try:
        await stub.Complete(CompleteRequest(completion=spec()), timeout=10)
        outcome.served += 1
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
            outcome.refused_after.append(time.monotonic() - started_at)
        else:
            outcome.others += 1


async def _serve(places: int) -> None:
    structlog.configure(processors=[_drop])  # where the lines go is not what is measured
    handlers: Any = Slow  # serves what is asked for here, and nothing else
    async with open_door(handlers(), most_calls=places) as door:
        print(door.port, flush=True)
        await asyncio.Event().wait()


def _drop(logger: Any, method: str, event: Any) -> Any:
    raise structlog.DropEvent


async def slow_readers(server: Server, count: int, window_bytes: int | None) -> float:
    """Bytes of memory that each of so many readers costs the server; a window of None is HTTP/2's default."""
    before = server.resident_bytes
    async with AsyncExitStack() as stack:
        for _ in range(count):
            raw = await stack.enter_async_context(raw_caller(server.port, window_bytes))
            call = raw.call(STREAM, StreamCompleteRequest(completion=spec()).SerializeToString())
            await raw.send()
            await raw.read_bytes(call, 1)
        await asyncio.sleep(1.0)
        return (server.resident_bytes - before) / count


async def flooded(server: Server, count: int) -> tuple[list[float], float]:
    """How long others' health checks take during so many cancelled calls, and the server's seconds of CPU."""
    before, took = server.cpu_seconds, []
    async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        flooding = asyncio.create_task(flood(server.port, rapid_resets(COMPLETE, count)))
        while not flooding.done():
            started_at = time.monotonic()
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
            took.append(time.monotonic() - started_at)
            await asyncio.sleep(0.002)
    return sorted(took), server.cpu_seconds - before


async def _report(loads: Sequence[float], seconds: float) -> None:
    print(f"{PLACES} places, {CAPACITY_PER_SECOND:.0f} calls/s possible")
    async with overloaded_server() as server:
        for load in loads:
            done = await offer(server, load, seconds)
            print(
                f"{load:g}x: served {done.goodput:.0%}, refused {len(done.refused_after)} within "
                f"p50 {done.refused_within(0.5) * 1e3:.1f} ms, p99 {done.refused_within(0.99) * 1e3:.1f} ms, "
                f"other ends {done.others}"
            )
        took, cpu_seconds = await flooded(server, 20_000)
        print(
            f"20,000 calls begun and cancelled: {cpu_seconds:.2f} s of CPU, health checks meanwhile within "
            f"p50 {took[len(took) // 2] * 1e3:.1f} ms, p99 {took[int(len(took) * 0.99)] * 1e3:.1f} ms"
        )
    for name, window_bytes in (("the default window", None), ("the largest window", 2**31 - 1)):
        async with overloaded_server(places=1_000) as server:
            each = await slow_readers(server, 200, window_bytes)
            print(f"200 readers with {name} that do not read: {each / 1e6:.2f} MB each")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", places]:
            asyncio.run(_serve(int(places)))
        case _:
            asyncio.run(_report((0.5, 1.0, 2.0, 4.0), 5.0))
