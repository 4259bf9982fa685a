"""What a deployment would cost, and the order of those that may answer."""

from __future__ import annotations

from dataclasses import replace

from pointsman_server.domain.catalog import TOKENS_PER_PRICE_UNIT, Deployment, Snapshot
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.plan import Candidate, ExclusionReason, Factor, Rejection, TokenEstimate
from pointsman_server.domain.reply import Usage
from pointsman_server.domain.request import CompletionRequest, Tier

EXPECTED_OUTPUT_TOKENS = 400
"""Typical length of an answer where nothing better is known."""

LEAST_USEFUL_OUTPUT_TOKENS = 16
"""A cost cap that leaves room for fewer tokens than this excludes the deployment."""

_TIER_FIT_WANTED = 2.0
_TIER_FIT_STRONGER = 1.0
_TIER_FIT_WEAKER = 0.0


def cost_of(
    deployment: Deployment,
    request: CompletionRequest,
    snapshot: Snapshot,
    tokens: TokenEstimate,
    health: HealthView,
) -> Candidate | Rejection:
    """The unranked candidate with its costs, or the rejection if it cannot keep the request's cost cap."""
    model = deployment.model
    wanted = request.generation.max_output_tokens or snapshot.default_max_output_tokens
    room_in_window = max(1, model.context_window_tokens - tokens.tokens)
    most_output = min(wanted, model.max_output_tokens, room_in_window)
    cap = request.constraints.max_cost_micro_usd
    if cap is not None:
        affordable = _affordable_output_tokens(deployment, tokens, cap)
        if affordable < min(wanted, model.max_output_tokens, LEAST_USEFUL_OUTPUT_TOKENS):
            detail = f"the input alone could cost nearly or more than the {cap} micro-USD of max_cost_micro_usd"
            return Rejection(deployment.id, ExclusionReason.COST, detail)
        most_output = min(most_output, affordable)
    expected_output = min(most_output, EXPECTED_OUTPUT_TOKENS)
    return Candidate(
        deployment=deployment,
        score=0.0,
        score_parts=(),
        expected_quality=model.quality,
        expected_cost_micro_usd=model.price.cost_micro_usd(
            Usage(input_tokens=tokens.tokens, output_tokens=expected_output)
        ),
        worst_cost_micro_usd=model.price.cost_micro_usd(
            Usage(input_tokens=tokens.upper_bound, output_tokens=most_output)
        ),
        expected_first_token_seconds=health.first_token_seconds(deployment),
        max_output_tokens=most_output,
    )


def rank(
    candidates: list[Candidate], request: CompletionRequest, snapshot: Snapshot, judged_tier: Tier
) -> tuple[Candidate, ...]:
    """Best first: the wanted tier before stronger before weaker ones; inside a tier the policy's chain in its order,
    otherwise by price, which `quality_bias` trades for quality. Ties go by id."""
    tier = request.tier or judged_tier
    chain = snapshot.tier_chains.get(tier, ())
    bias = snapshot.quality_bias if request.quality_bias is None else request.quality_bias
    dearest = max(candidate.expected_cost_micro_usd for candidate in candidates) or 1
    ranked = [_score(candidate, tier, chain, bias, dearest) for candidate in candidates]
    ranked.sort(key=lambda candidate: (-candidate.score, candidate.deployment.id))
    return tuple(ranked)


def _score(candidate: Candidate, tier: Tier, chain: tuple[str, ...], bias: float, dearest_micro_usd: int) -> Candidate:
    deployment = candidate.deployment
    parts: tuple[Factor, ...]
    if deployment.id in chain:
        parts = (
            Factor("tier_fit", _TIER_FIT_WANTED),
            # More than 1, so that a listed deployment comes before every other, whatever that one's quality.
            Factor("chain_position", 2.0 - chain.index(deployment.id) / len(chain)),
        )
    else:
        price_share = candidate.expected_cost_micro_usd / dearest_micro_usd
        parts = (
            Factor("tier_fit", _tier_fit(deployment.model.tier, tier)),
            Factor("quality", round(0.5 * bias * candidate.expected_quality, 6)),
            Factor("price", round(-0.5 * (1.0 - bias) * price_share, 6)),
        )
    return replace(candidate, score=round(sum(part.value for part in parts), 6), score_parts=parts)


def _tier_fit(have: Tier, want: Tier) -> float:
    if have is want:
        return _TIER_FIT_WANTED
    return _TIER_FIT_STRONGER if have > want else _TIER_FIT_WEAKER


def _affordable_output_tokens(deployment: Deployment, tokens: TokenEstimate, cap_micro_usd: int) -> int:
    price = deployment.model.price
    input_cost = price.cost_micro_usd(Usage(input_tokens=tokens.upper_bound, output_tokens=0))
    output_rate = price.rates_for(tokens.upper_bound).output
    left = cap_micro_usd - input_cost
    if left < 0:
        return 0
    return left * TOKENS_PER_PRICE_UNIT // output_rate if output_rate else 2**31 - 1
