"""A primary that fails, a fallback that is sound, and what a caller sees of it, for tests of what hurt others."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from kit.running import MODEL, RichError, connected, load_for_test, router, running_service, spec
from kit.upstream import Script, Upstream, running_upstream
from pointsman.v1 import answer_pb2, router_service_pb2

TIMEOUTS = {"connect_seconds": 2, "first_token_seconds": 5, "idle_seconds": 5, "total_seconds": 20}
RETRIES = {"base_seconds": 0.01, "cap_seconds": 0.05}

TERMINATE = answer_pb2.STREAM_FAILOVER_TERMINATE
CONTINUE = answer_pb2.STREAM_FAILOVER_CONTINUE
RESTART = answer_pb2.STREAM_FAILOVER_RESTART


@dataclass
class Seen:
    """What a streaming caller saw, with the text as it has to be folded."""

    text: str = ""
    failovers: list[answer_pb2.Failover] = field(default_factory=list)
    completed: answer_pb2.CompleteResponse | None = None
    error: RichError | None = None
    seconds: float = 0.0

    @property
    def attempts(self) -> list[str]:
        """The deployments that were asked, in order."""
        return [attempt.deployment for attempt in self.completed.attempts] if self.completed else []


class Scene:
    """A running server, and its upstreams by name."""

    def __init__(self, upstreams: Mapping[str, Upstream], channel: grpc.aio.Channel) -> None:
        self.upstreams = upstreams
        self._router = router(channel)

    def calls(self) -> dict[str, int]:
        """How often each upstream was asked."""
        return {name: upstream.calls for name, upstream in self.upstreams.items()}

    async def complete(self, within_seconds: float = 10, **fields: Any) -> answer_pb2.CompleteResponse:
        """One whole answer."""
        return await self._router.Complete(
            router_service_pb2.CompleteRequest(completion=spec(**fields)), timeout=within_seconds
        )

    async def refused(self, within_seconds: float = 10, **fields: Any) -> RichError:
        """The error of a call that must fail."""
        try:
            await self.complete(within_seconds, **fields)
        except grpc.aio.AioRpcError as error:
            return RichError(error)
        raise AssertionError("the call was answered")

    async def stream(
        self, failover: answer_pb2.StreamFailover.ValueType = TERMINATE, within_seconds: float = 10, **fields: Any
    ) -> Seen:
        """One streamed answer."""
        seen, began_at = Seen(), time.monotonic()
        try:
            async for event in self.events(failover, within_seconds, **fields):
                _take(seen, event)
        except grpc.aio.AioRpcError as error:
            seen.error = RichError(error)
        seen.seconds = time.monotonic() - began_at
        return seen

    def events(
        self, failover: answer_pb2.StreamFailover.ValueType = TERMINATE, within_seconds: float = 10, **fields: Any
    ) -> Any:
        """The stream itself."""
        request = router_service_pb2.StreamCompleteRequest(completion=spec(**fields), failover=failover)
        return self._router.StreamComplete(request, timeout=within_seconds)

    async def until_left(self, name: str, seconds: float = 0.2) -> bool:
        """Whether nobody is connected to this upstream any more within so many seconds."""
        try:
            await asyncio.wait_for(self.upstreams[name].nobody_connected.wait(), seconds)
        except TimeoutError:
            return False
        return True


def _take(seen: Seen, event: Any) -> None:
    kind = event.WhichOneof("event")
    if kind == "delta":
        seen.text += event.delta.text
    elif kind == "failover":
        seen.failovers.append(event.failover)
        seen.text = seen.text[: event.failover.characters_kept]
    elif kind == "completed":
        seen.completed = event.completed


@asynccontextmanager
async def scene(
    scripts: Mapping[str, Script | Sequence[Script]],
    *,
    timeouts: Mapping[str, float] | None = None,
    resilience: Mapping[str, Any] | None = None,
    model: Mapping[str, Any] | None = None,
    deployment: Mapping[str, Any] | None = None,
    only_for: str = "",
) -> AsyncGenerator[Scene, None]:
    """Upstreams that play these scripts in turn (the last one for ever), asked in this order.

    `deployment` holds more fields of the deployments: of all, or of the one that `only_for` names.
    """
    async with AsyncExitStack() as stack:
        upstreams: dict[str, Upstream] = {}
        for name, given in scripts.items():
            played = [given] if isinstance(given, Script) else given
            upstreams[name] = await stack.enter_async_context(running_upstream(*played))
        policy = {
            "providers": {
                name: {"dialect": "openai_chat", "base_url": one.base_url} for name, one in upstreams.items()
            },
            "models": {
                name: {**MODEL, "price": [{"input_usd_per_mtok": place + 1, "output_usd_per_mtok": 2}], **(model or {})}
                for place, name in enumerate(upstreams)
            },
            "deployments": {
                name: {
                    "provider": name,
                    "model": name,
                    "model_name": "m-1",
                    "timeouts": {**TIMEOUTS, **(timeouts or {})},
                    **((deployment or {}) if only_for in ("", name) else {}),
                }
                for name in upstreams
            },
            "routing": {"rules": [{"name": "in-order", "prefer": list(upstreams)}]},
            "resilience": {"retries": RETRIES, **(resilience or {})},
        }
        service = await stack.enter_async_context(running_service(load_for_test(policy)))
        channel = await stack.enter_async_context(connected(service))
        yield Scene(upstreams, channel)
