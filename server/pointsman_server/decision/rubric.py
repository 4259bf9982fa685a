"""The tier of a request by the written rubric, as probabilities.

A small network weighs what the wording says with a few counts. Its numbers were learned; see `training/`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from operator import mul
from typing import Any, Protocol

from pointsman_server.decision.network import Network, compiled
from pointsman_server.decision.tally import unpacked_tally
from pointsman_server.decision.wording import Reading

MOST_COUNTED_WORDS = 120

Probabilities = tuple[float, float, float]
"""Simple, medium, complex; they sum to 1."""


class Counted(Protocol):
    """A segment of which something is counted."""

    @property
    def words(self) -> Sequence[str]:
        """Its words."""

    @property
    def tallies(self) -> Sequence[int]:
        """The packed tally of each word."""

    @property
    def chars(self) -> int:
        """Its length in characters."""


class Rubric:
    """The network: one hidden layer of rectified units."""

    def __init__(self, network: Network) -> None:
        self._network = network

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Rubric:
        """From the parsed data file, whose weights are for standardised inputs: here they are for the inputs."""
        means, scales, temperature = data["means"], data["scales"], data["temperature"]
        hidden = []
        for bias, weights in data["hidden"]:
            scaled = [weight / scale for weight, scale in zip(weights, scales, strict=True)]
            hidden.append((bias - sum(map(mul, scaled, means)), scaled))
        outputs = [
            (bias / temperature, [weight / temperature for weight in weights]) for bias, weights in data["outputs"]
        ]
        return cls(compiled(hidden, outputs))

    def judge(self, reading: Reading, segments: Sequence[Counted]) -> Probabilities:
        """How probable each tier is."""
        return self.weigh(evidence_of(reading, segments))

    def weigh(self, evidence: Sequence[float]) -> Probabilities:
        """How probable each tier is by this evidence; see `evidence_of`."""
        return probabilities_of(self._network(*evidence))


def evidence_of(reading: Reading, segments: Sequence[Counted]) -> tuple[float, ...]:
    """What the network weighs: the logits of the three views, and what is counted of the request."""
    counts = request_counts(segments, reading.kept, reading.top, reading.certainty)
    return *reading.asking, *reading.likeliest, *reading.everything, *counts


def probabilities_of(totals: Sequence[float]) -> Probabilities:
    """From the totals of the three tiers."""
    most = max(totals)
    simple, medium, complex_ = [math.exp(total - most) for total in totals]
    whole = simple + medium + complex_
    return simple / whole, medium / whole, complex_ / whole


def request_counts(segments: Sequence[Counted], kept: Sequence[int], top: int, certainty: float) -> tuple[float, ...]:
    """What is counted of a request: sizes of the text, of what asks in it and of the likeliest ask, and signs in it."""
    asking = [segments[place] for place in kept]
    words = list(chain.from_iterable([one.words for one in asking]))[:MOST_COUNTED_WORDS]
    tally = unpacked_tally(sum(list(chain.from_iterable([one.tallies for one in asking]))[:MOST_COUNTED_WORDS]))
    kept_chars = sum([one.chars for one in asking])
    chars = sum([one.chars for one in segments])
    count = len(words) or 1
    return (
        math.log1p(len(segments)),
        math.log1p(len(kept)),
        math.log1p(kept_chars),
        math.log1p(segments[top].chars),
        math.log1p(chars),
        math.log1p(tally.joints),
        math.log1p(tally.numbers),
        float(tally.question_marks > 0),
        float(tally.colons > 0),
        certainty,
        kept_chars / (chars or 1),
        len(set(words)) / count,
        tally.chars / count,
    )
