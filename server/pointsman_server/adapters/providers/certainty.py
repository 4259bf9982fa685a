"""How sure a model was of its words, from the log-probabilities that some providers tell."""

from __future__ import annotations

import math

from pointsman_server.adapters.providers.json_reading import as_list, as_object
from pointsman_server.domain.reply import Certainty

_LEAST_LOG_PROBABILITY = -20.0
"""Providers write -9999 for a token that was not among the likely ones; one such token must not outweigh all others."""


class TokenCertainty:
    """Gathers the log-probabilities of an answer's tokens; what cannot be one is passed over."""

    __slots__ = ("_count", "_total")

    def __init__(self) -> None:
        self._total = 0.0
        self._count = 0

    def read(self, tokens: object) -> None:
        """Takes in a list of objects with a `logprob`."""
        for token in as_list(tokens):
            self.add(as_object(token).get("logprob"))

    def add(self, log_probability: object) -> None:
        """Takes in one token."""
        known = _log_probability(log_probability)
        if known is not None:
            self._total += known
            self._count += 1

    def events(self) -> list[Certainty]:
        """The geometric mean of the tokens' probabilities, or nothing where none was told."""
        return [Certainty(math.exp(self._total / self._count))] if self._count else []


def certainty_of_mean(mean_log_probability: object) -> list[Certainty]:
    """The same where the provider tells the mean itself."""
    told = TokenCertainty()
    told.add(mean_log_probability)
    return told.events()


def _log_probability(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or math.isnan(value) or value > 0:
        return None
    return max(float(value), _LEAST_LOG_PROBABILITY)
