"""Decisions as notes for other processes: by names and numbers, to be followed under the policy that made them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import orjson

from pointsman_server.domain.call import Decision
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.plan import (
    Candidate,
    Complexity,
    ExclusionReason,
    Factor,
    Rejection,
    RoutePlan,
    TaskType,
    TokenEstimate,
)
from pointsman_server.domain.request import Tier


def digest_of(request_digest: bytes) -> bytes:
    """What stands for a request in a note: sealed answers open with the digest itself, so that is stored nowhere."""
    return hashlib.blake2b(request_digest, digest_size=16, person=b"decision").digest()


@dataclass(frozen=True, slots=True)
class NotedDecision:
    """A decision that another process made. `digest` stands for its request (see `digest_of`)."""

    policy_version: str
    digest: bytes
    _written: Mapping[str, Any]

    def under(self, deployments: Mapping[str, Deployment]) -> Decision:
        """The decision, with the deployments of its policy. Raises `ValueError` where one of them is missing."""
        written = self._written
        plan = written["plan"]
        try:
            candidates = tuple(_candidate(one, deployments) for one in plan["candidates"])
        except KeyError:
            raise ValueError("a deployment is missing") from None
        return Decision(
            written["id"], replace(_plan(plan), candidates=candidates), written["latency_seconds"], written["template"]
        )


def write_decision(decision: Decision, digest: bytes) -> bytes:
    """The note of a decision; `digest` stands for its request."""
    plan = decision.plan
    named = tuple({**one._asdict(), "deployment": one.deployment.id} for one in plan.candidates)
    written = {
        "id": decision.id,
        "digest": digest.hex(),
        "latency_seconds": decision.latency_seconds,
        "template": decision.template,
        "plan": {
            "candidates": named,
            "rejections": plan.rejections,
            "complexity": plan.complexity,
            "input_tokens": plan.input_tokens,
            "policy_version": plan.policy_version,
            "applied_rules": plan.applied_rules,
            "quality_bias": plan.quality_bias,
        },
    }
    return orjson.dumps(written, default=tuple)  # named tuples become lists


def read_decision(note: bytes) -> NotedDecision:
    """A decision from its note. Raises `ValueError` for one that this version cannot read."""
    try:
        written = orjson.loads(note)
        plan = _plan(written["plan"])
        return NotedDecision(plan.policy_version, bytes.fromhex(written["digest"]), written)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the note is none of ours: {type(error).__name__}") from None


def _plan(plan: Mapping[str, Any]) -> RoutePlan:
    """All of it but the candidates."""
    return RoutePlan(
        candidates=(),
        rejections=tuple(Rejection(name, ExclusionReason(reason), told) for name, reason, told in plan["rejections"]),
        complexity=_complexity(plan["complexity"]),
        input_tokens=TokenEstimate(**plan["input_tokens"]),
        policy_version=plan["policy_version"],
        applied_rules=tuple(plan["applied_rules"]),
        quality_bias=plan["quality_bias"],
    )


def _candidate(written: Mapping[str, Any], deployments: Mapping[str, Deployment]) -> Candidate:
    parts = _factors(written["score_parts"])
    return Candidate(**{**written, "deployment": deployments[written["deployment"]], "score_parts": parts})


def _complexity(written: Mapping[str, Any]) -> Complexity:
    return Complexity(
        **{
            **written,
            "tier": Tier(written["tier"]),
            "task": TaskType(written["task"]),
            "factors": _factors(written["factors"]),
            "tier_probabilities": tuple(written["tier_probabilities"]),
        }
    )


def _factors(written: Any) -> tuple[Factor, ...]:
    return tuple(Factor(*one) for one in written)
