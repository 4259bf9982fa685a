"""The wired service: everything that concrete classes are needed for, and the order in which it starts and ends."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.adapters.stores.decision_file import StateFolder
from pointsman_server.adapters.stores.memory_ledger import MemoryLedger
from pointsman_server.adapters.tokenizers.tiktoken_counter import TiktokenCounter
from pointsman_server.bootstrap.identity import RandomIds, SystemClock
from pointsman_server.bootstrap.providers import build_adapters
from pointsman_server.config.settings import Settings
from pointsman_server.config.simulated import with_simulator
from pointsman_server.decision.complexity import judge_complexity
from pointsman_server.decision.learned import shipped_judge
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.ports import Clock
from pointsman_server.domain.record import PolicyRecord
from pointsman_server.execution.decisions import DecisionBook
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.feedback import FeedbackBook
from pointsman_server.execution.health import HealthBoard
from pointsman_server.execution.pipeline import Memory, Pipeline
from pointsman_server.execution.sessions import SessionBook
from pointsman_server.rpc.boundary import Boundary
from pointsman_server.rpc.feedback import FeedbackServicer
from pointsman_server.rpc.router import RouterServicer
from pointsman_server.rpc.server import GrpcServer
from pointsman_server.simulator.server import RunningSimulator, start_simulator

_LOG = structlog.stdlib.get_logger("pointsman.service")


class Service:
    """One pointsman in this process: start → drain → close. `port` is known after the start."""

    def __init__(self, settings: Settings, snapshot: Snapshot, record: PolicyRecord | None = None) -> None:
        self._settings = settings
        self._snapshot = snapshot
        self._record = record
        self._state = StateFolder(Path(settings.state_dir) if settings.state_dir else None)
        self._simulator: RunningSimulator | None = None
        self._wire = HttpWire()
        self._ledger = MemoryLedger()
        self._server: GrpcServer | None = None
        self.port = 0

    async def start(self) -> None:
        """Starts the simulator if the policy routes to one, then listens. Raises `OSError` if it cannot."""
        await asyncio.to_thread(shipped_judge)  # reading it takes a while, which no call should wait for
        snapshot = await self._with_simulator(self._snapshot)
        self._server = self._build_server(snapshot)
        self.port = await self._server.start()
        self._open_state()
        _LOG.info(
            "serving",
            grpc_address=f"{self._settings.grpc_address.host}:{self.port}",
            policy_version=snapshot.version,
            policy_file=snapshot.source,
            deployments=len(snapshot.deployments),
        )
        for provider in _unusable(snapshot):
            _LOG.warning("provider_left_out", provider=provider[0], reason=provider[1])

    async def drain(self) -> None:
        """Takes no new calls and lets running ones end within the grace period."""
        _LOG.info("draining", grace_seconds=self._settings.drain_grace_seconds)
        if self._server is not None:
            await self._server.drain(self._settings.drain_grace_seconds)

    async def close(self) -> None:
        """Ends whatever still runs and closes all connections."""
        if self._server is not None:
            await self._server.stop()
        await self._wire.close()
        await asyncio.to_thread(self._state.close)
        if self._simulator is not None:
            await self._simulator.stop()
        _LOG.info("closed", booked_micro_usd=self._ledger.booked_micro_usd)

    def _open_state(self) -> None:
        # Only now: a process that cannot listen must not write where another one, or nobody, keeps its state.
        self._state.open()
        if self._record is not None:
            self._state.keep_policy(self._record)

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

    def _build_server(self, snapshot: Snapshot) -> GrpcServer:
        clock, ids, counter = SystemClock(), RandomIds(), TiktokenCounter()
        memory = self._build_memory(clock)
        dispatcher = Dispatcher(build_adapters(snapshot, self._wire), memory.health, counter, clock)
        router = RouterServicer(
            Pipeline(dispatcher, judge_complexity, memory, self._ledger, counter, clock, ids),
            lambda: snapshot,
            clock,
            unary_timeout_seconds=self._settings.unary_timeout_seconds,
            stream_timeout_seconds=self._settings.stream_timeout_seconds,
        )
        boundary = Boundary(ids, clock, self._settings.max_concurrent_calls)
        return GrpcServer(
            router,
            FeedbackServicer(memory.feedback),
            boundary,
            address=str(self._settings.grpc_address),
            offer_reflection=self._settings.reflection,
        )

    def _build_memory(self, clock: Clock) -> Memory:
        feedback = FeedbackBook(clock, self._state.verdicts)
        feedback.recall(self._state.earlier_verdicts())
        return Memory(HealthBoard(clock), SessionBook(clock), feedback, DecisionBook(clock), self._state.decisions)


def _unusable(snapshot: Snapshot) -> list[tuple[str, str]]:
    providers = snapshot.providers.values()
    return [(provider.id, provider.unusable_because) for provider in providers if provider.unusable_because]
