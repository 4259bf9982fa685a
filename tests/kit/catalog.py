"""Small policies, requests and health, made of the domain's own values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pointsman_server.domain.call import Call
from pointsman_server.domain.catalog import Deployment, Dialect, Model, Price, Provider, Rates, Snapshot
from pointsman_server.domain.experience import NO_EXPERIENCE, Experience
from pointsman_server.domain.facts import Circumstances, RequestFacts
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.message import Message, Role, TextPart
from pointsman_server.domain.plan import (
    Candidate,
    Complexity,
    ExclusionReason,
    Rejection,
    RoutePlan,
    TokenEstimate,
)
from pointsman_server.domain.request import Capability, CompletionRequest, Tier
from pointsman_server.domain.tokenizer import Tokenizer

EVERYTHING = frozenset(Capability)
FEW_TOKENS = TokenEstimate(tokens=100, exact=True, upper_bound=150)


def price(input_rate: int = 1_000_000, output_rate: int = 2_000_000, **changes: Any) -> Price:
    """A price of one step; the rates are micro-USD for a million tokens."""
    rates = Rates(input=input_rate, output=output_rate, cached_input=input_rate, cache_write_input=input_rate)
    return Price(**{"version": "test", "valid_from": None, "steps": ((0, rates),), **changes})


def model(name: str = "m", **changes: Any) -> Model:
    """A model that can do everything and counts as we count."""
    fields: dict[str, Any] = {
        "id": name,
        "tier": Tier.STANDARD,
        "context_window_tokens": 100_000,
        "max_output_tokens": 4_000,
        "capabilities": EVERYTHING,
        "quality": 0.5,
        "price": price(),
        "tokenizer": Tokenizer.O200K,
    }
    return Model(**{**fields, **changes})


def provider(name: str = "p", **changes: Any) -> Provider:
    """A provider without a key."""
    return Provider(**{"id": name, "dialect": Dialect.OPENAI_CHAT, "base_url": "http://127.0.0.1:1/v1", **changes})


def deployment(
    name: str, *, of: Mapping[str, Any] | None = None, by: Mapping[str, Any] | None = None, **changes: Any
) -> Deployment:
    """A deployment with a model (`of` changes it) and a provider (`by` changes it) of its own, named after it."""
    fields: dict[str, Any] = {
        "id": name,
        "provider": provider(f"{name}-provider", **(by or {})),
        "model": model(f"{name}-model", **(of or {})),
        "model_name": f"{name}-1",
    }
    return Deployment(**{**fields, **changes})


def snapshot(*deployments: Deployment, **changes: Any) -> Snapshot:
    """A policy with these deployments."""
    fields: dict[str, Any] = {
        "version": "v1",
        "source": "test.yaml",
        "deployments": {one.id: one for one in deployments},
        "aliases": {},
        "tier_chains": {},
    }
    return Snapshot(**{**fields, **changes})


def user(text: str) -> Message:
    """What a user says."""
    return Message(Role.USER, (TextPart(text),))


def request(text: str = "What is the capital of France?", **changes: Any) -> CompletionRequest:
    """A request with one message."""
    return CompletionRequest(**{"messages": (user(text),), **changes})


def judged(tier: Tier = Tier.STANDARD, **changes: Any) -> Complexity:
    """A judgement in the middle of the tier's band; at tier standard models are as good as their `quality`."""
    score = {Tier.LIGHT: 0.15, Tier.STANDARD: 0.5, Tier.ADVANCED: 0.85}[tier]
    difficulty = 2.0 * (tier - Tier.STANDARD)
    return Complexity(**{"score": score, "tier": tier, "factors": (), "difficulty": difficulty, **changes})


def circumstances(
    *,
    tokens: TokenEstimate = FEW_TOKENS,
    health: HealthView | None = None,
    experience: Experience = NO_EXPERIENCE,
    session: str = "",
    **facts: Any,
) -> Circumstances:
    """What a decision depends on; `session` is the deployment of the last turn, the rest are facts of the request."""
    return Circumstances(
        facts=RequestFacts(**{"complexity": judged(), **facts}),
        tokens=tokens,
        health=health or HealthView(),
        experience=experience,
        session_deployment_id=session,
    )


def call(policy: Snapshot, deadline: float = 1e9, **changes: Any) -> Call:
    """A call that has all the time in the world."""
    fields: dict[str, Any] = {
        "request": request(),
        "request_id": "req_test",
        "snapshot": policy,
        "deadline": deadline,
    }
    return Call(**{**fields, **changes})


def candidate(one: Deployment, **changes: Any) -> Candidate:
    """A place in a plan."""
    fields: dict[str, Any] = {
        "deployment": one,
        "score": 1.0,
        "score_parts": (),
        "expected_quality": one.model.quality,
        "expected_cost_micro_usd": 10,
        "worst_cost_micro_usd": 100,
        "expected_first_token_seconds": 1.0,
        "max_output_tokens": 1_000,
    }
    return Candidate(**{**fields, **changes})


def plan(deployments: Iterable[Deployment], **changes: Any) -> RoutePlan:
    """A plan that asks these in this order."""
    fields: dict[str, Any] = {
        "candidates": tuple(candidate(one) for one in deployments),
        "rejections": (),
        "complexity": Complexity(0.5, Tier.STANDARD, ()),
        "input_tokens": FEW_TOKENS,
        "policy_version": "v1",
    }
    return RoutePlan(**{**fields, **changes})


def rejection(name: str, reason: ExclusionReason) -> Rejection:
    """A deployment that is out, with a detail of its own."""
    return Rejection(name, reason, f"{name} is out: {reason.value}")
