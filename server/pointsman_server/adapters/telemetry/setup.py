"""All of telemetry, wired from the environment: metrics always, traces when a collector is named.

The variables are OpenTelemetry's own (OTEL_…), read by its SDK; here is decided only whether there is tracing at all.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from opentelemetry.sdk.trace import TracerProvider

from pointsman_server.adapters.telemetry.loop_lag import LoopLag
from pointsman_server.adapters.telemetry.metrics import Metrics
from pointsman_server.adapters.telemetry.safe import SafeTelemetry
from pointsman_server.adapters.telemetry.span_export import CountingExporter, DroppingProcessor, close_within
from pointsman_server.adapters.telemetry.tracing import Tracing
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.ports import Clock, Telemetry

CLOSING_SECONDS = 1.5
"""How long the last spans may take to leave when the process ends."""

SERVICE_NAME = "pointsman"

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")

_LOG = structlog.stdlib.get_logger("pointsman.telemetry")


@dataclass(frozen=True, slots=True)
class Tracer:
    """A running tracer with its way to the collector."""

    provider: TracerProvider
    exporter: CountingExporter
    processor: DroppingProcessor


class Observability:
    """What the process sees of itself: `telemetry` for the calls, `metrics` for the scrape.

    `interceptors` are for the gRPC server; there are none without tracing.
    """

    def __init__(self, metrics: Metrics, tracer: Tracer | None, others: Sequence[Telemetry] = ()) -> None:
        self.metrics = metrics
        self._tracer = tracer
        self._lag = LoopLag(metrics.record_loop_lag)
        self.interceptors: Sequence[Any] = ()
        if tracer is None:
            self.telemetry = SafeTelemetry(*others, metrics)
        else:
            self.telemetry = SafeTelemetry(*others, metrics, Tracing(tracer.provider.get_tracer(SERVICE_NAME)))
            self.interceptors = _interceptors(tracer.provider)
        metrics.watch_dropped("metrics", lambda: self.telemetry.failures)
        metrics.watch_dropped("traces", lambda: 0 if tracer is None else tracer.processor.dropped)

    @property
    def is_tracing(self) -> bool:
        """Whether spans are made."""
        return self._tracer is not None

    def start(self) -> None:
        """Begins to watch the running event loop."""
        self._lag.start()

    async def close(self) -> None:
        """Lets the last spans go, for at most two seconds."""
        self._lag.stop()
        if self._tracer is not None:
            await asyncio.to_thread(close_within, self._tracer.provider, self._tracer.exporter, CLOSING_SECONDS)
        self.metrics.close()


def observe(
    snapshot: Callable[[], Snapshot],
    clock: Clock,
    version: str,
    environ: Mapping[str, str] = os.environ,
    others: Sequence[Telemetry] = (),
) -> Observability:
    """Telemetry as the environment wants it; `snapshot` is the policy in force, `version` that of pointsman.

    `others` see the same.
    """
    return Observability(Metrics(snapshot, clock, version), _tracer(version, environ), others)


def wants_tracing(environ: Mapping[str, str]) -> bool:
    """Whether a collector for traces is named and nothing switches them off."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if environ.get("OTEL_TRACES_EXPORTER", "").strip().lower() == "none":
        return False
    return any(environ.get(name, "").strip() for name in _ENDPOINTS)


def _tracer(version: str, environ: Mapping[str, str]) -> Tracer | None:
    if not wants_tracing(environ):
        return None
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), "grpc")
    if protocol != "grpc":
        _LOG.warning("otlp_protocol_not_used", message="traces leave by gRPC", remedy=f"unset {_PROTOCOLS[1]}")
    try:
        return _build_tracer(version)
    except Exception as error:
        # A mistake in what only watches must not keep the service from serving.
        _LOG.error("tracing_off", error=type(error).__name__, remedy="correct the OTEL_… variables")
        return None


def _build_tracer(version: str) -> Tracer:
    # Imported here: without tracing nobody should wait for it.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource

    resource = Resource.create({"service.version": version})
    if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": SERVICE_NAME}))
    exporter = CountingExporter(OTLPSpanExporter())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    processor = DroppingProcessor(exporter)
    provider.add_span_processor(processor)
    return Tracer(provider, exporter, processor)


def _interceptors(provider: TracerProvider) -> Sequence[Any]:
    from pointsman_server.adapters.telemetry.server_spans import ServerSpans

    return (ServerSpans(provider),)
