"""The wired service: everything that concrete classes are needed for, and the order in which it starts and ends."""

from __future__ import annotations

import asyncio
import gc
from importlib.metadata import version
from pathlib import Path

import structlog

from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.adapters.stores.decision_file import StateFolder
from pointsman_server.adapters.stores.memory_ledger import MemoryLedger
from pointsman_server.adapters.stores.redis_health import SharedHealth
from pointsman_server.adapters.telemetry.setup import observe
from pointsman_server.adapters.tokenizers.tiktoken_counter import TiktokenCounter
from pointsman_server.bootstrap.identity import RandomIds, SystemClock
from pointsman_server.bootstrap.logs import lost_lines
from pointsman_server.bootstrap.pipeline import build_memory, build_pipeline
from pointsman_server.bootstrap.providers import build_adapters
from pointsman_server.config.settings import Settings
from pointsman_server.config.simulated import with_simulator
from pointsman_server.decision.learned import shipped_judge
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.record import PolicyRecord
from pointsman_server.execution.pipeline import Memory
from pointsman_server.rpc.admin import AdminServicer
from pointsman_server.rpc.boundary import Boundary
from pointsman_server.rpc.feedback import FeedbackServicer
from pointsman_server.rpc.router import RouterServicer
from pointsman_server.rpc.server import GrpcServer, Servicers
from pointsman_server.simulator.server import RunningSimulator, start_simulator
from pointsman_server.web.server import HttpServer

USUAL_HTTP_ADDRESS = Settings().http_address
"""Where HTTP is served unless somebody chose another address."""

_LOG = structlog.stdlib.get_logger("pointsman.service")


class Service:
    """One pointsman in this process: start → drain → close. The ports are known after the start."""

    def __init__(self, settings: Settings, snapshot: Snapshot, record: PolicyRecord | None = None) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._record = record
        self._clock, self._ids = SystemClock(), RandomIds()
        self._observed = observe(lambda: self._snapshot, self._clock, version("pointsman"))
        self._observed.metrics.watch_dropped("logs", lost_lines)
        self._boundary = Boundary(
            self._ids,
            self._clock,
            settings.max_concurrent_calls,
            load=lambda: self._snapshot.resilience.load,
            observe=self._observed.metrics.observe,
            shed=self._observed.telemetry.shed,
        )
        self._state = StateFolder(Path(settings.state_dir) if settings.state_dir else None)
        self._wire = HttpWire()
        self._ledger = MemoryLedger()
        self._simulator: RunningSimulator | None = None
        self._shared_health: SharedHealth | None = None
        self._server: GrpcServer | None = None
        self._http: HttpServer | None = None
        self.port = 0
        self.http_port = 0

    async def start(self) -> None:
        """Starts the simulator if the policy routes to one, then listens. Raises `OSError` if it cannot."""
        await asyncio.to_thread(shipped_judge)  # reading it takes a while, which no call should wait for
        gc.freeze()  # what is loaded by now stays; looking through it again and again would hold up calls
        self._snapshot = await self._with_simulator(self._snapshot)
        memory = build_memory(self._clock, self._state, self._observed.telemetry)
        self._shared_health = self._build_shared_health(memory)
        self._server = self._build_server(memory)
        self.port = await self._server.start()
        await self._start_http()
        self._open_state()
        self._observed.start()
        if self._shared_health is not None:
            self._shared_health.start()
        self._announce()

    async def drain(self) -> None:
        """Takes no new calls and lets running ones end within the grace period."""
        _LOG.info("draining", grace_seconds=self._settings.drain_grace_seconds)
        if self._server is not None:
            await self._server.drain(self._settings.drain_grace_seconds)

    async def close(self) -> None:
        """Ends whatever still runs and closes all connections."""
        if self._server is not None:
            await self._server.stop()
        if self._http is not None:
            await self._http.stop()
        await self._wire.close()
        if self._shared_health is not None:
            await self._shared_health.close()
        await asyncio.to_thread(self._state.close)
        if self._simulator is not None:
            await self._simulator.stop()
        await self._observed.close()
        _LOG.info("closed", booked_micro_usd=self._ledger.booked_micro_usd)

    def _build_server(self, memory: Memory) -> GrpcServer:
        snapshot, settings, counter = self._snapshot, self._settings, TiktokenCounter()
        adapters = build_adapters(snapshot, self._wire)
        pipeline = build_pipeline(
            memory, adapters, self._observed.telemetry, self._ledger, counter, self._clock, self._ids
        )
        router = RouterServicer(
            pipeline,
            lambda: snapshot,
            self._clock,
            unary_timeout_seconds=settings.unary_timeout_seconds,
            stream_timeout_seconds=settings.stream_timeout_seconds,
            reader_idle_seconds=settings.reader_idle_seconds,
        )
        started_at = self._clock.now()
        admin = AdminServicer(memory.health, lambda: snapshot, self._boundary, started_at)
        return GrpcServer(
            Servicers(router, FeedbackServicer(memory.feedback), admin),
            self._boundary,
            address=str(settings.grpc_address),
            offer_reflection=settings.reflection,
            interceptors=self._observed.interceptors,
        )

    async def _start_http(self) -> None:
        metrics, boundary, address = self._observed.metrics, self._boundary, self._settings.http_address
        metrics.watch_load(
            calls_in_flight=lambda: boundary.active_calls,
            queued_calls=lambda: boundary.gate.queued,
        )
        self._http = HttpServer(
            address.host,
            address.port,
            exposition=metrics.exposition,
            not_ready_because=lambda: "draining" if boundary.draining else "",
        )
        try:
            self.http_port = await self._http.start()
        except OSError as error:
            if address != USUAL_HTTP_ADDRESS:
                raise
            # Nobody chose this address; a second server on a machine must not fail for want of a scrape.
            _LOG.warning("http_not_served", reason=str(error), remedy="set POINTSMAN_HTTP_ADDRESS to a free address")

    def _open_state(self) -> None:
        # Only now: a process that cannot listen must not write where another one, or nobody, keeps its state.
        self._state.open()
        if self._record is not None:
            self._state.keep_policy(self._record)

    def _build_shared_health(self, memory: Memory) -> SharedHealth | None:
        url = self._settings.redis_url
        if not url:
            return None
        replica = self._ids.new("replica")
        return SharedHealth(url, memory.health, self._clock, replica, lambda: self._snapshot.deployments.keys())

    async def _with_simulator(self, snapshot: Snapshot) -> Snapshot:
        if not any(deployment.provider.simulated for deployment in snapshot.deployments.values()):
            return snapshot
        self._simulator = await start_simulator()
        _LOG.warning(
            "simulated_providers",
            provider="simulated",
            message="answers come from the built-in simulator, not from a language model",
            remedy="set a provider's key, ANTHROPIC_API_KEY for example, or POINTSMAN_POLICY_FILE",
        )
        return with_simulator(snapshot, self._simulator.base_url)

    def _announce(self) -> None:
        snapshot = self._snapshot
        _LOG.info(
            "serving",
            grpc_address=f"{self._settings.grpc_address.host}:{self.port}",
            http_address=f"{self._settings.http_address.host}:{self.http_port}",
            policy_version=snapshot.version,
            policy_file=snapshot.source,
            deployments=len(snapshot.deployments),
            tracing=self._observed.is_tracing,
        )
        for name, provider in snapshot.providers.items():
            if provider.unusable_because:
                _LOG.warning("provider_left_out", provider=name, reason=provider.unusable_because)
