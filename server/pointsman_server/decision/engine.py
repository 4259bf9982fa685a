"""The decision: a pure function from a request's circumstances and the policy to a plan."""

from __future__ import annotations

from pointsman_server.decision.filters import Needs, is_of_kind, reject, rules_for, work_out_needs
from pointsman_server.decision.rules import gather_wishes
from pointsman_server.decision.scoring import Costing, cost_of, rank
from pointsman_server.decision.tenancy import deployments_for, finds, under_tenant
from pointsman_server.decision.tokens import core_of, tokens_for
from pointsman_server.domain.catalog import Deployment, Snapshot
from pointsman_server.domain.errors import (
    ContextOverflow,
    DeploymentNotFound,
    FieldProblem,
    NobodyHealthy,
    NoEligibleDeployment,
    Overloaded,
    RouterError,
    UnsupportedContent,
)
from pointsman_server.domain.facts import Circumstances
from pointsman_server.domain.plan import ExclusionReason, Rejection, RoutePlan

_BY_WISH = frozenset(
    {
        ExclusionReason.NOT_PINNED,
        ExclusionReason.DENIED,
        ExclusionReason.NOT_ALLOWED,
        ExclusionReason.TIER,
        ExclusionReason.RULE,
        ExclusionReason.KILL_SWITCH,
    }
)
"""Somebody, caller, policy or operator, wants others: says nothing of why those that are left cannot answer."""

_PASSING = frozenset({ExclusionReason.BREAKER_OPEN, ExclusionReason.COOLDOWN, ExclusionReason.BUSY})

BUSY_RETRY_SECONDS = 0.5
"""When to come back when all places are taken."""


def decide(circumstances: Circumstances, snapshot: Snapshot) -> RoutePlan:
    """The plan under these circumstances and this policy; the same inputs give the same plan.

    Raises `DeploymentNotFound`, `ContextOverflow`, `UnsupportedContent`, `NobodyHealthy` or `NoEligibleDeployment`
    when nobody may answer.
    """
    tenant = snapshot.governance.of(circumstances.tenant)
    circumstances = under_tenant(circumstances, tenant)
    facts = circumstances.facts
    if facts.deployment and not finds(tenant, facts.deployment, snapshot):
        raise DeploymentNotFound
    wishes = gather_wishes(circumstances, snapshot)
    needs = work_out_needs(circumstances, wishes, snapshot)
    costed, rejections = _sift(needs, circumstances, snapshot)
    if not costed:
        raise nobody(needs, snapshot, rejections)
    return RoutePlan(
        candidates=rank(costed, circumstances, wishes, snapshot),
        rejections=rejections,
        complexity=facts.complexity,
        input_tokens=circumstances.tokens,
        policy_version=snapshot.version,
        applied_rules=wishes.applied_rules,
        quality_bias=wishes.quality_bias,
    )


def _sift(
    needs: Needs, circumstances: Circumstances, snapshot: Snapshot
) -> tuple[list[Costing], tuple[Rejection, ...]]:
    costings: list[Costing] = []
    rejections: list[Rejection] = []
    rules = rules_for(needs)
    tier = needs.wishes.tier
    for deployment in deployments_for(snapshot.governance.of(circumstances.tenant), snapshot):
        verdict = reject(rules, needs, deployment) or cost_of(deployment, circumstances, snapshot, tier)
        if isinstance(verdict, Costing):
            costings.append(verdict)
        else:
            rejections.append(verdict)
    return costings, tuple(rejections)


def nobody(
    needs: Needs,
    snapshot: Snapshot,
    rejections: tuple[Rejection, ...],
    *,
    input_field: str = "completion.messages",
    deployment_field: str = "completion.deployment",
) -> RouterError:
    """Why nobody is left; the fields are those of the request that are named when they are to blame."""
    serious = [one for one in rejections if one.reason not in _BY_WISH and _could_matter(needs, snapshot, one)]
    if serious and all(rejection.reason is ExclusionReason.BUSY for rejection in serious):
        return Overloaded(BUSY_RETRY_SECONDS)
    if serious and all(rejection.reason in _PASSING for rejection in serious):
        return NobodyHealthy(tuple(serious), needs.health.retry_after_seconds(r.deployment_id for r in serious))
    too_long = [r for r in serious if r.reason is ExclusionReason.CONTEXT_WINDOW]
    if too_long and len(too_long) == len(serious) and not needs.facts.constraints.min_context_tokens:
        largest = max((_deployment(snapshot, r) for r in too_long), key=lambda one: one.model.context_window_tokens)
        input_tokens = tokens_for(largest, core_of(needs.tokens)).tokens
        return ContextOverflow(input_tokens, largest.model.context_window_tokens, field=input_field)
    if needs.pinned_id and serious and serious[0].reason is ExclusionReason.CAPABILITY:
        problem = FieldProblem(deployment_field, _capability_problem(needs, snapshot, serious[0]))
        return UnsupportedContent((problem,))
    return NoEligibleDeployment(rejections)


def _could_matter(needs: Needs, snapshot: Snapshot, rejection: Rejection) -> bool:
    """Models of another kind say nothing of why those that were wanted cannot answer, unless one was named; neither
    does what answers without a model."""
    deployment = _deployment(snapshot, rejection)
    return bool(needs.pinned_id) or (is_of_kind(needs, deployment) and not deployment.is_last_resort)


def _capability_problem(needs: Needs, snapshot: Snapshot, rejection: Rejection) -> str:
    if is_of_kind(needs, _deployment(snapshot, rejection)):
        return f"{rejection.detail}, which the request needs"
    remedy = "pin one of an embedding model" if needs.wants_vectors else "ask EmbeddingService, or pin another"
    return f"names a deployment that cannot do this: {rejection.detail}; {remedy}"


def _deployment(snapshot: Snapshot, rejection: Rejection) -> Deployment:
    return snapshot.deployments[rejection.deployment_id]
