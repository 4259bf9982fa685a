"""The instruments of all metrics but the breakers', with their names, labels and buckets.

The exporter adds `_total` to counters and, for a unit, its name; so no instrument has a unit here.
"""

from __future__ import annotations

from typing import NamedTuple

from opentelemetry.metrics import Histogram, Meter

from pointsman_server.adapters.telemetry.tally import Tally
from pointsman_server.domain.cache import CacheOutcome
from pointsman_server.domain.catalog import Deployment

DECISION_BUCKETS_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1)
"""A decision takes 0.1 to 1 ms; a request near the largest window some more."""

CALL_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
"""From a refusal at the door to the longest answers of reasoning models."""

LAG_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""An event loop is well below 5 ms and ill above 50."""

UTILISATION_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 1.0)
"""Shares of a context window; what comes near to all of it had to be cut, or soon will have to be."""

SHED_REASONS = ("calls", "queue", "deployment", "reader")
FALLBACK_OUTCOMES = ("succeeded", "failed")
HEDGE_OUTCOMES = ("won", "lost")
_OF_DEPLOYMENT = ("deployment", "provider", "model")


class DeploymentLabels(NamedTuple):
    """The labels that tell of a deployment, in the two forms that counters and histograms take."""

    values: tuple[str, str, str]
    attributes: dict[str, str]
    model: dict[str, str]

    @classmethod
    def of(cls, deployment: Deployment) -> DeploymentLabels:
        """All three are names of the policy; a simulated provider goes by no other name."""
        values = (deployment.id, deployment.provider.label, deployment.model.id)
        return cls(values, dict(zip(_OF_DEPLOYMENT, values, strict=True)), {"model": deployment.model.id})


class Instruments:
    """Made once for the process."""

    def __init__(self, meter: Meter) -> None:
        self.requests = Tally(
            meter, "pointsman_requests", "Calls of our services as they left the door.", ("method", "code")
        )
        self.request_seconds = _histogram(
            meter, "pointsman_request_duration_seconds", "Seconds from the arrival of a call to its end."
        )
        self.first_token_seconds = _histogram(
            meter,
            "pointsman_first_token_seconds",
            "Seconds from the start of a streamed call to the first piece of the answer that went to the caller.",
        )
        self.decision_seconds = _histogram(
            meter, "pointsman_decision_duration_seconds", "Seconds that a decision took.", DECISION_BUCKETS_SECONDS
        )
        self.attempts = Tally(
            meter,
            "pointsman_attempts",
            "Calls to deployments by why they were made and how they ended; error is empty without one.",
            (*_OF_DEPLOYMENT, "purpose", "outcome", "error"),
        )
        self.attempt_seconds = _histogram(
            meter,
            "pointsman_attempt_duration_seconds",
            "Seconds from the start of a call to a deployment to its end; cancelled ones say nothing and are left out.",
        )
        self.attempt_first_token_seconds = _histogram(
            meter,
            "pointsman_attempt_first_token_seconds",
            "Seconds from the start of a streamed call to a deployment to its first piece of content.",
        )
        self.retries = Tally(
            meter,
            "pointsman_retries",
            "Retries of the same deployment, by operation and by number within the call.",
            _RETRY,
        )
        self.fallbacks = Tally(
            meter,
            "pointsman_fallbacks",
            "Calls for which another deployment was asked after a failure, by how they ended.",
            ("outcome",),
            [(outcome,) for outcome in FALLBACK_OUTCOMES],
        )
        self.hedges = Tally(
            meter,
            "pointsman_hedges",
            "Second deployments asked beside a slow first, by whether their answer was taken.",
            ("outcome",),
            [(outcome,) for outcome in HEDGE_OUTCOMES],
        )
        self.tokens = Tally(
            meter,
            "pointsman_tokens",
            "Tokens by kind; cached_input and cache_write_input are parts of input, reasoning is part of output.",
            (*_OF_DEPLOYMENT, "kind"),
        )
        self.cost_micro_usd = Tally(
            meter, "pointsman_cost_micro_usd", "Cost of all attempts, in millionths of a US dollar.", _OF_DEPLOYMENT
        )
        self.context_utilisation = _histogram(
            meter,
            "pointsman_context_utilisation",
            "Input tokens of a call to a deployment as a share of its model's context window.",
            UTILISATION_BUCKETS,
        )
        self.shed = Tally(
            meter,
            "pointsman_shed",
            "Calls refused for load, by what was full.",
            ("reason",),
            [(reason,) for reason in SHED_REASONS],
        )
        self.guard_hits = Tally(
            meter,
            "pointsman_guard_hits",
            "What the guards found in requests and what was done; found is failed where a guard failed.",
            ("guard", "found", "action"),
        )
        self.cache_lookups = Tally(
            meter,
            "pointsman_cache_lookups",
            "Answered calls by what the cache did; bypass is where it was not asked.",
            ("outcome",),
            [(outcome.value,) for outcome in CacheOutcome],
        )
        self.cache_saved_micro_usd = Tally(
            meter,
            "pointsman_cache_saved_micro_usd",
            "What answers from the cache had cost when they were made, in millionths of a US dollar.",
            _OF_DEPLOYMENT,
        )
        self.budget_alerts = Tally(
            meter,
            "pointsman_budget_alerts",
            "Budgets that were used to 80 or 100 per cent of a period, counted by the process that noticed.",
            ("tenant", "budget", "percent"),
        )
        self.loop_lag_seconds = _histogram(
            meter,
            "pointsman_event_loop_lag_seconds",
            "Seconds by which the event loop was late for a timer.",
            LAG_BUCKETS_SECONDS,
        )


_RETRY = ("operation", "attempt")


def _histogram(
    meter: Meter, name: str, description: str, buckets: tuple[float, ...] = CALL_BUCKETS_SECONDS
) -> Histogram:
    return meter.create_histogram(name, description=description, explicit_bucket_boundaries_advisory=buckets)
