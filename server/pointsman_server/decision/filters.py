"""Hard rules: each says why a deployment may not answer, or nothing. The first that speaks is the reason given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pointsman_server.decision.rules import Wishes, excluded_by
from pointsman_server.decision.tokens import core_of, tokens_for
from pointsman_server.domain.catalog import Deployment, Snapshot
from pointsman_server.domain.facts import Circumstances, RequestFacts
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.plan import ExclusionReason, Rejection, TokenEstimate
from pointsman_server.domain.request import Capability, DataClass


@dataclass(frozen=True, slots=True)
class Needs:
    """What a request demands of a deployment, worked out once."""

    facts: RequestFacts
    wishes: Wishes
    tokens: TokenEstimate
    health: HealthView
    pinned_id: str
    allowed_ids: frozenset[str]
    denied_ids: frozenset[str]
    tier_chain_ids: frozenset[str]
    capabilities: frozenset[Capability]
    least_data_class: DataClass | None = None
    """What all calls of the tenant are taken to carry at least."""
    wants_vectors: bool = False


Rule = Callable[[Needs, Deployment], Rejection | None]

_LACKED_WITHOUT_MODEL = frozenset({Capability.TOOLS, Capability.VISION})
"""What a last resort cannot make up for; all else is about how a model answers, and it is none."""


def work_out_needs(circumstances: Circumstances, wishes: Wishes, snapshot: Snapshot) -> Needs:
    """Resolves names, and adds what the rules require to what the request needs."""
    facts = circumstances.facts
    constraints = facts.constraints
    chain = snapshot.tier_chains.get(facts.tier, ()) if facts.tier is not None else ()
    return Needs(
        facts=facts,
        wishes=wishes,
        tokens=circumstances.tokens,
        health=circumstances.health,
        pinned_id=snapshot.aliases.get(facts.deployment, facts.deployment),
        allowed_ids=_resolve(snapshot, constraints.allowed_deployments),
        denied_ids=_resolve(snapshot, constraints.denied_deployments),
        tier_chain_ids=frozenset(chain),
        capabilities=facts.capabilities | wishes.required if wishes.required else facts.capabilities,
        least_data_class=snapshot.governance.of(circumstances.tenant).least_data_class,
    )


def rules_for(needs: Needs) -> tuple[Rule, ...]:
    """The rules that can say anything about this request, in their order; most requests demand little."""
    constraints = needs.facts.constraints
    speaks = (
        (_pinned, needs.pinned_id),
        (_denied, needs.denied_ids),
        (_allowed, needs.allowed_ids),
        (_kind, True),
        (_tier, needs.facts.tier),
        (_data_class, constraints.data_class > DataClass.PUBLIC),
        (_region, constraints.regions),
        (_policy_rule, needs.wishes.only or needs.wishes.denied),
        (_capabilities, needs.capabilities),
        (_context_window, True),
        (_first_token, constraints.max_first_token_seconds is not None),
        (_provider_usable, True),
        (_healthy, needs.health.rejections),
    )
    return tuple(rule for rule, can_speak in speaks if can_speak)


def reject(rules: tuple[Rule, ...], needs: Needs, deployment: Deployment) -> Rejection | None:
    """The first reason why this deployment may not answer; None when it may."""
    for rule in rules:
        rejection = rule(needs, deployment)
        if rejection is not None:
            return rejection
    return None


def _resolve(snapshot: Snapshot, names: frozenset[str]) -> frozenset[str]:
    return frozenset(snapshot.aliases.get(name, name) for name in names) if names else names


def _pinned(needs: Needs, deployment: Deployment) -> Rejection | None:
    if needs.pinned_id and deployment.id != needs.pinned_id:
        return Rejection(deployment.id, ExclusionReason.NOT_PINNED, f"the request pins {needs.pinned_id}")
    return None


def _denied(needs: Needs, deployment: Deployment) -> Rejection | None:
    if deployment.id in needs.denied_ids:
        return Rejection(deployment.id, ExclusionReason.DENIED, "constraints.denied_deployments names it")
    return None


def _allowed(needs: Needs, deployment: Deployment) -> Rejection | None:
    if needs.allowed_ids and deployment.id not in needs.allowed_ids:
        detail = "constraints.allowed_deployments does not name it"
        return Rejection(deployment.id, ExclusionReason.NOT_ALLOWED, detail)
    return None


def is_of_kind(needs: Needs, deployment: Deployment) -> bool:
    """Whether the deployment's model does what is wanted at all: answers, or vectors."""
    return (deployment.model.embedding is not None) is needs.wants_vectors


def _kind(needs: Needs, deployment: Deployment) -> Rejection | None:
    if (deployment.model.embedding is not None) is needs.wants_vectors:  # asked of every deployment of every decision
        return None
    detail = "its model answers and makes no vectors" if needs.wants_vectors else "its model only makes vectors"
    return Rejection(deployment.id, ExclusionReason.CAPABILITY, detail)


def _tier(needs: Needs, deployment: Deployment) -> Rejection | None:
    tier = needs.facts.tier
    if tier is None or deployment.id in needs.tier_chain_ids or deployment.model.tier is tier:
        return None
    if deployment.is_last_resort:
        return None
    detail = f"it is of tier {deployment.model.tier.name.lower()}, the request asks for {tier.name.lower()}"
    return Rejection(deployment.id, ExclusionReason.TIER, detail)


def _data_class(needs: Needs, deployment: Deployment) -> Rejection | None:
    data_class = needs.facts.constraints.data_class
    if data_class > deployment.approved_data_class:
        who = "every call of the tenant" if data_class == needs.least_data_class else "the request"
        detail = (
            f"it is approved for {deployment.approved_data_class.name.lower()} data, "
            f"{who} carries {data_class.name.lower()} data"
        )
        return Rejection(deployment.id, ExclusionReason.DATA_CLASS, detail)
    return None


def _region(needs: Needs, deployment: Deployment) -> Rejection | None:
    regions = needs.facts.constraints.regions
    if regions and not regions & deployment.regions and not deployment.is_last_resort:
        serves = ", ".join(sorted(deployment.regions)) or "no named region"
        return Rejection(deployment.id, ExclusionReason.REGION, f"it serves from {serves}")
    return None


def _policy_rule(needs: Needs, deployment: Deployment) -> Rejection | None:
    name = excluded_by(needs.wishes, deployment.id)
    return Rejection(deployment.id, ExclusionReason.RULE, f"the policy's rule '{name}' leaves it out") if name else None


def _capabilities(needs: Needs, deployment: Deployment) -> Rejection | None:
    missing = needs.capabilities - deployment.model.capabilities
    if deployment.is_last_resort:
        missing &= _LACKED_WITHOUT_MODEL
    if missing:
        names = ", ".join(sorted(capability.value for capability in missing))
        return Rejection(deployment.id, ExclusionReason.CAPABILITY, f"its model lacks {names}")
    return None


def _context_window(needs: Needs, deployment: Deployment) -> Rejection | None:
    window = deployment.model.context_window_tokens
    if window < needs.facts.constraints.min_context_tokens:
        detail = (
            f"its window has {window} tokens, constraints.min_context_tokens asks for "
            f"{needs.facts.constraints.min_context_tokens}"
        )
        return Rejection(deployment.id, ExclusionReason.CONTEXT_WINDOW, detail)
    core = core_of(needs.tokens)
    tokens = tokens_for(deployment, core).tokens
    if tokens >= window:
        what = "the input" if core is needs.tokens else "what may not be left out of the input"
        detail = f"{what} has about {tokens} of its tokens, its window {window}"
        return Rejection(deployment.id, ExclusionReason.CONTEXT_WINDOW, detail)
    return None


def _first_token(needs: Needs, deployment: Deployment) -> Rejection | None:
    limit = needs.facts.constraints.max_first_token_seconds
    expected = needs.health.first_token_seconds(deployment)
    if limit is not None and expected > limit:
        detail = f"its first token is expected after {expected:.2f} s, the request allows {limit:.2f} s"
        return Rejection(deployment.id, ExclusionReason.FIRST_TOKEN_LATENCY, detail)
    return None


def _provider_usable(needs: Needs, deployment: Deployment) -> Rejection | None:
    because = deployment.provider.unusable_because
    return Rejection(deployment.id, ExclusionReason.PROVIDER_UNUSABLE, because) if because else None


def _healthy(needs: Needs, deployment: Deployment) -> Rejection | None:
    return needs.health.unavailable(deployment.id)
