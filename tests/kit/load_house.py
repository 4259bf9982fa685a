"""A server whose calls tests hold, count and look at, and what they ask it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from kit.house import Door, open_door
from kit.running import RichError, router, spec
from pointsman.v1 import answer_pb2, feedback_service_pb2, feedback_service_pb2_grpc, router_service_pb2_grpc
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteResponse
from pointsman_server.domain.resilience import LoadPolicy

COMPLETE = "/pointsman.v1.RouterService/Complete"
STREAM = "/pointsman.v1.RouterService/StreamComplete"
REQUEST = CompleteRequest(completion=spec("answer")).SerializeToString()


class Handlers(router_service_pb2_grpc.RouterServiceServicer):
    """Answers at once, or when it may: a request with the label `hold` waits for `go_on`."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.serving = 0
        self.served: list[str] = []
        self._changed = asyncio.Event()

    async def Route(self, request: Any, context: Any) -> Any:
        """Answers at once."""
        return RouteResponse(request_id="routed")

    async def Complete(self, request: Any, context: Any) -> Any:
        """Answers when it may."""
        self.serving += 1
        self.served.append(request.completion.request_id)
        self._changed.set()
        try:
            if "hold" in request.completion.labels:
                await self.go_on.wait()
        finally:
            self.serving -= 1
            self._changed.set()
        return answer_pb2.CompleteResponse(request_id="done")

    async def StreamComplete(self, request: Any, context: Any) -> None:  # type: ignore[override]
        """Never ends by itself."""
        piece = answer_pb2.StreamCompleteResponse(delta=answer_pb2.Delta(text="x" * 64_000))
        while True:
            await context.write(piece)

    async def until_serving(self, count: int) -> None:
        """Returns when it holds so many calls."""
        async with asyncio.timeout(10):
            while self.serving != count:
                self._changed.clear()
                await self._changed.wait()


class Book(feedback_service_pb2_grpc.FeedbackServiceServicer):
    """Takes every verdict."""

    async def RecordFeedback(self, request: Any, context: Any) -> Any:
        """Takes it."""
        return feedback_service_pb2.RecordFeedbackResponse(request_id="taken")


class Watched:
    """A server with its handlers, and what it said of the calls: (method, code) and reasons of shedding."""

    def __init__(self, door: Door, handlers: Handlers) -> None:
        self.door = door
        self.handlers = handlers
        self.ended: list[tuple[str, str]] = []
        self.seconds: list[float] = []
        self.shed: list[str] = []
        self.router = router(door.channel)

    async def is_well(self) -> float:
        """A call is answered; gives the seconds it took."""
        started_at = time.monotonic()
        answer = await self.router.Complete(CompleteRequest(completion=spec()), timeout=10)
        assert answer.request_id == "done"
        return time.monotonic() - started_at


@asynccontextmanager
async def watched(load: LoadPolicy | None = None, **settings_: Any) -> AsyncGenerator[Watched, None]:
    """A server whose border is watched."""
    handlers = Handlers()
    house: Watched | None = None

    def observe(method: str, code: str, seconds: float) -> None:
        assert house is not None
        house.ended.append((method, code))
        house.seconds.append(seconds)

    def shed(reason: str) -> None:
        assert house is not None
        house.shed.append(reason)

    policy = load or LoadPolicy()
    border = {"load": lambda: policy, "observe": observe, "shed": shed}
    async with open_door(handlers, Book(), border=border, **settings_) as door:
        house = Watched(door, handlers)
        yield house


def holding(name: str = "", **labels: str) -> CompleteRequest:
    """A call that stays until it may go."""
    return CompleteRequest(completion=spec(request_id=name, labels={"hold": "1", **labels}))


async def refusal(call: Any) -> RichError:
    """The error that this call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return RichError(caught.value)


async def until(condition: Any, seconds: float = 5.0) -> None:
    """Returns when it holds."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - there is nothing to be told by
            await asyncio.sleep(0.002)
