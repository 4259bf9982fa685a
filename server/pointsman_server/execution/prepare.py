"""Before the decision: how many tokens the request has, counted exactly where an estimate could decide wrongly."""

from __future__ import annotations

import asyncio

from pointsman_server.decision.tokens import (
    MOST_IMAGE_TOKENS,
    TYPICAL_IMAGE_TOKENS,
    estimate_tokens,
    framing_tokens,
    texts_of,
)
from pointsman_server.domain.call import Call
from pointsman_server.domain.plan import TokenEstimate
from pointsman_server.domain.ports import TokenCounter
from pointsman_server.domain.request import CompletionRequest

ON_LOOP_BYTES = 16_384
"""Texts up to this size are counted on the event loop (about a millisecond); larger ones in a thread."""

OTHER_TOKENIZER_MARGIN = 1.25
"""Other vendors' tokenizers make up to about a quarter more tokens of the same text than the one counted with."""

_FRAMING_MARGIN_TOKENS = 16


async def count_input(call: Call, counter: TokenCounter) -> TokenEstimate:
    """The estimate where any window is surely wide enough or nothing depends on it, else a count."""
    estimate = estimate_tokens(call.request)
    if not _matters(call, estimate):
        return estimate
    if counter.is_ready and estimate.upper_bound <= ON_LOOP_BYTES:
        return _count(call.request, counter)
    return await asyncio.to_thread(_count, call.request, counter)


def _matters(call: Call, estimate: TokenEstimate) -> bool:
    has_cost_cap = call.request.constraints.max_cost_micro_usd is not None
    return has_cost_cap or estimate.upper_bound >= call.snapshot.smallest_window_tokens


def _count(request: CompletionRequest, counter: TokenCounter) -> TokenEstimate:
    counted = sum(counter.count(text) for text in texts_of(request))
    most = int(counted * OTHER_TOKENIZER_MARGIN) + framing_tokens(request, MOST_IMAGE_TOKENS) + _FRAMING_MARGIN_TOKENS
    return TokenEstimate(counted + framing_tokens(request, TYPICAL_IMAGE_TOKENS), exact=True, upper_bound=most)


async def get_ready(counter: TokenCounter) -> None:
    """Makes sure that counting will not load anything on the event loop."""
    if not counter.is_ready:
        await asyncio.to_thread(counter.warm_up)
