"""Attempts and completions as telemetry is told of them."""

from __future__ import annotations

from typing import Any

from kit.catalog import candidate, plan
from pointsman_server.domain.call import Attempt, AttemptOutcome, Completion, Decision
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import TextPart
from pointsman_server.domain.reply import FinishReason, Reply, Usage

SECRET = "canary-a1b2c3"
"""Stands in every text that telemetry can see and must not tell."""


def decision(*deployments: Deployment, **changes: Any) -> Decision:
    """A decision for these deployments, in this order."""
    return Decision(**{"id": "dec_1", "plan": plan(deployments), "latency_seconds": 0.002, **changes})


def attempt(one: Deployment, **changes: Any) -> Attempt:
    """An attempt that answered."""
    fields: dict[str, Any] = {
        "deployment": one,
        "latency_seconds": 0.8,
        "first_token_seconds": None,
        "outcome": AttemptOutcome.SUCCEEDED,
        "usage": Usage(input_tokens=9, output_tokens=3),
        "cost_micro_usd": 15,
    }
    return Attempt(**{**fields, **changes})


def failed(one: Deployment, kind: FaultKind = FaultKind.OVERLOADED, **changes: Any) -> Attempt:
    """An attempt that failed before the provider counted anything."""
    fault = ProviderFault(kind, "the provider is busy", status=503)
    fields = {"outcome": AttemptOutcome.FAILED, "usage": Usage(), "cost_micro_usd": 0, "fault": fault}
    return attempt(one, **{**fields, **changes})


def cancelled(one: Deployment, **changes: Any) -> Attempt:
    """An attempt that nobody waited for."""
    return failed(one, **{"outcome": AttemptOutcome.CANCELLED, "fault": None, **changes})


def completion(*attempts: Attempt, model: str = "m-1", **changes: Any) -> Completion:
    """The answer of the last of these attempts."""
    last = attempts[-1]
    reply = Reply((TextPart(SECRET),), FinishReason.STOP, SECRET, last.usage, (), SECRET, model)
    fields: dict[str, Any] = {
        "request_id": "req_test",
        "decision": decision(last.deployment),
        "answered_by": candidate(last.deployment),
        "reply": reply,
        "usage": last.usage,
        "estimated": False,
        "cost_micro_usd": sum(one.cost_micro_usd for one in attempts),
        "attempts": attempts,
        "warnings": (),
    }
    return Completion(**{**fields, **changes})
