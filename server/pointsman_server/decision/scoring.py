"""What a deployment would cost, and the order of those that may answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from pointsman_server.decision.dial import cost_weight
from pointsman_server.decision.quality import expected_quality
from pointsman_server.decision.room import NOTHING_LEFT_OUT, Room, room_for
from pointsman_server.decision.rules import Wishes
from pointsman_server.decision.tokens import tokens_for
from pointsman_server.domain.catalog import TOKENS_PER_PRICE_UNIT, Deployment, Price, Snapshot
from pointsman_server.domain.facts import Circumstances
from pointsman_server.domain.plan import Candidate, ExclusionReason, Factor, Rejection, TokenEstimate
from pointsman_server.domain.request import Capability, Tier

EXPECTED_OUTPUT_TOKENS: Mapping[Tier, int] = {Tier.LIGHT: 150, Tier.STANDARD: 450, Tier.ADVANCED: 900}
"""Typical length of an answer to a request of this tier, where nothing better is known."""

LEAST_USEFUL_OUTPUT_TOKENS = 16
"""A cost cap that leaves room for fewer tokens than this excludes the deployment."""

RULE_STEP = 10_000.0
SEARCH_STEP = 1_000.0
CHAIN_STEP = 40.0
TIER_STEP = -10.0
"""Steps of the score, each too large for all below it to make good: named earlier by a rule, able to search when that
is wanted, listed earlier in the tier's chain, and (for each tier) weaker than the request needs."""

LEFT_OUT_STEP = -1_000_000.0
LEFT_OUT_SHARE_STEP = -100.0
"""A deployment that can only be sent a part of the input comes after all that can be sent all of it, and one that loses
some of the conversation after those that only lose documents. Among those that lose as much, a tenth more that is left
out weighs as much as a tier."""

LAST_RESORT_STEP = -10_000_000.0
"""What answers without a model comes after all that have one, whatever else speaks for it."""

MOST_COST_SHARE = 2.0
"""Costs beyond this multiple of the strongest model's all weigh the same, so that the steps stay steps."""

AFFINITY_SHARE = 0.05
"""What the conversation's last deployment is given for what its provider remembers besides the cached input."""


class Costing(NamedTuple):
    """What one deployment would cost; not yet ranked."""

    deployment: Deployment
    max_output_tokens: int
    expected_cost_micro_usd: int
    worst_cost_micro_usd: int
    room: Room = NOTHING_LEFT_OUT


def cost_of(
    deployment: Deployment, circumstances: Circumstances, snapshot: Snapshot, tier: Tier
) -> Costing | Rejection:
    """The deployment's costs, or the rejection if it cannot keep the request's cost cap."""
    facts, model = circumstances.facts, deployment.model
    wanted = facts.max_output_tokens or snapshot.default_max_output_tokens
    tokens, room = room_for(deployment, circumstances.tokens, wanted)
    room_in_window = max(1, model.context_window_tokens - tokens.tokens)
    most_output = min(wanted, model.max_output_tokens, room_in_window)
    cap = facts.constraints.max_cost_micro_usd
    if cap is not None:
        affordable = affordable_output_tokens(model.price, tokens.upper_bound, cap)
        if affordable < min(wanted, model.max_output_tokens, LEAST_USEFUL_OUTPUT_TOKENS):
            whose = _whose_cap(cap, circumstances, snapshot)
            detail = f"the input alone could cost nearly or more than the {cap} micro-USD of {whose}"
            return Rejection(deployment.id, ExclusionReason.COST, detail)
        most_output = min(most_output, affordable)
    # The expectation knows neither cap nor window: with more of them a deployment must not look dearer than before.
    expected_output = min(wanted, model.max_output_tokens, EXPECTED_OUTPUT_TOKENS[tier])
    expected = model.price.tokens_cost_micro_usd(tokens.tokens, expected_output)
    worst = model.price.tokens_cost_micro_usd(tokens.upper_bound, most_output)
    return Costing(deployment, most_output, expected, worst, room)


def _whose_cap(cap_micro_usd: int, circumstances: Circumstances, snapshot: Snapshot) -> str:
    tenant = snapshot.governance.of(circumstances.tenant)
    is_tenants = tenant.max_cost_per_request_micro_usd == cap_micro_usd
    return "the tenant's max_cost_per_request_usd" if is_tenants else "max_cost_micro_usd"


@dataclass(frozen=True, slots=True)
class _Scales:
    """What all candidates of one decision are measured with."""

    circumstances: Circumstances
    wishes: Wishes
    chain: tuple[str, ...]
    cost_weight: float
    strongest_cost_micro_usd: int
    first_token_weight: float


def rank(
    costings: list[Costing], circumstances: Circumstances, wishes: Wishes, snapshot: Snapshot
) -> tuple[Candidate, ...]:
    """Best first; ties go by id.

    The score is the expected quality less what the answer costs in money, waiting and trouble, weighed against each
    other by the dial; above that, in steps, what rules prefer, the tier's chain, and the tier needed. Because the dial
    weighs quality against all the rest, turning it up never lowers the quality of the pick.
    """
    scales = _scales(circumstances, wishes, snapshot)
    ranked = [_candidate(costing, scales) for costing in costings]
    ranked.sort(key=_order)
    return tuple(ranked)


def _scales(circumstances: Circumstances, wishes: Wishes, snapshot: Snapshot) -> _Scales:
    strongest = snapshot.strongest
    tokens = tokens_for(strongest, circumstances.tokens).tokens
    return _Scales(
        circumstances=circumstances,
        wishes=wishes,
        chain=snapshot.tier_chains.get(wishes.tier, ()),
        cost_weight=cost_weight(snapshot.cost_weights, wishes.quality_bias),
        strongest_cost_micro_usd=strongest.model.price.tokens_cost_micro_usd(
            tokens, EXPECTED_OUTPUT_TOKENS[wishes.tier]
        )
        or 1,
        first_token_weight=snapshot.first_token_weight,
    )


def _order(candidate: Candidate) -> tuple[float, str]:
    return -candidate.score, candidate.deployment.id


def _candidate(costing: Costing, scales: _Scales) -> Candidate:
    deployment, circumstances = costing.deployment, scales.circumstances
    quality = expected_quality(deployment.model, circumstances.facts.complexity, circumstances.experience)
    first_token_seconds = circumstances.health.first_token_seconds(deployment)
    kept = (1.0 - scales.cost_weight) * quality
    parts = [Factor("quality", kept), *_prices(costing, first_token_seconds, scales), *_steps(costing, scales)]
    return Candidate(
        deployment=deployment,
        score=sum([part.value for part in parts]),
        score_parts=tuple(parts),
        expected_quality=quality,
        expected_cost_micro_usd=costing.expected_cost_micro_usd,
        worst_cost_micro_usd=costing.worst_cost_micro_usd,
        expected_first_token_seconds=first_token_seconds,
        max_output_tokens=costing.max_output_tokens,
        room_tokens=costing.room.most_tokens,
        takes_all=costing.room.takes_all,
    )


def _prices(costing: Costing, first_token_seconds: float, scales: _Scales) -> list[Factor]:
    """All that is paid for the quality, in shares of the strongest model's cost, times the weight of cost."""
    deployment = costing.deployment
    weight = scales.cost_weight
    is_last = deployment.id == scales.circumstances.session_deployment_id
    cost = costing.expected_cost_micro_usd
    if is_last and costing.room.takes_all:
        cost -= _saved_by_cache(deployment, scales.circumstances.tokens)
    parts = [
        Factor("cost", -weight * min(cost / scales.strongest_cost_micro_usd, MOST_COST_SHARE)),
        Factor("first_token", -weight * min(scales.first_token_weight * first_token_seconds, MOST_COST_SHARE)),
    ]
    error_rate = scales.circumstances.health.error_rate(deployment.id)
    if error_rate:
        parts.append(Factor("errors", -weight * error_rate))
    if is_last:
        parts.append(Factor("affinity", weight * AFFINITY_SHARE))
    return parts


def _steps(costing: Costing, scales: _Scales) -> list[Factor]:
    deployment, wishes, chain = costing.deployment, scales.wishes, scales.chain
    steps: list[Factor] = []
    if not costing.room.takes_all:
        step = LEFT_OUT_STEP * (2 if costing.room.loses_history else 1)
        steps.append(Factor("left_out", step + LEFT_OUT_SHARE_STEP * costing.room.left_out_share))
    if deployment.is_last_resort:
        # Only who names it before all others wants it before all others.
        if deployment.id not in (*wishes.preferred[:1], *chain[:1]):
            steps.append(Factor("last_resort", LAST_RESORT_STEP))
    elif wishes.tier > deployment.model.tier:
        steps.append(Factor("tier_below", TIER_STEP * (wishes.tier - deployment.model.tier)))
    if deployment.id in chain:
        steps.append(Factor("chain_position", CHAIN_STEP * (len(chain) - chain.index(deployment.id))))
    if wishes.prefers_search and Capability.WEB_SEARCH in deployment.model.capabilities:
        steps.append(Factor("fresh_facts", SEARCH_STEP))
    if deployment.id in wishes.preferred:
        place = len(wishes.preferred) - wishes.preferred.index(deployment.id)
        steps.append(Factor("rule_preference", RULE_STEP * place))
    return steps


def _saved_by_cache(deployment: Deployment, tokens: TokenEstimate) -> int:
    input_tokens = tokens_for(deployment, tokens).tokens
    rates = deployment.model.price.rates_for(input_tokens)
    return max(0, input_tokens * (rates.input - rates.cached_input) // TOKENS_PER_PRICE_UNIT)


def affordable_output_tokens(price: Price, input_tokens: int, cap_micro_usd: int) -> int:
    """How many tokens may be written for this much in all after so many were read; 0 where that costs more already."""
    left = cap_micro_usd - price.tokens_cost_micro_usd(input_tokens, 0)
    if left < 0:
        return 0
    output_rate = price.rates_for(input_tokens).output
    return left * TOKENS_PER_PRICE_UNIT // output_rate if output_rate else 2**31 - 1
