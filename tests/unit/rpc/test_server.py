from __future__ import annotations

import asyncio
import socket
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from kit.clock import CountingIds, FakeClock
from kit.house import ANYBODY_IS_LOCAL, NO_ADMIN, NO_EMBEDDING, NO_FEEDBACK, open_door
from kit.running import RichError
from pointsman.v1 import router_service_pb2_grpc
from pointsman_server.rpc.boundary import Boundary
from pointsman_server.rpc.server import ROUTER_SERVICE, GrpcServer, Servicers

FEEDBACK = "pointsman.v1.FeedbackService"
_NOTHING: Any = router_service_pb2_grpc.RouterServiceServicer
NOBODY = _NOTHING()
"""Serves none of its methods."""


async def test_an_address_that_is_taken_is_told() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        boundary = Boundary(CountingIds(), FakeClock(), 1, ANYBODY_IS_LOCAL)
        servicers = Servicers(NOBODY, NO_FEEDBACK, NO_ADMIN, NO_EMBEDDING)
        server = GrpcServer(servicers, boundary, address=address, offer_reflection=False)
        with pytest.raises(OSError, match=f"cannot listen on {address}"):
            await server.start()
        await server.stop()


async def test_an_address_can_be_shared_by_those_who_agree_to_it() -> None:
    async with open_door(NOBODY, shares_addresses=True) as door:
        for shares in (True, False):
            boundary = Boundary(CountingIds(), FakeClock(), 1, ANYBODY_IS_LOCAL)
            other = GrpcServer(
                Servicers(NOBODY, NO_FEEDBACK, NO_ADMIN, NO_EMBEDDING),
                boundary,
                address=f"127.0.0.1:{door.port}",
                offer_reflection=False,
                shares_addresses=shares,
            )
            if shares:
                assert await other.start() == door.port
            else:
                with pytest.raises(OSError, match="cannot listen"):
                    await other.start()
            await other.stop()


async def test_health_follows_the_servers_life() -> None:
    async with open_door(NOBODY) as door:
        assert [await door.health(name) for name in ("", ROUTER_SERVICE, FEEDBACK)] == ["SERVING"] * 3
        stub: Any = health_pb2_grpc.HealthStub(door.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service=ROUTER_SERVICE))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        draining = asyncio.create_task(door.server.drain(10.0))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        # A watch never ends by itself, and does not keep the server from ending.
        await asyncio.wait_for(draining, 5)


async def test_during_its_notice_a_server_says_that_it_goes_down_and_takes_calls_all_the_same() -> None:
    async with open_door(NOBODY) as door:
        stub: Any = health_pb2_grpc.HealthStub(door.channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        draining = asyncio.create_task(door.server.drain(10.0, notice_seconds=0.5))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not door.boundary.draining
        await asyncio.wait_for(draining, 5)
        assert door.boundary.draining


@pytest.mark.parametrize("offered", [True, False])
async def test_reflection_is_offered_or_not(offered: bool) -> None:
    async with open_door(NOBODY, reflection=offered) as door:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(door.channel)
        call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        if offered:
            names = [service.name for service in (await call.read()).list_services_response.service]
            assert ROUTER_SERVICE in names
        else:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_method_that_is_not_served_says_so() -> None:
    async with open_door(NOBODY) as door:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await door.channel.unary_unary("/pointsman.v1.AdminService/ListTraces")(b"")
        error = RichError(caught.value)
        assert (error.code, error.reason) == (grpc.StatusCode.UNIMPLEMENTED, "FEATURE_UNAVAILABLE")
        assert door.boundary.active_calls == 0
