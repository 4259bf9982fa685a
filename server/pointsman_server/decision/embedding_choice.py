"""Who turns texts into vectors: one model, all of whose deployments may stand in for each other.

Vectors of different models do not compare, so nothing that passes (health, load, the length of a text) ever changes the
model: it is the pinned deployment's, else the one that the policy names, else the cheapest that the request may use.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from pointsman_server.decision.engine import nobody
from pointsman_server.decision.filters import Needs, is_of_kind, reject, rules_for, work_out_needs
from pointsman_server.decision.rules import Wishes, applies
from pointsman_server.decision.tenancy import deployments_for, finds, under_tenant
from pointsman_server.decision.tokens import correction_of, tokens_for
from pointsman_server.domain.catalog import Deployment, EmbeddingTraits, Model, RoutingRule, Snapshot
from pointsman_server.domain.errors import DeploymentNotFound, FieldProblem, RouterError, UnsupportedContent
from pointsman_server.domain.facts import Circumstances, RequestFacts
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.plan import Candidate, Complexity, ExclusionReason, Rejection, RoutePlan, TokenEstimate
from pointsman_server.domain.request import CompletionRequest, Tier

NOT_JUDGED = Complexity(score=0.0, tier=Tier.LIGHT, factors=())
"""Stands where a completion's judgement stands: texts to be embedded ask nothing."""

_NO_TOKENS = TokenEstimate(tokens=0, exact=True, upper_bound=0)
_USUAL_TOKENS = 1_000
"""The call by which models' prices are compared."""


class Batch(NamedTuple):
    """The texts from `start` up to `end` go in one call."""

    start: int
    end: int
    tokens: TokenEstimate


@dataclass(frozen=True, slots=True)
class EmbeddingPlan:
    """The deployments of one model, best first, and the calls that the texts make."""

    route: RoutePlan
    batches: tuple[Batch, ...]


def facts_of_embedding(request: CompletionRequest) -> RequestFacts:
    """What the decision sees of a request for vectors."""
    return RequestFacts(
        complexity=NOT_JUDGED,
        capabilities=request.constraints.required_capabilities,
        deployment=request.deployment,
        constraints=request.constraints,
        labels=request.labels,
    )


def choose_embedding(
    circumstances: Circumstances, sizes: Sequence[TokenEstimate], dimensions: int | None, snapshot: Snapshot
) -> EmbeddingPlan:
    """The plan for texts of these `sizes`; the circumstances' own `tokens` are of no consequence.

    Raises `DeploymentNotFound`, `ContextOverflow`, `UnsupportedContent`, `NobodyHealthy`, `Overloaded` or
    `NoEligibleDeployment`.
    """
    tenant = snapshot.governance.of(circumstances.tenant)
    circumstances = replace(under_tenant(circumstances, tenant), tokens=max(sizes, key=lambda one: one.tokens))
    pinned = circumstances.facts.deployment
    if pinned and not finds(tenant, pinned, snapshot):
        raise DeploymentNotFound
    wishes = _wishes(circumstances, snapshot)
    needs = replace(work_out_needs(circumstances, wishes, snapshot), wants_vectors=True)
    known = list(deployments_for(tenant, snapshot))
    _require_length(needs, dimensions, snapshot)
    chosen = _model(needs, known, dimensions, snapshot)
    batches = _batches(sizes, chosen, known) if chosen else ()
    chosen_id = chosen.id if chosen else snapshot.embedding_model
    candidates, rejections = _sift(needs, known, dimensions, chosen_id, batches)
    if not candidates:
        raise _nobody(needs, snapshot, rejections)
    route = RoutePlan(
        candidates=tuple(sorted(candidates, key=lambda one: _place(one, needs))),
        rejections=rejections,
        complexity=NOT_JUDGED,
        input_tokens=_sum(sizes),
        policy_version=snapshot.version,
        applied_rules=wishes.applied_rules,
    )
    return EmbeddingPlan(route, batches)


def worst_cost_micro_usd(deployment: Deployment, batch: Batch) -> int:
    """What this batch costs at most."""
    return deployment.model.price.tokens_cost_micro_usd(tokens_for(deployment, batch.tokens).upper_bound, 0)


def _require_length(needs: Needs, dimensions: int | None, snapshot: Snapshot) -> None:
    pinned = snapshot.deployments.get(needs.pinned_id)
    if pinned is not None and is_of_kind(needs, pinned):
        rejection = _wrong_length(pinned, dimensions)
        if rejection is not None:
            raise UnsupportedContent((FieldProblem("dimensions", f"cannot be had there: {rejection.detail}"),))


def _wishes(circumstances: Circumstances, snapshot: Snapshot) -> Wishes:
    """What the policy's rules say of vectors: those that do not speak of what is asked, for nothing is."""
    making = snapshot.deployments.keys() - snapshot.answering.keys()
    rules = [one for one in snapshot.rules if _is_general(one) and applies(one.when, circumstances)]
    only = tuple((rule.name, rule.only) for rule in rules if rule.only & making)
    denied = tuple((rule.name, rule.deny) for rule in rules if rule.deny)
    preferred = tuple(dict.fromkeys(name for rule in rules for name in rule.prefer if name in making))
    having_a_say = {name for name, _ in (*only, *denied)} | {rule.name for rule in rules if making & {*rule.prefer}}
    return Wishes(
        tier=Tier.LIGHT,
        quality_bias=0.0,
        preferred=preferred,
        only=only,
        denied=denied,
        applied_rules=tuple(rule.name for rule in rules if rule.name in having_a_say),
    )


def _is_general(rule: RoutingRule) -> bool:
    return not rule.when.tasks and not rule.when.tiers and rule.when.needs_fresh_facts is None


def _model(needs: Needs, known: Iterable[Deployment], dimensions: int | None, snapshot: Snapshot) -> Model | None:
    if needs.pinned_id:
        pinned = snapshot.deployments[needs.pinned_id].model
        return pinned if pinned.embedding is not None else None
    if snapshot.embedding_model:
        return next((one.model for one in known if one.model.id == snapshot.embedding_model), None)
    lasting = replace(needs, tokens=_NO_TOKENS, health=HealthView())
    rules = rules_for(lasting)
    eligible = [
        one.model
        for one in known
        if is_of_kind(needs, one) and not reject(rules, lasting, one) and not _wrong_length(one, dimensions)
    ]
    return min(eligible, key=_cheapness, default=None)


def _cheapness(model: Model) -> tuple[int, int, str]:
    price = model.price
    return price.rates_for(_USUAL_TOKENS).input, price.per_request_micro_usd, model.id


def _sift(
    needs: Needs, known: Iterable[Deployment], dimensions: int | None, chosen_id: str, batches: Sequence[Batch]
) -> tuple[list[Candidate], tuple[Rejection, ...]]:
    candidates: list[Candidate] = []
    rejections: list[Rejection] = []
    rules = rules_for(needs)
    for deployment in known:
        verdict = (
            _other_model(needs, deployment, chosen_id)
            or reject(rules, needs, deployment)
            or _wrong_length(deployment, dimensions)
            or _costed(needs, deployment, batches)
        )
        if isinstance(verdict, Candidate):
            candidates.append(verdict)
        else:
            rejections.append(verdict)
    return candidates, tuple(rejections)


def _other_model(needs: Needs, deployment: Deployment, chosen_id: str) -> Rejection | None:
    """`chosen_id` is "" where no model can be used; each deployment has its own reason then."""
    if not chosen_id or not is_of_kind(needs, deployment) or deployment.model.id == chosen_id:
        return None
    detail = f"its vectors do not compare with those of {chosen_id}, which was chosen"
    return Rejection(deployment.id, ExclusionReason.NOT_PINNED, detail)


def _wrong_length(deployment: Deployment, dimensions: int | None) -> Rejection | None:
    traits = _traits(deployment.model)
    if dimensions is None or dimensions == traits.dimensions:
        return None
    if traits.variable_dimensions and dimensions < traits.dimensions:
        return None
    bound = "at most" if traits.variable_dimensions else "always"
    detail = f"its vectors have {bound} {traits.dimensions} dimensions, the request asks for {dimensions}"
    return Rejection(deployment.id, ExclusionReason.CAPABILITY, detail)


def _costed(needs: Needs, deployment: Deployment, batches: Sequence[Batch]) -> Candidate | Rejection:
    price, cap = deployment.model.price, needs.facts.constraints.max_cost_micro_usd
    worst = sum(worst_cost_micro_usd(deployment, batch) for batch in batches)
    if cap is not None and worst > cap:
        detail = f"it may cost {worst} micro-USD, the request allows {cap}"
        return Rejection(deployment.id, ExclusionReason.COST, detail)
    expected = (tokens_for(deployment, batch.tokens).tokens for batch in batches)
    return Candidate(
        deployment=deployment,
        score=0.0,
        score_parts=(),
        expected_quality=0.0,
        expected_cost_micro_usd=sum(price.tokens_cost_micro_usd(tokens, 0) for tokens in expected),
        worst_cost_micro_usd=worst,
        expected_first_token_seconds=needs.health.first_token_seconds(deployment),
        max_output_tokens=0,
    )


def _place(candidate: Candidate, needs: Needs) -> tuple[int, float, float, str]:
    """The rules' favourites first, then whoever fails less often (in tenths), then the quicker, then by id."""
    name, preferred = candidate.deployment.id, needs.wishes.preferred
    favour = preferred.index(name) if name in preferred else len(preferred)
    return favour, round(needs.health.error_rate(name), 1), candidate.expected_first_token_seconds, name


def _nobody(needs: Needs, snapshot: Snapshot, rejections: tuple[Rejection, ...]) -> RouterError:
    return nobody(needs, snapshot, rejections, input_field="inputs", deployment_field="deployment")


def _traits(model: Model) -> EmbeddingTraits:
    if model.embedding is None:
        raise AssertionError("only models that make vectors come this far")
    return model.embedding


def _batches(sizes: Sequence[TokenEstimate], model: Model, known: Iterable[Deployment]) -> tuple[Batch, ...]:
    # Whoever counts highest sets the limit, so that every deployment of the model can take every batch.
    strictest = max((one for one in known if one.model.id == model.id), key=lambda one: correction_of(one).most)
    return tuple(_split(sizes, strictest, _traits(model)))


def _split(sizes: Sequence[TokenEstimate], deployment: Deployment, traits: EmbeddingTraits) -> Iterator[Batch]:
    start = tokens = 0
    for place, size in enumerate(sizes):
        own = tokens_for(deployment, size).upper_bound
        is_full = place - start == traits.max_inputs_per_call
        if place > start and (is_full or 0 < traits.max_tokens_per_call < tokens + own):
            yield Batch(start, place, _sum(sizes[start:place]))
            start, tokens = place, 0
        tokens += own
    yield Batch(start, len(sizes), _sum(sizes[start:]))


def _sum(sizes: Sequence[TokenEstimate]) -> TokenEstimate:
    return TokenEstimate(
        tokens=sum(one.tokens for one in sizes),
        exact=all(one.exact for one in sizes),
        upper_bound=sum(one.upper_bound for one in sizes),
    )
