"""A server under more load than it takes, each in its own process: `PYTHONPATH=tests python -m kit.overload`.

The server has so many places and takes so long for each call that it can end a known number of calls a second. Calls
come evenly, whether earlier ones are answered or not; refused ones do not come back.
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
import structlog

from kit.house import open_door
from kit.running import router, spec
from pointsman.v1 import answer_pb2, router_service_pb2_grpc
from pointsman.v1.router_service_pb2 import CompleteRequest

PLACES = 20
SERVICE_SECONDS = 0.2
CAPACITY_PER_SECOND = PLACES / SERVICE_SECONDS
CONNECTIONS = 4


class Slow(router_service_pb2_grpc.RouterServiceServicer):
    """Every answer takes the same time and no work."""

    async def Complete(self, request: Any, context: Any) -> Any:
        await asyncio.sleep(SERVICE_SECONDS)
        return answer_pb2.CompleteResponse(request_id="done")


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
async def overloaded_server() -> AsyncGenerator[int, None]:
    """The server in a process of its own; gives its port."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "kit.overload",
        "serve",
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    try:
        yield int(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


async def offer(port: int, load: float, seconds: float) -> Outcome:
    """Calls for so long, at so many times what the server can do."""
    outcome = Outcome(load, seconds)
    async with AsyncExitStack() as stack:
        options = [("grpc.use_local_subchannel_pool", 1)]
        stubs: list[Any] = [
            router(await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options)))
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


async def _serve() -> None:
    structlog.configure(processors=[_drop])  # where the lines go is not what is measured
    handlers: Any = Slow  # serves what is asked for here, and nothing else
    async with open_door(handlers(), most_calls=PLACES) as door:
        print(door.port, flush=True)
        await asyncio.Event().wait()


def _drop(logger: Any, method: str, event: Any) -> Any:
    raise structlog.DropEvent


async def _report(loads: Sequence[float], seconds: float) -> None:
    print(f"{PLACES} places, {CAPACITY_PER_SECOND:.0f} calls/s possible")
    async with overloaded_server() as port:
        for load in loads:
            done = await offer(port, load, seconds)
            print(
                f"{load:g}x: served {done.goodput:.0%}, refused {len(done.refused_after)} within "
                f"p50 {done.refused_within(0.5) * 1e3:.1f} ms, p99 {done.refused_within(0.99) * 1e3:.1f} ms, "
                f"other ends {done.others}"
            )


if __name__ == "__main__":
    asyncio.run(_serve() if sys.argv[1:] == ["serve"] else _report((0.5, 1.0, 2.0, 4.0), 5.0))
