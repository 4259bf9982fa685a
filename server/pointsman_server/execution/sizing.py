"""How many tokens each of many texts has: by its bytes, or counted where bytes would leave something open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pointsman_server.decision.tokens import ASCII_BYTES_PER_TOKEN, bytes_of
from pointsman_server.domain.call import Call
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.plan import TokenEstimate
from pointsman_server.domain.ports import TokenCounter
from pointsman_server.execution.prepare import ON_LOOP_BYTES, cost_cap_micro_usd, get_ready

_NO_LIMIT = 10**12


async def size_texts(call: Call, texts: Sequence[str], counter: TokenCounter) -> tuple[TokenEstimate, ...]:
    """The size of each text.

    All are counted when a window, the most tokens of one call or the call's cost cap could matter: none of them does
    while there are fewer bytes than that allows tokens, for no token is shorter than a byte.
    """
    sizes_bytes = [bytes_of(text) for text in texts]
    longest_window, most_together = _smallest_limits(call.snapshot)
    is_small = max(sizes_bytes) < longest_window and sum(sizes_bytes) <= most_together
    if is_small and cost_cap_micro_usd(call) is None:
        return tuple(_estimate(size_bytes) for size_bytes in sizes_bytes)
    await get_ready(counter)
    if sum(sizes_bytes) <= ON_LOOP_BYTES:
        return _count(texts, counter)
    return await asyncio.to_thread(_count, texts, counter)


def _smallest_limits(snapshot: Snapshot) -> tuple[int, int]:
    models = [one.model for one in snapshot.deployments.values()]
    windows = [model.context_window_tokens for model in models if model.embedding]
    together = [model.embedding.max_tokens_per_call for model in models if model.embedding]
    return min(windows, default=_NO_LIMIT), min((limit for limit in together if limit), default=_NO_LIMIT)


def _estimate(size_bytes: int) -> TokenEstimate:
    return TokenEstimate(max(1, round(size_bytes / ASCII_BYTES_PER_TOKEN)), exact=False, upper_bound=size_bytes)


def _count(texts: Sequence[str], counter: TokenCounter) -> tuple[TokenEstimate, ...]:
    return tuple(
        TokenEstimate(tokens, exact=True, upper_bound=tokens)
        for tokens in (max(1, counter.count(text)) for text in texts)
    )
