"""The gRPC server: services, health, reflection, limits, and its way from start to end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2_grpc

from pointsman.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    embedding_service_pb2,
    feedback_service_pb2,
    feedback_service_pb2_grpc,
    router_service_pb2,
    router_service_pb2_grpc,
)
from pointsman_server.rpc.admin import AdminServicer
from pointsman_server.rpc.boundary import BODY_TIMEOUT_SECONDS, Boundary
from pointsman_server.rpc.feedback import FeedbackServicer
from pointsman_server.rpc.router import RouterServicer

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
MAX_METADATA_BYTES = 8 * 1024

KEEPALIVE_SECONDS = 20.0
"""How long a connection may be silent before the server asks whether anybody is there."""

HANDSHAKE_SECONDS = 10.0
"""How long a new connection may take until it speaks HTTP/2."""

_FLUSH_SECONDS = 0.2
"""Time for the last answers to leave; a watch of the server's health would stay for ever."""

_ROUTER: ServiceDescriptor = router_service_pb2.DESCRIPTOR.services_by_name["RouterService"]
ROUTER_SERVICE: str = _ROUTER.full_name

_FEEDBACK: ServiceDescriptor = feedback_service_pb2.DESCRIPTOR.services_by_name["FeedbackService"]
_ADMIN: ServiceDescriptor = admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"]
_SERVED = (ROUTER_SERVICE, str(_FEEDBACK.full_name), str(_ADMIN.full_name))

_UNSERVED: tuple[ServiceDescriptor, ...] = (embedding_service_pb2.DESCRIPTOR.services_by_name["EmbeddingService"],)
"""Services of the contract that this server does not serve: they answer UNIMPLEMENTED and have no health."""

_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", 100),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.max_connection_age_ms", 600_000),
    ("grpc.max_connection_age_grace_ms", 300_000),
)


@dataclass(frozen=True, slots=True)
class Servicers:
    """What the server serves."""

    router: RouterServicer
    feedback: FeedbackServicer
    admin: AdminServicer


class GrpcServer:
    """start → serve → drain → stop. `interceptors` are telemetry's.

    `body_timeout_seconds` is how long a call may be open before its message is whole. A connection whose other end is
    gone is closed after at most one and a half times `keepalive_seconds`; a new one that does not speak HTTP/2, after
    `handshake_seconds`.
    """

    def __init__(
        self,
        servicers: Servicers,
        boundary: Boundary,
        *,
        address: str,
        offer_reflection: bool,
        interceptors: Sequence[Any] = (),
        body_timeout_seconds: float = BODY_TIMEOUT_SECONDS,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        self._boundary = boundary
        self._address = address
        self._health = health.aio.HealthServicer()
        timers = (
            ("grpc.keepalive_time_ms", int(keepalive_seconds * 1_000)),
            ("grpc.keepalive_timeout_ms", int(keepalive_seconds * 500)),
            # Otherwise a ping that measured the line's bandwidth, and is never answered, delays the end by a minute.
            ("grpc.http2.ping_timeout_ms", int(keepalive_seconds * 500)),
            ("grpc.server_handshake_timeout_ms", int(handshake_seconds * 1_000)),
        )
        self._server = grpc.aio.server(interceptors=tuple(interceptors), options=[*_OPTIONS, *timers])
        guarded: Any = boundary.guard(self._server, body_timeout_seconds)
        router_service_pb2_grpc.add_RouterServiceServicer_to_server(servicers.router, guarded)
        feedback_service_pb2_grpc.add_FeedbackServiceServicer_to_server(servicers.feedback, guarded)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(servicers.admin, guarded)
        for service in _UNSERVED:
            guarded.add_generic_rpc_handlers((_unserved(service),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, guarded)
        if offer_reflection:
            names = (
                *_SERVED,
                *(service.full_name for service in _UNSERVED),
                health.SERVICE_NAME,
                reflection.SERVICE_NAME,
            )
            reflector = reflection.aio.ReflectionServicer(names)
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflector, guarded)  # type: ignore[no-untyped-call]

    async def start(self) -> int:
        """Listens and reports itself as serving; returns the port. Raises `OSError` when the address is taken."""
        try:
            port = self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address}: is another server running there?") from error
        await self._server.start()
        for service in ("", *_SERVED):
            await self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def drain(self, grace_seconds: float) -> None:
        """Reports NOT_SERVING, refuses new calls, lets running ones end within the grace period, then cancels.

        It goes on listening meanwhile, so that callers read why they are refused and health checks get an answer.
        """
        self._boundary.drain()
        await self._health.enter_graceful_shutdown()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._boundary.idle()
        await self._server.stop(_FLUSH_SECONDS)

    async def stop(self) -> None:
        """Cancels whatever is still running."""
        await self._server.stop(0)


def _unserved(service: ServiceDescriptor) -> Any:
    async def refuse(request: bytes, context: object) -> bytes:
        raise NotImplementedError

    handlers: dict[str, Any] = {method.name: grpc.unary_unary_rpc_method_handler(refuse) for method in service.methods}
    return grpc.method_handlers_generic_handler(service.full_name, handlers)
