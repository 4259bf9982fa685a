"""The decision: a pure function from request, policy, health and token count to a plan."""

from __future__ import annotations

from pointsman_server.decision.complexity import judge_complexity
from pointsman_server.decision.filters import Needs, reject, rules_for, work_out_needs
from pointsman_server.decision.scoring import Costing, cost_of, rank
from pointsman_server.domain.catalog import Deployment, Snapshot
from pointsman_server.domain.errors import (
    ContextOverflow,
    DeploymentNotFound,
    FieldProblem,
    NobodyHealthy,
    NoEligibleDeployment,
    UnsupportedContent,
)
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.plan import ExclusionReason, Rejection, RoutePlan, TokenEstimate
from pointsman_server.domain.request import CompletionRequest

_CHOSEN_BY_CALLER = frozenset(
    {ExclusionReason.NOT_PINNED, ExclusionReason.DENIED, ExclusionReason.NOT_ALLOWED, ExclusionReason.TIER}
)
_PASSING = frozenset({ExclusionReason.BREAKER_OPEN, ExclusionReason.COOLDOWN})


def decide(request: CompletionRequest, snapshot: Snapshot, health: HealthView, tokens: TokenEstimate) -> RoutePlan:
    """The plan for this request; the same inputs give the same plan.

    Raises `DeploymentNotFound`, `ContextOverflow`, `UnsupportedContent`, `NobodyHealthy` or `NoEligibleDeployment`
    when nobody may answer.
    """
    if request.deployment and snapshot.resolve(request.deployment) is None:
        raise DeploymentNotFound
    complexity = judge_complexity(request)
    needs = work_out_needs(request, snapshot, tokens, health)
    costed, rejections = _sift(needs, snapshot)
    if not costed:
        raise _nobody(needs, snapshot, rejections)
    return RoutePlan(
        candidates=rank(costed, request, snapshot, complexity.tier, health),
        rejections=rejections,
        complexity=complexity,
        input_tokens=tokens,
        policy_version=snapshot.version,
    )


def _sift(needs: Needs, snapshot: Snapshot) -> tuple[list[Costing], tuple[Rejection, ...]]:
    costings: list[Costing] = []
    rejections: list[Rejection] = []
    rules = rules_for(needs)
    for deployment in snapshot.deployments.values():
        verdict = reject(rules, needs, deployment) or cost_of(deployment, needs.request, snapshot, needs.tokens)
        if isinstance(verdict, Costing):
            costings.append(verdict)
        else:
            rejections.append(verdict)
    return costings, tuple(rejections)


def _nobody(
    needs: Needs, snapshot: Snapshot, rejections: tuple[Rejection, ...]
) -> ContextOverflow | UnsupportedContent | NoEligibleDeployment | NobodyHealthy:
    serious = [rejection for rejection in rejections if rejection.reason not in _CHOSEN_BY_CALLER]
    if serious and all(rejection.reason in _PASSING for rejection in serious):
        return NobodyHealthy(tuple(serious), needs.health.retry_after_seconds(r.deployment_id for r in serious))
    too_long = [r for r in serious if r.reason is ExclusionReason.CONTEXT_WINDOW]
    if too_long and len(too_long) == len(serious) and not needs.request.constraints.min_context_tokens:
        windows = [_deployment(snapshot, r).model.context_window_tokens for r in too_long]
        return ContextOverflow(needs.tokens.tokens, max(windows))
    if needs.pinned_id and serious and serious[0].reason is ExclusionReason.CAPABILITY:
        problem = FieldProblem("completion.deployment", f"{serious[0].detail}, which the request needs")
        return UnsupportedContent((problem,))
    return NoEligibleDeployment(rejections)


def _deployment(snapshot: Snapshot, rejection: Rejection) -> Deployment:
    return snapshot.deployments[rejection.deployment_id]
