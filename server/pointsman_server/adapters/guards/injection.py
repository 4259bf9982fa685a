"""The detector of prompt injections that ships with the package."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from math import exp, log1p, sqrt
from operator import mul
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from pointsman_server.adapters.guards.injection_features import buckets
from pointsman_server.adapters.guards.injection_normalise import View, views
from pointsman_server.adapters.guards.injection_patterns import FAMILIES, families_in
from pointsman_server.domain.injection import Source

DATA = "data/injection.json"

WINDOWS = (6, 16, 48)
"""Words of the windows whose likeliest counts, so that an attack is seen in whatever surrounds it."""

CHUNK, OVERLAP = 4_096, 512
"""Characters that are judged at once; of a longer text the likeliest piece counts."""

SIGNS = len(WINDOWS) + 4
INPUTS = SIGNS + len(FAMILIES)
"""Numbers that the last step sees of a piece: windows, the whole, its length, disguise, other scripts, and families."""

_LEAST_WORDS = 3
_LEAST_WHOLE = -1.0
"""However much harmless text there is around an attack, it does not speak for it beyond this."""
_LARGEST_LOGIT = 30.0

Floats = NDArray[np.float64]


class Signs(NamedTuple):
    """What is seen of a piece: the first `SIGNS` inputs of the last step, and the places of its families."""

    numbers: tuple[float, ...]
    families: frozenset[int]


class LastStep(NamedTuple):
    """A logistic regression over all signs of a piece; weights of shape (INPUTS,)."""

    weights: Floats
    bias: float

    def logit(self, inputs: Floats) -> float:
        """Above 0 if rather an attack."""
        return float(inputs @ self.weights) + self.bias

    @classmethod
    def load(cls, plain: Mapping[str, Any]) -> LastStep:
        """From the data file."""
        return cls(np.array(plain["weights"], dtype=np.float64), float(plain["bias"]))


class LearnedInjectionDetector:
    """Weights of words and their neighbours, patterns, and a last step over both. Keeps nothing of a text."""

    def __init__(
        self, weights: NDArray[np.int8], unit: float, last: Mapping[Source, LastStep], threshold: float
    ) -> None:
        self._weights = weights
        self._unit = unit
        self._last = {source: (step.weights.tolist(), step.bias) for source, step in last.items()}
        self._threshold = threshold

    @property
    def threshold(self) -> float:
        """From which score on a text counts as an attack."""
        return self._threshold

    def score(self, text: str, source: Source) -> float:
        """How likely an attack it is, 0 to 1; the likeliest of its pieces and of what they say undisguised."""
        weights, bias = self._last[source]
        logit = bias + max(
            sum(map(mul, signs.numbers, weights)) + sum(weights[SIGNS + place] for place in signs.families)
            for signs in self._signs(text)
        )
        return 1.0 / (1.0 + exp(-max(min(logit, _LARGEST_LOGIT), -_LARGEST_LOGIT)))

    def inputs(self, text: str) -> Iterator[Floats]:
        """What the last step is told of each piece of the text in each of its readings; shape (INPUTS,)."""
        for signs in self._signs(text):
            found = np.zeros(INPUTS)
            found[:SIGNS] = signs.numbers
            found[[SIGNS + place for place in signs.families]] = 1.0
            yield found

    def _signs(self, text: str) -> Iterator[Signs]:
        for piece in _pieces(text):
            for view in views(piece):
                for part in _pieces(view.text):
                    yield self._signs_of(part, view)

    def _signs_of(self, part: str, view: View) -> Signs:
        contributions = np.add.reduce(self._weights.take(buckets(part)), axis=0, dtype=np.int64)
        sums = [best * self._unit for best in _best_windows(contributions)]
        other_script = not part.isascii()
        numbers = (*sums, log1p(len(contributions)), float(view.disguised), float(other_script))
        return Signs(numbers, families_in(part))

    @classmethod
    def load(cls, plain: Mapping[str, Any]) -> LearnedInjectionDetector:
        """From the data file."""
        weights = np.frombuffer(zlib.decompress(base64.b64decode(plain["weights"])), dtype=np.int8)
        last = {source: LastStep.load(plain["last"][source.value]) for source in Source}
        return cls(weights, float(plain["unit"]), last, float(plain["threshold"]))


def _best_windows(contributions: NDArray[np.int64]) -> list[float]:
    """For each of `WINDOWS` the most that a window of so many words has, and what the whole has; by their roots."""
    words = len(contributions)
    sums = np.zeros(words + 1, dtype=np.int64)
    np.add.accumulate(contributions, out=sums[1:])
    whole = int(sums[-1]) / sqrt(max(words, _LEAST_WORDS))
    best = [
        int(np.maximum.reduce(sums[size:] - sums[:-size])) / sqrt(size) if words > size else whole for size in WINDOWS
    ]
    return [*best, max(whole, _LEAST_WHOLE)]


def _pieces(text: str) -> Iterator[str]:
    if len(text) <= CHUNK:
        yield text
        return
    for start in range(0, len(text) - OVERLAP, CHUNK - OVERLAP):
        yield text[start : start + CHUNK]


@cache
def learned() -> Mapping[str, Any]:
    """The parsed data file, with the record of its training."""
    parsed: Mapping[str, Any] = orjson.loads((files("pointsman_server") / DATA).read_bytes())
    return parsed


@cache
def shipped_detector() -> LearnedInjectionDetector:
    """The detector that ships with the package, ready for its first text."""
    detector = LearnedInjectionDetector.load(learned())
    for text in ("ready", "prêt"):
        detector.score(text, Source.USER)
    return detector
