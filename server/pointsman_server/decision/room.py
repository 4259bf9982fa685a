"""How much of an input a deployment is sent, and how much is left out of it; numbers only, no text."""

from __future__ import annotations

from typing import NamedTuple

from pointsman_server.decision.tokens import core_of, correction_of, tokens_for
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.plan import TokenEstimate

OUTPUT_SHARE = 4
"""Up to one part in so many of a window is kept free for the answer before anything of the input has to go for it."""

SAFETY = 1.1
"""Where a model's tokens can only be guessed from a count, what has to be cut is cut to so much less."""


class Room(NamedTuple):
    """What a deployment takes of an input.

    `most_tokens`, in tokens of o200k_base, is None where nothing may be left out. `left_out_share` is 0 to 1 of what
    may be.
    """

    most_tokens: int | None = None
    left_out_share: float = 0.0
    loses_history: bool = False

    @property
    def takes_all(self) -> bool:
        """Whether nothing is left out."""
        return not self.left_out_share


NOTHING_LEFT_OUT = Room()


def room_for(deployment: Deployment, tokens: TokenEstimate, wanted_output_tokens: int) -> tuple[TokenEstimate, Room]:
    """What this deployment takes of the input, and how many tokens of its own model that has.

    Nothing is left out but what may be, and that only where it has to be.
    """
    own = tokens_for(deployment, tokens)
    spare = tokens.document_tokens + tokens.history_tokens
    if not spare or deployment.is_last_resort:
        return own, NOTHING_LEFT_OUT
    most = most_input_tokens(deployment, wanted_output_tokens)
    if tokens.tokens <= most:
        return own, Room(most)
    core = core_of(tokens)
    left = max(0, most - core.tokens)
    documents, history = shared_room(left, tokens.document_tokens, tokens.history_tokens)
    sent = _trimmed(deployment, own, core, documents + history)
    share = 1.0 - (documents + history) / spare
    return sent, Room(most, share, loses_history=history < tokens.history_tokens)


def most_input_tokens(deployment: Deployment, wanted_output_tokens: int) -> int:
    """How many tokens of o200k_base an input may have, so that there is room for the answer."""
    model, correction = deployment.model, correction_of(deployment)
    window = model.context_window_tokens
    output = min(wanted_output_tokens, model.max_output_tokens, window // OUTPUT_SHARE)
    factor = correction.factor if correction.most == 1.0 else correction.factor * SAFETY
    return int((window - output) / factor)


def shared_room(room_tokens: int, document_tokens: int, history_tokens: int) -> tuple[int, int]:
    """How much documents and history get of the room that is left for both: half each, and what the other leaves."""
    documents = min(document_tokens, max(room_tokens // 2, room_tokens - history_tokens))
    return documents, min(history_tokens, room_tokens - documents)


def _trimmed(deployment: Deployment, whole: TokenEstimate, core: TokenEstimate, kept_tokens: int) -> TokenEstimate:
    own_core = tokens_for(deployment, core)
    correction = correction_of(deployment)
    tokens = own_core.tokens + round(kept_tokens * correction.factor)
    most = own_core.upper_bound + int(kept_tokens * correction.most) + 1
    return TokenEstimate(min(tokens, whole.tokens), exact=False, upper_bound=min(most, whole.upper_bound))
