"""What each deployment of a call is sent: the request with its documents in the messages, cut to the window."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from math import ceil

from pointsman_server.decision.fitting import Fitted, fit, fit_whole, with_messages
from pointsman_server.decision.tokens import FRAMING_TOKENS_PER_MESSAGE, correction_of, measure
from pointsman_server.domain.call import Call
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.plan import Candidate
from pointsman_server.domain.ports import TokenCounter
from pointsman_server.domain.request import CompletionRequest
from pointsman_server.execution.prepare import ON_LOOP_BYTES, get_ready

_MOST_MESSAGES_ADDED = 2
"""An answer so far and what is asked about it."""


class Packing:
    """Packs for one deployment after the other, as they are asked. `packed`, by deployment id, is the dispatch's own.

    A request without documents of which nothing may be left out goes as it is; so does every request to what answers
    without a model, which finds the documents beside it.
    """

    def __init__(self, call: Call, counter: TokenCounter, packed: dict[str, Fitted]) -> None:
        context = call.snapshot.context_of(call.tenant)
        self._request = call.request
        self._counter = counter
        self._packed = packed
        self._trim = context.trim
        # Marks would get into the values of structured answers.
        self._cites = context.citations and call.request.generation.response_schema is None
        self._most_output: dict[str, int] = {}

    async def pack(self, candidate: Candidate, added: Sequence[str] = ()) -> None:
        """Packs for this candidate; `added` are texts that the attempt will put behind the request's messages."""
        deployment = candidate.deployment
        is_packed = deployment.id in self._packed and not added
        if is_packed or deployment.is_last_resort or not (self._request.documents or candidate.room_tokens is not None):
            return
        room_tokens = candidate.room_tokens
        if room_tokens is None or (candidate.takes_all and not added):
            work: Callable[[], Fitted] = partial(fit_whole, self._request, cites=self._cites)
        else:
            await get_ready(self._counter)
            work = partial(self._fit, deployment, room_tokens, added)
        size_bytes = measure(self._request).text_bytes + sum(map(len, added))
        fitted = work() if size_bytes <= ON_LOOP_BYTES else await asyncio.to_thread(work)
        self._packed[deployment.id] = fitted

    def request_for(self, deployment: Deployment) -> CompletionRequest:
        """The request as this deployment is sent it."""
        fitted = self._packed.get(deployment.id)
        return self._request if fitted is None else with_messages(self._request, fitted)

    def most_output_tokens(self, candidate: Candidate) -> int:
        """The candidate's limit, or what its window has left where that was counted."""
        deployment = candidate.deployment
        return min(candidate.max_output_tokens, self._most_output.get(deployment.id, candidate.max_output_tokens))

    def _fit(self, deployment: Deployment, room_tokens: int, added: Sequence[str]) -> Fitted:
        count = self._counter.count
        added_tokens = sum(map(count, added)) + (_MOST_MESSAGES_ADDED * FRAMING_TOKENS_PER_MESSAGE if added else 0)
        fitted = fit(self._request, self._trim, room_tokens - added_tokens, count, cites=self._cites)
        if fitted.tokens is not None:
            sent_tokens = ceil((fitted.tokens + added_tokens) * correction_of(deployment).factor)
            self._most_output[deployment.id] = max(1, deployment.model.context_window_tokens - sent_tokens)
        return fitted
