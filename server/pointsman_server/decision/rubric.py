"""The tier of a request by the written rubric, as probabilities.

A small network weighs what the wording says with a few counts. Its numbers were learned; see `training/`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any

from pointsman_server.decision.ask import Segment
from pointsman_server.decision.wording import Reading

MOST_COUNTED_WORDS = 120

Probabilities = tuple[float, float, float]
"""Simple, medium, complex; they sum to 1."""

_JOINTS = frozenset(
    (
        *(",", ";", "、", "，", "；", "،"),  # noqa: RUF001 - the commas of other scripts are meant
        *("and", "or", "but", "without", "must", "should", "und", "oder", "aber", "ohne", "et", "ou", "mais", "sans"),
        *("y", "o", "pero", "sin", "e", "ma", "и", "или", "но", "без"),
    )
)
"""What joins wishes and conditions; a rough measure of how many there are."""

_QUESTION_MARKS = frozenset("?？؟")  # noqa: RUF001 - the question marks of other scripts are meant
_COLONS = frozenset(":：")  # noqa: RUF001 - the full-width colon is meant


@dataclass(frozen=True, slots=True)
class Rubric:
    """The network: one hidden layer of rectified units; of each unit and output, the bias and the weights."""

    hidden: Sequence[tuple[float, Sequence[float]]]
    outputs: Sequence[tuple[float, Sequence[float]]]

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
        return cls(hidden, outputs)

    def judge(self, reading: Reading, segments: Sequence[Segment]) -> Probabilities:
        """How probable each tier is."""
        counts = request_counts(segments, reading.kept, reading.top, reading.certainty)
        inputs = (*reading.asking, *reading.likeliest, *reading.everything, *counts)
        hidden = [max(0.0, bias + sum(map(mul, weights, inputs))) for bias, weights in self.hidden]
        totals = [bias + sum(map(mul, weights, hidden)) for bias, weights in self.outputs]
        most = max(totals)
        simple, medium, complex_ = [math.exp(total - most) for total in totals]
        whole = simple + medium + complex_
        return simple / whole, medium / whole, complex_ / whole


def request_counts(segments: Sequence[Segment], kept: Sequence[int], top: int, certainty: float) -> tuple[float, ...]:
    """What is counted of a request: sizes of the text, of what asks in it and of the likeliest ask, and signs in it."""
    words = [word for place in kept for word in segments[place].words][:MOST_COUNTED_WORDS]
    distinct = set(words)
    kept_chars = sum([segments[place].chars for place in kept])
    chars = sum([segment.chars for segment in segments])
    count = len(words) or 1
    return (
        math.log1p(len(segments)),
        math.log1p(len(kept)),
        math.log1p(kept_chars),
        math.log1p(segments[top].chars),
        math.log1p(chars),
        math.log1p(sum([word in _JOINTS for word in words])),
        math.log1p(sum([word[0].isdigit() for word in words])),
        float(not distinct.isdisjoint(_QUESTION_MARKS)),
        float(not distinct.isdisjoint(_COLONS)),
        certainty,
        kept_chars / (chars or 1),
        len(distinct) / count,
        sum(map(len, words)) / count,
    )
