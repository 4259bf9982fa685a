"""The wired service: everything that concrete classes are needed for, and the order in which it starts and ends."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import structlog

from pointsman_server.adapters.providers.wire import HttpWire
from pointsman_server.adapters.stores.decision_file import StateFolder
from pointsman_server.adapters.stores.redis_health import SharedHealth
from pointsman_server.adapters.telemetry.recording import Recording
from pointsman_server.adapters.telemetry.setup import observe
from pointsman_server.adapters.tokenizers.tiktoken_counter import TiktokenCounter
from pointsman_server.adapters.webhook import AlertWebhook
from pointsman_server.bootstrap.books import Books
from pointsman_server.bootstrap.callers import announce_callers, build_authenticator, certificates_of
from pointsman_server.bootstrap.guards import build_guards
from pointsman_server.bootstrap.identity import RandomIds, SystemClock
from pointsman_server.bootstrap.logs import lost_lines
from pointsman_server.bootstrap.pipeline import build_embeddings, build_memory, build_pipeline
from pointsman_server.bootstrap.policy_workshop import FileOnDisk, PolicyWorkshop, knowledge_files
from pointsman_server.bootstrap.providers import AdapterBook
from pointsman_server.config.settings import Settings
from pointsman_server.config.simulated import with_simulator
from pointsman_server.decision.learned import shipped_judge
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.ledger import BudgetAlert
from pointsman_server.domain.record import PolicyRecord
from pointsman_server.execution.governing import Governing
from pointsman_server.execution.guarding import Guards
from pointsman_server.execution.pipeline import Memory
from pointsman_server.execution.policies import CompiledPolicy, PolicyKeeper
from pointsman_server.execution.policy_desk import PolicyDesk
from pointsman_server.execution.policy_watch import PolicyWatch, Shared
from pointsman_server.execution.rollouts import CanaryWatch
from pointsman_server.execution.shadow import ShadowLog
from pointsman_server.rpc.admin import AdminServicer
from pointsman_server.rpc.admin_control import ControlDesk
from pointsman_server.rpc.admin_policy import PolicyMethods
from pointsman_server.rpc.admin_traces import TraceMethods, outcome_of
from pointsman_server.rpc.boundary import Boundary
from pointsman_server.rpc.embedding import EmbeddingServicer
from pointsman_server.rpc.feedback import FeedbackServicer
from pointsman_server.rpc.router import RouterServicer
from pointsman_server.rpc.server import GrpcServer, Servicers
from pointsman_server.simulator.server import RunningSimulator, start_simulator
from pointsman_server.web.server import HttpServer

USUAL_HTTP_ADDRESS = Settings().http_address
"""Where HTTP is served unless somebody chose another address."""

_LOG = structlog.stdlib.get_logger("pointsman.service")


class Service:
    """One pointsman in this process: start → drain → close. The ports are known after the start.

    With a `record`, the text of its policy goes into the database, and changes of it there and in the file come into
    force; without, the policy stays as it is. `file_was_chosen` says that somebody named the policy file.
    """

    def __init__(
        self,
        settings: Settings,
        snapshot: Snapshot,
        record: PolicyRecord | None = None,
        *,
        environ: Mapping[str, str] | None = None,
        file_was_chosen: bool = False,
        worker: int = 0,
    ) -> None:
        self._settings = settings
        self._record = record
        self._file_was_chosen = file_was_chosen
        self._worker = worker
        self._clock, self._ids = SystemClock(), RandomIds()
        self._state = StateFolder(Path(settings.state_dir) if settings.state_dir else None, worker)
        self._wire = HttpWire()
        self._adapters = AdapterBook(self._wire)
        self._webhook = AlertWebhook(self._wire, lambda: self._policies.current.governance.webhook, self._clock)
        self._books = Books(settings, self._clock, self._ids, self._on_alert, has_neighbours=worker > 0)
        self._workshop = PolicyWorkshop(
            snapshot.source,
            os.environ if environ is None else environ,
            self._adapters,
            simulate=self._with_simulator,
            keep_record=self._keep_policy,
        )
        self._policies = PolicyKeeper(CompiledPolicy(snapshot, record or _unkept(snapshot)), self._workshop)
        self._watch = self._build_watch()
        recording = Recording(self._books.traces, outcome_of, self._clock)
        self._observed = observe(lambda: self._policies.current, self._clock, version("pointsman"), others=(recording,))
        self._canary = CanaryWatch(
            self._observed.telemetry,
            self._policies,
            self._clock,
            self._books.store,
            self._books.control,
            self._books.tallies,
        )
        self._shadow = ShadowLog(self._state.decisions, self._policies)
        self._observed.metrics.watch_dropped("logs", lost_lines)
        self._observed.metrics.watch_cache(
            answers=lambda: self._books.recall.held_answers,
            evicted=lambda: self._books.recall.evicted,
            dropped=lambda: self._books.recall.dropped,
        )
        self._observed.metrics.watch_dropped("webhooks", lambda: self._webhook.dropped)
        self._observed.metrics.watch_dropped("request_traces", lambda: self._books.traces.dropped)
        self._observed.metrics.watch_dropped("notes", lambda: self._books.dropped_notes)
        self._authenticator = build_authenticator(
            settings, lambda: self._books.control.current, lambda: self._policies.current, self._clock
        )
        self._boundary = Boundary(
            self._ids,
            self._clock,
            settings.max_concurrent_calls,
            self._authenticator,
            load=lambda: self._policies.current.resilience.load,
            observe=self._observed.metrics.observe,
            shed=self._observed.telemetry.shed,
        )
        self._keeps_state = False
        self._is_ending = False
        self._simulator: RunningSimulator | None = None
        self._shared_health: SharedHealth | None = None
        self._server: GrpcServer | None = None
        self._http: HttpServer | None = None
        self.port = 0
        self.admin_port = 0
        self.http_port = 0

    async def start(self) -> None:
        """Starts what calls need, then listens. Raises `OSError`, `CertificateError` or `StoreUnavailableError`."""
        await asyncio.to_thread(shipped_judge)  # reading it takes a while, which no call should wait for
        governing = await self._books.open()
        await self._watch.open()
        gc.freeze()  # what is loaded by now stays; looking through it again and again would hold up calls
        memory = build_memory(
            self._clock, self._state, self._canary, self._shadow, self._books.notes, self._books.answers
        )
        self._shared_health = self._build_shared_health(memory)
        self._server = self._build_server(memory, governing)
        self.port = await self._server.start()
        self.admin_port = self._server.ports[-1]
        await self._start_http()
        await self._start_background()
        self._books.learn_from_others(memory.feedback.learn)
        self._announce()

    async def drain(self) -> None:
        """Says that it goes down, takes no new calls after the notice, and lets running ones end within the grace
        period."""
        notice_seconds, grace_seconds = self._settings.drain_notice_seconds, self._settings.drain_grace_seconds
        _LOG.info("draining", notice_seconds=notice_seconds, grace_seconds=grace_seconds)
        self._is_ending = True
        if self._server is not None:
            await self._server.drain(grace_seconds, notice_seconds=notice_seconds)

    async def close(self) -> None:
        """Ends whatever still runs and closes all connections."""
        if self._server is not None:
            await self._server.stop()
            await self._boundary.idle()
        if self._http is not None:
            await self._http.stop()
        await self._shadow.close()
        await self._canary.close()
        await self._watch.close()
        await self._books.close()
        await self._webhook.close()
        await self._adapters.close()
        await self._wire.close()
        if self._shared_health is not None:
            await self._shared_health.close()
        await asyncio.to_thread(self._state.close)
        if self._simulator is not None:
            await self._simulator.stop()
        await self._observed.close()
        _LOG.info("closed")

    def _build_server(self, memory: Memory, governing: Governing) -> GrpcServer:
        settings, guards = self._settings, build_guards(self._canary)
        pipeline = build_pipeline(
            memory,
            self._adapters,
            self._canary,
            governing,
            self._books.accounts,
            TiktokenCounter(),
            self._clock,
            self._ids,
            self._books.recall,
            guards,
        )
        router = RouterServicer(
            pipeline,
            self._policies.choose,
            lambda: self._books.control.current,
            self._books.named_calls,
            self._clock,
            unary_timeout_seconds=settings.unary_timeout_seconds,
            stream_timeout_seconds=settings.stream_timeout_seconds,
            reader_idle_seconds=settings.reader_idle_seconds,
        )
        return GrpcServer(
            Servicers(
                router,
                FeedbackServicer(memory.feedback),
                self._build_admin(memory),
                self._build_embedding(memory, governing, guards),
            ),
            self._boundary,
            address=str(settings.grpc_address),
            offer_reflection=settings.reflection,
            admin_address=str(settings.admin_address or ""),
            shares_addresses=self._worker > 0,
            certificates=certificates_of(settings),
            interceptors=self._observed.interceptors,
        )

    def _build_embedding(self, memory: Memory, governing: Governing, guards: Guards) -> EmbeddingServicer:
        pipeline = build_embeddings(
            memory,
            self._adapters,
            self._canary,
            governing,
            self._books.accounts,
            TiktokenCounter(),
            self._clock,
            self._ids,
            guards,
        )
        self._books.questions.embeddings = pipeline
        timeout_seconds = self._settings.unary_timeout_seconds
        choose, named_calls = self._policies.choose, self._books.named_calls
        return EmbeddingServicer(pipeline, choose, named_calls, self._clock, timeout_seconds=timeout_seconds)

    def _build_admin(self, memory: Memory) -> AdminServicer:
        books, policies = self._books, self._policies
        controls = ControlDesk(books.store, books.control, lambda: policies.current, books.usage)
        desk = PolicyDesk(policies, self._workshop, books.store, books.control)
        traces = TraceMethods(books.trace_store)
        started_at = self._clock.now()
        return AdminServicer(
            memory.health, lambda: policies.current, self._boundary, started_at, controls, PolicyMethods(desk), traces
        )

    def _build_watch(self) -> PolicyWatch:
        if self._record is None:
            return PolicyWatch(self._policies, self._workshop, self._clock)
        file = FileOnDisk(
            self._record.file, self._record.text, chosen=self._file_was_chosen, beside=self._knowledge_files
        )
        shared = Shared(self._books.store, self._books.control)
        return PolicyWatch(self._policies, self._workshop, self._clock, file=file, shared=shared)

    def _knowledge_files(self, text: str) -> Sequence[str]:
        """Files that belong to the policy in force, if this is its text."""
        policy = self._policies.policy
        return knowledge_files(policy.snapshot) if policy.record.text == text else ()

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
            not_ready_because=lambda: "draining" if self._is_ending else "",
        )
        try:
            self.http_port = await self._http.start()
        except OSError as error:
            if address != USUAL_HTTP_ADDRESS:
                raise
            # Nobody chose this address; a second server on a machine must not fail for want of a scrape.
            _LOG.warning("http_not_served", reason=str(error), remedy="set POINTSMAN_HTTP_ADDRESS to a free address")

    async def _start_background(self) -> None:
        # Only now: a process that cannot listen must not write where another one, or nobody, keeps its state.
        self._state.open()
        self._keeps_state = True
        self._keep_policy(self._policies.policy.record)
        await self._books.start()
        self._webhook.start()
        self._watch.start()
        self._canary.start()
        self._shadow.start()
        self._observed.start()
        if self._shared_health is not None:
            self._shared_health.start()

    def _on_alert(self, alert: BudgetAlert) -> None:
        self._observed.metrics.budget_used(alert)
        self._webhook.tell(alert)

    def _keep_policy(self, record: PolicyRecord) -> None:
        if record.text and self._keeps_state:
            self._state.keep_policy(record)

    def _build_shared_health(self, memory: Memory) -> SharedHealth | None:
        url = self._settings.redis_url
        if not url:
            return None
        replica = self._ids.new("replica")
        return SharedHealth(url, memory.health, self._clock, replica, lambda: self._policies.current.deployments.keys())

    async def _with_simulator(self, snapshot: Snapshot) -> Snapshot:
        if not any(deployment.provider.simulated for deployment in snapshot.deployments.values()):
            return snapshot
        if self._simulator is None:
            self._simulator = await start_simulator()
            _LOG.warning(
                "simulated_providers",
                provider="simulated",
                message="answers come from the built-in simulator, not from a language model",
                remedy="set a provider's key, ANTHROPIC_API_KEY for example, or POINTSMAN_POLICY_FILE",
            )
        return with_simulator(snapshot, self._simulator.base_url)

    def _announce(self) -> None:
        snapshot = self._policies.current
        _LOG.info(
            "serving",
            grpc_address=f"{self._settings.grpc_address.host}:{self.port}",
            http_address=f"{self._settings.http_address.host}:{self.http_port}",
            policy_version=snapshot.version,
            policy_file=snapshot.source,
            deployments=len(snapshot.deployments),
            tracing=self._observed.is_tracing,
        )
        announce_callers(self._authenticator)
        for name, provider in snapshot.providers.items():
            if provider.unusable_because:
                _LOG.warning("provider_left_out", provider=name, reason=provider.unusable_because)


def _unkept(snapshot: Snapshot) -> PolicyRecord:
    """Stands for a policy that came without its text."""
    return PolicyRecord(snapshot.version, "", snapshot.source, datetime.now(UTC).date())
