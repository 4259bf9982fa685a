"""The gRPC server: services, health, reflection, TLS, limits, and its way from start to end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
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
    embedding_service_pb2_grpc,
    feedback_service_pb2,
    feedback_service_pb2_grpc,
    router_service_pb2,
    router_service_pb2_grpc,
)
from pointsman_server.rpc.admin import AdminServicer
from pointsman_server.rpc.boundary import BODY_TIMEOUT_SECONDS, Boundary
from pointsman_server.rpc.certificates import Certificates
from pointsman_server.rpc.embedding import EmbeddingServicer
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

_EMBEDDING: ServiceDescriptor = embedding_service_pb2.DESCRIPTOR.services_by_name["EmbeddingService"]

_OPTIONS: Sequence[tuple[str, int]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.absolute_max_metadata_size", MAX_METADATA_BYTES),
    ("grpc.max_concurrent_streams", 100),
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
    embedding: EmbeddingServicer


class GrpcServer:
    """start → serve → drain → stop. `interceptors` are telemetry's.

    `certificates` make it speak TLS. With an `admin_address` AdminService is served there and not at `address`. Servers
    that share their addresses, in processes of their own, divide the connections among them.

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
        admin_address: str = "",
        shares_addresses: bool = False,
        certificates: Certificates | None = None,
        interceptors: Sequence[Any] = (),
        body_timeout_seconds: float = BODY_TIMEOUT_SECONDS,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        handshake_seconds: float = HANDSHAKE_SECONDS,
    ) -> None:
        self._boundary = boundary
        self._certificates = certificates
        timers = _timers(keepalive_seconds, handshake_seconds)
        options = (*_OPTIONS, *timers, ("grpc.so_reuseport", int(shares_addresses)))

        def listener(at: str) -> _Listener:
            server = grpc.aio.server(interceptors=tuple(interceptors), options=options)
            return _Listener(at, server, boundary.guard(server, body_timeout_seconds))

        main = listener(address)
        main.serve(_ROUTER, router_service_pb2_grpc.add_RouterServiceServicer_to_server, servicers.router)
        main.serve(_FEEDBACK, feedback_service_pb2_grpc.add_FeedbackServiceServicer_to_server, servicers.feedback)
        main.serve(_EMBEDDING, embedding_service_pb2_grpc.add_EmbeddingServiceServicer_to_server, servicers.embedding)
        self._listeners = [main, listener(admin_address)] if admin_address else [main]
        self._listeners[-1].serve(_ADMIN, admin_service_pb2_grpc.add_AdminServiceServicer_to_server, servicers.admin)
        for one in self._listeners:
            one.complete(offer_reflection)

    @property
    def ports(self) -> tuple[int, ...]:
        """Where it listens: at `address` and, if there is one, at `admin_address`. Known after the start."""
        return tuple(one.port for one in self._listeners)

    async def start(self) -> int:
        """Listens and reports itself as serving; returns the port of `address`.

        Raises `OSError` when an address is taken, and `CertificateError`.
        """
        for one in self._listeners:
            # For each its own: the library takes such credentials to pieces when they are first used.
            one.listen(None if self._certificates is None else self._certificates.credentials())
        for one in self._listeners:
            await one.start()
        return self.ports[0]

    async def drain(self, grace_seconds: float, *, notice_seconds: float = 0.0) -> None:
        """Reports NOT_SERVING, refuses new calls, lets running ones end within the grace period, then cancels.

        It goes on listening meanwhile, so that callers read why they are refused and health checks get an answer. New
        calls are still taken for `notice_seconds`, within which a load balancer learns to send none.
        """
        for one in self._listeners:
            await one.health.enter_graceful_shutdown()
        if notice_seconds:
            await asyncio.sleep(notice_seconds)
        self._boundary.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                await self._boundary.idle()
        await self._stop(_FLUSH_SECONDS)

    async def stop(self) -> None:
        """Cancels whatever is still running."""
        await self._stop(0)

    async def _stop(self, grace_seconds: float) -> None:
        await asyncio.gather(*(one.server.stop(grace_seconds) for one in self._listeners))


class _Listener:
    """One address, with the services that are offered there and their health."""

    def __init__(self, address: str, server: grpc.aio.Server, guarded: Any) -> None:
        self.server = server
        self.health = health.aio.HealthServicer()
        self.port = 0
        self._address = address
        self._guarded = guarded
        self._served: list[str] = []

    def serve(self, service: ServiceDescriptor, add: Callable[[Any, Any], None], servicer: object) -> None:
        """Offers a service; `add` is the generated function for it."""
        add(servicer, self._guarded)
        self._served.append(service.full_name)

    def complete(self, offer_reflection: bool) -> None:
        """Adds what every address has."""
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._guarded)
        if offer_reflection:
            names = (*self._served, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflector = reflection.aio.ReflectionServicer(names)
            reflection_pb2_grpc.add_ServerReflectionServicer_to_server(reflector, self._guarded)  # type: ignore[no-untyped-call]

    def listen(self, credentials: grpc.ServerCredentials | None) -> None:
        """Takes the address, for TLS with these credentials. Raises `OSError`."""
        try:
            if credentials is None:
                self.port = self.server.add_insecure_port(self._address)
            else:
                self.port = self.server.add_secure_port(self._address, credentials)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {self._address}: is another server running there?") from error

    async def start(self) -> None:
        """Serves, and says so to whoever asks for its health."""
        await self.server.start()
        for service in ("", *self._served):
            await self.health.set(service, health_pb2.HealthCheckResponse.SERVING)


def _timers(keepalive_seconds: float, handshake_seconds: float) -> Sequence[tuple[str, int]]:
    return (
        ("grpc.keepalive_time_ms", int(keepalive_seconds * 1_000)),
        ("grpc.keepalive_timeout_ms", int(keepalive_seconds * 500)),
        # Otherwise a ping that measured the line's bandwidth, and is never answered, delays the end by a minute.
        ("grpc.http2.ping_timeout_ms", int(keepalive_seconds * 500)),
        ("grpc.server_handshake_timeout_ms", int(handshake_seconds * 1_000)),
    )
