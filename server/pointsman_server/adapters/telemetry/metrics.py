"""Metrics through OpenTelemetry, shown in Prometheus's text form. All labels are names of the policy or our own."""

from __future__ import annotations

from collections.abc import Callable

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, Histogram, MeterProvider, ObservableCounter
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from pointsman_server.adapters.telemetry.breakers import BreakerMetrics
from pointsman_server.adapters.telemetry.call_metrics import CallMetrics
from pointsman_server.adapters.telemetry.instruments import DeploymentLabels, Instruments
from pointsman_server.domain.call import Call
from pointsman_server.domain.catalog import Deployment, Snapshot
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.ledger import BudgetAlert
from pointsman_server.domain.ports import Clock, Operation

MOST_SERIES = 50_000
"""Of one metric; beyond it the SDK joins what is new. A hundred deployments have some thousand."""


class Metrics:
    """See `Telemetry`. One for the process; `snapshot` is the policy in force."""

    def __init__(self, snapshot: Callable[[], Snapshot], clock: Clock, version: str) -> None:
        self._snapshot = snapshot
        self._version = version
        self.clock = clock
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        reader = PrometheusMetricReader(
            disable_target_info=True,
            scope_info_enabled=False,
            registry=self._registry,
            cardinality_limits={ObservableCounter: MOST_SERIES, Histogram: MOST_SERIES},
        )
        self._provider = MeterProvider([reader], exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False)
        self._meter: Meter = self._provider.get_meter("pointsman")
        self.instruments = Instruments(self._meter)
        self._breakers = BreakerMetrics(self._meter, lambda: self._snapshot().deployments, clock)
        self._labels: dict[str, tuple[Deployment, DeploymentLabels]] = {}
        self._methods: dict[str, dict[str, str]] = {}
        self._dropped: dict[str, Callable[[], int]] = {}
        self._meter.create_observable_gauge(
            "pointsman_build_info", [self._observe_build], description="Always 1; what runs here."
        )
        self._meter.create_observable_gauge(
            "pointsman_deployment_info", [self._observe_deployments], description="Always 1; the policy's deployments."
        )
        self._meter.create_observable_counter(
            "pointsman_telemetry_dropped",
            [self._observe_dropped],
            description="Spans, log lines and metric events given up rather than let a call wait or fail.",
        )

    def call(self, call: Call, operation: Operation) -> CallMetrics:
        """See `Telemetry.call`."""
        return CallMetrics(self, call)

    def breaker_changed(self, deployment_id: str, before: BreakerState, after: BreakerState) -> None:
        """See `Telemetry.breaker_changed`."""
        self._breakers.changed(deployment_id, before, after)

    def retried(self, operation: Operation, number: int) -> None:
        """See `Telemetry.retried`."""
        self.instruments.retries.add((operation.value, str(number)))

    def hedged(self, *, won: bool) -> None:
        """See `Telemetry.hedged`."""
        self.instruments.hedges.add(("won" if won else "lost",))

    def shed(self, reason: str) -> None:
        """See `Telemetry.shed`."""
        self.instruments.shed.add((reason,))

    def guard_hit(self, guard: str, kind: str, action: str, count: int = 1) -> None:
        """See `Telemetry.guard_hit`."""
        self.instruments.guard_hits.add((guard, kind, action), count)

    def budget_used(self, alert: BudgetAlert) -> None:
        """A budget is used to 80 or 100 per cent; once for all processes."""
        self.instruments.budget_alerts.add((alert.key.tenant, alert.key.budget, str(alert.percent)))

    def observe(self, method: str, code: str, seconds: float) -> None:
        """A call of our services left the door: its RPC's short name, the name of its code, how long it took."""
        self.instruments.requests.add((method, code))
        attributes = self._methods.get(method)
        if attributes is None:
            attributes = self._methods[method] = {"method": method}
        self.instruments.request_seconds.record(seconds, attributes)

    def watch_load(self, *, calls_in_flight: Callable[[], int], queued_calls: Callable[[], int]) -> None:
        """Whom to ask how many calls are being served and how many wait; to be called once."""
        self._gauge("pointsman_calls_in_flight", calls_in_flight, "Calls that are being served.")
        self._gauge("pointsman_queued_calls", queued_calls, "Calls that wait for their turn.")

    def watch_cache(
        self, *, answers: Callable[[], int], evicted: Callable[[], int], dropped: Callable[[], int]
    ) -> None:
        """Whom to ask about the cache of this process; to be called once."""
        self._gauge("pointsman_cache_held_answers", answers, "Cached answers that the process holds in its memory.")
        counters = {
            "pointsman_cache_evicted": (evicted, "Cached answers removed because their tenants had too many."),
            "pointsman_cache_dropped": (dropped, "Answers that could not be written to the cache's database."),
        }
        for name, (read, description) in counters.items():
            self._meter.create_observable_counter(name, [_observer(read)], description=description)

    def watch_dropped(self, signal: str, dropped: Callable[[], int]) -> None:
        """Whom to ask how much of a signal ("traces", "logs", "metrics") was given up so far."""
        self._dropped[signal] = dropped

    def record_loop_lag(self, seconds: float) -> None:
        """The event loop was so late."""
        self.instruments.loop_lag_seconds.record(seconds)

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text form 0.0.4. Takes milliseconds and belongs off the event loop, one at a
        time."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Nothing is shown after this."""
        self._provider.shutdown()

    def labels_of(self, deployment: Deployment) -> DeploymentLabels:
        """The labels that tell of a deployment, made once for as long as the policy says the same of it."""
        known = self._labels.get(deployment.id)
        if known is None or known[0] is not deployment:
            known = self._labels[deployment.id] = deployment, DeploymentLabels.of(deployment)
        return known[1]

    def _gauge(self, name: str, read: Callable[[], int], description: str) -> None:
        self._meter.create_observable_gauge(name, [_observer(read)], description=description)

    def _observe_build(self, _: CallbackOptions) -> list[Observation]:
        return [Observation(1, {"version": self._version, "policy_version": self._snapshot().version})]

    def _observe_deployments(self, _: CallbackOptions) -> list[Observation]:
        return [
            Observation(1, {**self.labels_of(one).attributes, "tier": one.model.tier.name.lower()})
            for one in self._snapshot().deployments.values()
        ]

    def _observe_dropped(self, _: CallbackOptions) -> list[Observation]:
        return [Observation(dropped(), {"signal": signal}) for signal, dropped in self._dropped.items()]


def _observer(read: Callable[[], int]) -> Callable[[CallbackOptions], list[Observation]]:
    return lambda _: [Observation(read())]
