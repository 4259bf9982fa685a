"""A gRPC server on the loopback interface whose handlers are the test's own, behind the real border."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.clock import CountingIds, FakeClock
from pointsman.v1 import feedback_service_pb2_grpc
from pointsman_server.rpc.boundary import Boundary
from pointsman_server.rpc.server import GrpcServer

_NOTHING: Any = feedback_service_pb2_grpc.FeedbackServiceServicer
NO_FEEDBACK = _NOTHING()
"""Serves none of its methods."""


@dataclass
class Door:
    """The border of a running server, the server, and a channel to it."""

    boundary: Boundary
    server: GrpcServer
    channel: Any
    """A `grpc.aio.Channel`; its published types want serialisers, the library does without."""
    port: int

    async def health(self, service: str = "") -> str:
        """What the server says of its health."""
        asked = health_pb2.HealthCheckRequest(service=service)
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        answer = await stub.Check(asked, timeout=5)
        return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


@asynccontextmanager
async def open_door(
    router: Any, feedback: Any = NO_FEEDBACK, *, most_calls: int = 10, reflection: bool = True
) -> AsyncGenerator[Door, None]:
    """Serves these implementations of RouterService and FeedbackService."""
    boundary = Boundary(CountingIds(), FakeClock(), most_calls)
    server = GrpcServer(router, feedback, boundary, address="127.0.0.1:0", offer_reflection=reflection)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Door(boundary, server, channel, port)
    finally:
        await server.stop()
