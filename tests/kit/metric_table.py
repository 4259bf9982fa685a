"""The metrics that pointsman promises to show, with their labels: what rules and dashboards may rest on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import grpc

from pointsman_server.domain.cache import CacheOutcome
from pointsman_server.domain.call import AttemptOutcome, AttemptPurpose
from pointsman_server.domain.faults import FaultKind
from pointsman_server.domain.health import BreakerState

_DEPLOYMENT = ("deployment", "provider", "model")

COUNTERS_AND_GAUGES: Mapping[str, tuple[str, ...]] = {
    "pointsman_requests_total": ("method", "code"),
    "pointsman_attempts_total": (*_DEPLOYMENT, "purpose", "outcome", "error"),
    "pointsman_retries_total": ("operation", "attempt"),
    "pointsman_fallbacks_total": ("outcome",),
    "pointsman_hedges_total": ("outcome",),
    "pointsman_breaker_state": ("deployment",),
    "pointsman_breaker_transitions_total": ("deployment", "from_state", "to_state"),
    "pointsman_breaker_open_seconds_total": ("deployment",),
    "pointsman_deployment_info": (*_DEPLOYMENT, "tier"),
    "pointsman_tokens_total": (*_DEPLOYMENT, "kind"),
    "pointsman_cost_micro_usd_total": _DEPLOYMENT,
    "pointsman_calls_in_flight": (),
    "pointsman_queued_calls": (),
    "pointsman_shed_total": ("reason",),
    "pointsman_guard_hits_total": ("guard", "found", "action"),
    "pointsman_cache_lookups_total": ("outcome",),
    "pointsman_cache_saved_micro_usd_total": _DEPLOYMENT,
    "pointsman_cache_held_answers": (),
    "pointsman_cache_evicted_total": (),
    "pointsman_cache_dropped_total": (),
    "pointsman_budget_alerts_total": ("tenant", "budget", "percent"),
    "pointsman_telemetry_dropped_total": ("signal",),
    "pointsman_build_info": ("version", "policy_version"),
    "process_start_time_seconds": (),
    "process_cpu_seconds_total": (),
    "process_resident_memory_bytes": (),
    "process_open_fds": (),
    "process_max_fds": (),
}

HISTOGRAMS: Mapping[str, tuple[str, ...]] = {
    "pointsman_request_duration_seconds": ("method",),
    "pointsman_first_token_seconds": ("model",),
    "pointsman_decision_duration_seconds": (),
    "pointsman_attempt_duration_seconds": _DEPLOYMENT,
    "pointsman_attempt_first_token_seconds": _DEPLOYMENT,
    "pointsman_context_utilisation": _DEPLOYMENT,
    "pointsman_event_loop_lag_seconds": (),
}

VALUES: Mapping[str, frozenset[str]] = {
    "code": frozenset(code.name for code in grpc.StatusCode),
    "error": frozenset(("", *(kind.value for kind in FaultKind))),
    "purpose": frozenset(purpose.value for purpose in AttemptPurpose),
    "outcome": frozenset(
        (*(outcome.value for outcome in AttemptOutcome), "won", "lost", *(one.value for one in CacheOutcome))
    ),
    "from_state": frozenset(state.value for state in BreakerState),
    "to_state": frozenset(state.value for state in BreakerState),
    "kind": frozenset(("input", "cached_input", "cache_write_input", "output", "reasoning")),
    "reason": frozenset(("calls", "queue", "deployment", "reader")),
}
"""All that these labels can be."""

_TARGET = ("job", "instance")
"""What Prometheus adds to every series."""


def series() -> dict[str, frozenset[str]]:
    """The labels of every series that Prometheus keeps of pointsman, by its name; recorded ones are not among them."""
    found = {name: _with_target(labels) for name, labels in COUNTERS_AND_GAUGES.items()}
    for name, labels in HISTOGRAMS.items():
        found |= {f"{name}{end}": _with_target(labels) for end in ("_sum", "_count")}
        found[f"{name}_bucket"] = _with_target((*labels, "le"))
    return found | {"up": frozenset(_TARGET)}


def _with_target(labels: Iterable[str]) -> frozenset[str]:
    return frozenset((*labels, *_TARGET))
