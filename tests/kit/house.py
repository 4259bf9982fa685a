"""A gRPC server on the loopback interface whose handlers are the test's own, behind the real border."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.clock import CountingIds
from pointsman.v1 import admin_service_pb2_grpc, embedding_service_pb2_grpc, feedback_service_pb2_grpc
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.control import Control
from pointsman_server.rpc.authentication import Authenticator, Mode
from pointsman_server.rpc.boundary import Boundary
from pointsman_server.rpc.server import GrpcServer, Servicers

ANYBODY_IS_LOCAL = Authenticator(Control, lambda: Snapshot("v", "", {}, {}, {}), SystemClock(), Mode.INSECURE)
"""For borders that are not about who calls."""

_NOTHING: Any = feedback_service_pb2_grpc.FeedbackServiceServicer
NO_FEEDBACK = _NOTHING()
"""Serves none of its methods."""

_NO_VECTORS: Any = embedding_service_pb2_grpc.EmbeddingServiceServicer
NO_EMBEDDING = _NO_VECTORS()
"""Likewise."""

_NO_METHODS: Any = admin_service_pb2_grpc.AdminServiceServicer
NO_ADMIN = _NO_METHODS()
"""Likewise."""


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
    router: Any,
    feedback: Any = NO_FEEDBACK,
    admin: Any = NO_ADMIN,
    embedding: Any = NO_EMBEDDING,
    *,
    most_calls: int = 10,
    reflection: bool = True,
    border: Mapping[str, Any] | None = None,
    **server_settings: Any,
) -> AsyncGenerator[Door, None]:
    """Serves these implementations of the services; `border` is told to the `Boundary`."""
    boundary = Boundary(
        CountingIds(), SystemClock(), most_calls, **{"authenticator": ANYBODY_IS_LOCAL, **(border or {})}
    )
    servicers = Servicers(router, feedback, admin, embedding)
    server = GrpcServer(servicers, boundary, address="127.0.0.1:0", offer_reflection=reflection, **server_settings)
    port = await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Door(boundary, server, channel, port)
    finally:
        await server.stop()
