"""Before the decision: how many tokens the request has, counted exactly where anything less could decide wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pointsman_server.decision.tenancy import tightened
from pointsman_server.decision.tokens import (
    MOST_IMAGE_TOKENS,
    TYPICAL_IMAGE_TOKENS,
    Size,
    correction_of,
    framing_tokens,
    measure,
    sample_of,
    texts_of,
)
from pointsman_server.domain.call import Call
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.plan import TokenEstimate
from pointsman_server.domain.ports import TokenCounter
from pointsman_server.domain.request import CompletionRequest

ON_LOOP_BYTES = 16_384
"""Texts up to this size are counted on the event loop (about a millisecond); larger ones in a thread."""

SAMPLE_MARGIN = 0.15
"""How far off a sampled estimate is taken to be; the worst that was measured is 12 % (docs/tokens.md)."""

_FRAMING_MARGIN_TOKENS = 16


async def count_input(call: Call, counter: TokenCounter) -> TokenEstimate:
    """An estimate where nothing depends on more, a sampled one where that is clear enough, else a count.

    What can depend on it: whether the input fits a deployment's window, whether it can keep the cost cap, and
    whether a rule for long inputs applies.
    """
    size = measure(call.request)
    deployments = _choosable(call)
    cost_is_open = _cost_is_open(call, deployments, size)
    if not cost_is_open and not _edge_between(call, deployments, size.lowest, size.highest):
        return size.estimate
    await get_ready(counter)
    if size.text_bytes <= ON_LOOP_BYTES:
        return _count(call.request, counter)
    if not cost_is_open:
        tokens = _sampled_tokens(call.request, size, counter)
        low, high = int(tokens * (1 - SAMPLE_MARGIN)), int(tokens * (1 + SAMPLE_MARGIN)) + 1
        if not _edge_between(call, deployments, max(low, size.lowest), min(high, size.highest)):
            return TokenEstimate(tokens, exact=False, upper_bound=size.estimate.upper_bound)
    return await count_exactly(call.request, counter)


async def count_exactly(request: CompletionRequest, counter: TokenCounter) -> TokenEstimate:
    """A count of the whole input, in a thread."""
    return await asyncio.to_thread(_count, request, counter)


async def get_ready(counter: TokenCounter) -> None:
    """Makes sure that counting will not load anything on the event loop."""
    if not counter.is_ready:
        await asyncio.to_thread(counter.warm_up)


def _choosable(call: Call) -> Sequence[Deployment]:
    """The deployments that the request's names and the providers' keys leave; the decision may exclude more."""
    request, snapshot = call.request, call.snapshot
    if request.deployment:
        pinned = snapshot.resolve(request.deployment)
        return (pinned,) if pinned else ()
    constraints = request.constraints
    denied = {snapshot.aliases.get(name, name) for name in constraints.denied_deployments}
    allowed = {snapshot.aliases.get(name, name) for name in constraints.allowed_deployments}
    return [
        deployment
        for deployment in snapshot.deployments.values()
        if not deployment.provider.unusable_because
        and deployment.id not in denied
        and (not allowed or deployment.id in allowed)
    ]


def _edge_between(call: Call, deployments: Sequence[Deployment], low: int, high: int) -> bool:
    """Whether a window or a rule would be decided one way by `low` tokens and the other way by `high`."""
    if any(low < rule.when.least_input_tokens <= high for rule in call.snapshot.rules):
        return True
    for deployment in deployments:
        factor, window = correction_of(deployment).factor, deployment.model.context_window_tokens
        if low * factor - 1 < window <= high * factor + 1:
            return True
    return False


def _cost_is_open(call: Call, deployments: Sequence[Deployment], size: Size) -> bool:
    """Whether some deployment keeps the call's cost cap with few tokens of input, but not with many."""
    cap = tightened(call.request.constraints, call.snapshot.governance.of(call.tenant)).max_cost_micro_usd
    if cap is None:
        return False
    for deployment in deployments:
        price, most_output = deployment.model.price, _most_output(call, deployment)
        if price.tokens_cost_micro_usd(int(size.lowest * correction_of(deployment).factor), 0) > cap:
            continue  # even the input alone costs too much
        if price.tokens_cost_micro_usd(size.estimate.upper_bound, most_output) > cap:
            return True
    return False


def _most_output(call: Call, deployment: Deployment) -> int:
    wanted = call.request.generation.max_output_tokens or call.snapshot.default_max_output_tokens
    return min(wanted, deployment.model.max_output_tokens)


def _sampled_tokens(request: CompletionRequest, size: Size, counter: TokenCounter) -> int:
    sample = sample_of(tuple(texts_of(request)), size.text_bytes)
    texts_tokens = round(sum(map(counter.count, sample.slices)) * sample.scale)
    return min(max(texts_tokens + framing_tokens(request, TYPICAL_IMAGE_TOKENS), size.lowest), size.highest)


def _count(request: CompletionRequest, counter: TokenCounter) -> TokenEstimate:
    counted = sum(map(counter.count, texts_of(request)))
    most = counted + framing_tokens(request, MOST_IMAGE_TOKENS) + _FRAMING_MARGIN_TOKENS
    return TokenEstimate(counted + framing_tokens(request, TYPICAL_IMAGE_TOKENS), exact=True, upper_bound=most)
