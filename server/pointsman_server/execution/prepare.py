"""Before the decision: how many tokens the request has, counted exactly where anything less could decide wrongly."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from pointsman_server.decision.fitting import Parts, divide
from pointsman_server.decision.room import most_input_tokens
from pointsman_server.decision.tenancy import tightened
from pointsman_server.decision.tokens import (
    MOST_IMAGE_TOKENS,
    TYPICAL_IMAGE_TOKENS,
    Size,
    correction_of,
    counted_tokens,
    counted_tokens_of_documents,
    counted_tokens_of_messages,
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


class _Bounds(NamedTuple):
    """Between which counts the whole input lies, and what may not be left out of it, None where nothing may."""

    whole: tuple[int, int]
    core: tuple[int, int] | None = None


class _Sizes(NamedTuple):
    """The request, the request without documents that may be left out, and without all that may be, by their bytes."""

    whole: Size
    bare: Size
    core: Size

    @property
    def estimate(self) -> TokenEstimate:
        """What four bytes to a token make of them."""
        whole, bare, core = (size.estimate.tokens for size in self)
        return _divided(self.whole.estimate, bare, core) if core < whole else self.whole.estimate

    @property
    def bounds(self) -> _Bounds:
        """What holds whatever the text."""
        whole = self.whole.lowest, self.whole.highest
        return _Bounds(whole, (self.core.lowest, self.core.highest) if self.core is not self.whole else None)


async def count_input(call: Call, counter: TokenCounter) -> TokenEstimate:
    """An estimate where nothing depends on more, a sampled one where that is clear enough, else a count.

    What can depend on it: whether the input fits a deployment's window, all of it or what may not be left out, whether
    it can keep the cost cap, and whether a rule for long inputs applies.
    """
    parts = divide(call.request, call.snapshot.context_of(call.tenant).trim)
    sizes = _measure(call.request, parts)
    deployments = _choosable(call)
    cost_is_open = _cost_is_open(call, deployments, sizes.whole)
    if not cost_is_open and not _edge_between(call, deployments, sizes.bounds):
        return sizes.estimate
    await get_ready(counter)
    if sizes.whole.text_bytes <= ON_LOOP_BYTES:
        return _count(call.request, parts, counter)
    if not cost_is_open:
        estimate, bounds = _sample(call.request, parts, sizes, counter)
        if not _edge_between(call, deployments, bounds):
            return estimate
    return await asyncio.to_thread(_count, call.request, parts, counter)


async def count_exactly(request: CompletionRequest, counter: TokenCounter) -> TokenEstimate:
    """A count of the whole input, in a thread."""
    return await asyncio.to_thread(_count, request, Parts(request), counter)


async def get_ready(counter: TokenCounter) -> None:
    """Makes sure that counting will not load anything on the event loop."""
    if not counter.is_ready:
        await asyncio.to_thread(counter.warm_up)


def cost_cap_micro_usd(call: Call) -> int | None:
    """The most that the call may cost, by its own word and its tenant's policy; None where neither says anything."""
    return tightened(call.request.constraints, call.snapshot.governance.of(call.tenant)).max_cost_micro_usd


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
        for deployment in snapshot.answering.values()
        if not deployment.provider.unusable_because
        and deployment.id not in denied
        and (not allowed or deployment.id in allowed)
    ]


def _measure(request: CompletionRequest, parts: Parts) -> _Sizes:
    whole = core = bare = measure(request)
    if parts.core is not request:
        core = bare = measure(parts.core)
        if parts.documents and parts.groups:
            bare = measure(replace(request, documents=()))
        elif parts.groups:
            bare = whole
    return _Sizes(whole, bare, core)


def _divided(whole: TokenEstimate, bare_tokens: int, core_tokens: int) -> TokenEstimate:
    """The estimate with what may be left out of it; rounded counts of parts can be more than that of the whole."""
    bare_tokens = min(bare_tokens, whole.tokens)
    core_tokens = min(core_tokens, bare_tokens)
    return replace(whole, document_tokens=whole.tokens - bare_tokens, history_tokens=bare_tokens - core_tokens)


def _edge_between(call: Call, deployments: Sequence[Deployment], bounds: _Bounds) -> bool:
    """Whether a window or a rule would be decided one way by the lower bound and the other way by the upper."""
    (low, high), core = bounds
    if any(low < rule.when.least_input_tokens <= high for rule in call.snapshot.rules):
        return True
    for deployment in deployments:
        factor, window = correction_of(deployment).factor, deployment.model.context_window_tokens
        least, most = core or (low, high)
        if least * factor - 1 < window <= most * factor + 1:
            return True
        if core is not None and low <= most_input_tokens(deployment, _wanted_output(call)) < high:
            return True
    return False


def _cost_is_open(call: Call, deployments: Sequence[Deployment], size: Size) -> bool:
    """Whether some deployment keeps the call's cost cap with few tokens of input, but not with many."""
    cap = cost_cap_micro_usd(call)
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
    return min(_wanted_output(call), deployment.model.max_output_tokens)


def _wanted_output(call: Call) -> int:
    return call.request.generation.max_output_tokens or call.snapshot.default_max_output_tokens


def _sample(
    request: CompletionRequest, parts: Parts, sizes: _Sizes, counter: TokenCounter
) -> tuple[TokenEstimate, _Bounds]:
    tokens = _sampled_tokens(request, sizes.whole, counter)
    estimate = TokenEstimate(tokens, exact=False, upper_bound=sizes.whole.estimate.upper_bound)
    whole = _around(tokens, sizes.whole)
    if parts.core is request:
        return estimate, _Bounds(whole)
    core = _sampled_tokens(parts.core, sizes.core, counter)
    bare = core
    if sizes.bare is not sizes.core:
        bare = _sampled_tokens(replace(request, documents=()), sizes.bare, counter)
    return _divided(estimate, bare, core), _Bounds(whole, _around(core, sizes.core))


def _around(tokens: int, size: Size) -> tuple[int, int]:
    low, high = int(tokens * (1 - SAMPLE_MARGIN)), int(tokens * (1 + SAMPLE_MARGIN)) + 1
    return max(low, size.lowest), min(high, size.highest)


def _sampled_tokens(request: CompletionRequest, size: Size, counter: TokenCounter) -> int:
    if size.text_bytes <= ON_LOOP_BYTES:
        return counted_tokens(request, counter.count)
    sample = sample_of(tuple(texts_of(request)), size.text_bytes)
    texts_tokens = round(sum(map(counter.count, sample.slices)) * sample.scale)
    return min(max(texts_tokens + framing_tokens(request, TYPICAL_IMAGE_TOKENS), size.lowest), size.highest)


def _count(request: CompletionRequest, parts: Parts, counter: TokenCounter) -> TokenEstimate:
    earlier = [request.messages[place] for group in parts.groups for place in group]
    history_tokens = counted_tokens_of_messages(earlier, counter.count)
    document_tokens = counted_tokens_of_documents(parts.documents, counter.count)
    tokens = counted_tokens(parts.core, counter.count) + history_tokens + document_tokens
    images = framing_tokens(request, MOST_IMAGE_TOKENS) - framing_tokens(request, TYPICAL_IMAGE_TOKENS)
    return TokenEstimate(
        tokens,
        exact=True,
        upper_bound=tokens + images + _FRAMING_MARGIN_TOKENS,
        document_tokens=document_tokens,
        history_tokens=history_tokens,
    )
