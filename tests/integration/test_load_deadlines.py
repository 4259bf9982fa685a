"""Deadlines, large prompts, and what is seen of calls under load."""

from __future__ import annotations

import asyncio
import time

import grpc
import pytest

from kit.load_house import COMPLETE, holding, refusal, until, watched
from kit.running import RichError, connected, one_deployment_each, router, running_service, spec
from kit.upstream import HELLO, Script, json_script, running_upstream
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest


class TestWhatIsObserved:
    async def test_every_call_once_by_its_code(self) -> None:
        async with watched(most_calls=1) as house:
            await house.is_well()
            await house.router.Route(RouteRequest(completion=spec()))
            await refusal(house.door.channel.unary_unary(COMPLETE)(b"\xff\xff"))
            running = house.router.Complete(holding())
            await house.handlers.until_serving(1)
            await refusal(house.router.Complete(holding()))
            running.cancel()
            await house.handlers.until_serving(0)
            with pytest.raises(grpc.aio.AioRpcError):
                await house.router.Complete(holding(), timeout=0.05)
            await house.handlers.until_serving(0)
            await refusal(house.door.channel.unary_unary("/pointsman.v1.EmbeddingService/Embed")(b""))
            await house.door.health()
            await until(lambda: len(house.ended) == 7)
            assert house.ended == [
                ("Complete", "OK"),
                ("Route", "OK"),
                ("Complete", "INVALID_ARGUMENT"),
                ("Complete", "RESOURCE_EXHAUSTED"),
                ("Complete", "CANCELLED"),
                ("Complete", "DEADLINE_EXCEEDED"),
                ("Embed", "UNIMPLEMENTED"),
            ]
            assert all(0 <= seconds < 5 for seconds in house.seconds)


class TestRows36To38Deadlines:
    @pytest.mark.parametrize("seconds", [0.0, -1.0, 0.001, 0.005])
    async def test_no_time_is_told_at_once_and_calls_nobody(self, seconds: float) -> None:
        async with (
            running_upstream(Script(status=0, end="stall")) as upstream,
            running_service(one_deployment_each({"one": upstream.base_url})) as service,
            connected(service) as channel,
        ):
            await asyncio.wait_for(channel.channel_ready(), 5)
            started_at = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await router(channel).Complete(CompleteRequest(completion=spec()), timeout=seconds)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert time.monotonic() - started_at < 0.5
            await asyncio.sleep(0.05)
            assert upstream.calls == 0  # an attempt with less than 50 ms is not begun

    @pytest.mark.parametrize("seconds", [None, 1e9])
    async def test_without_a_deadline_the_servers_cap_holds_for_streams_too(self, seconds: float | None) -> None:
        async with (
            running_upstream(Script(status=0, end="stall")) as upstream,
            running_service(one_deployment_each({"one": upstream.base_url}), stream_timeout_seconds=0.4) as service,
            connected(service) as channel,
        ):
            started_at = time.monotonic()
            stream = router(channel).StreamComplete(StreamCompleteRequest(completion=spec()), timeout=seconds)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                async for _ in stream:
                    pass
            assert RichError(caught.value).code is grpc.StatusCode.DEADLINE_EXCEEDED
            assert time.monotonic() - started_at < 0.9 + 1.0  # the cap, half a second, and a busy machine


class TestLargePrompts:
    @pytest.mark.parametrize("window", [2_000_000, 240_000], ids=["roomy", "counted exactly"])
    async def test_they_do_not_hold_up_others(self, window: int) -> None:
        async with (
            running_upstream(json_script(HELLO)) as upstream,
            running_service(one_deployment_each({"one": upstream.base_url}, context_window_tokens=window)) as service,
            connected(service) as channel,
        ):
            large = CompleteRequest(completion=spec("The quick brown fox jumps over the lazy dog. " * 22_000))
            await router(channel).Complete(large)  # loads the vocabulary, once in a process's life
            gaps: list[float] = []
            beating = asyncio.create_task(heartbeat(gaps))
            for _ in range(5):
                await router(channel).Complete(large)
            beating.cancel()
            # The caller, the provider and the server share this loop.
            assert sorted(gaps)[len(gaps) * 9 // 10] < 0.05


async def heartbeat(gaps: list[float]) -> None:
    """How late a timer of the loop is, again and again."""
    while True:
        began_at = time.monotonic()
        await asyncio.sleep(0.002)
        gaps.append(time.monotonic() - began_at - 0.002)
