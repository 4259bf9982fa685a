"""Maps from a score to a probability that never fall, fitted to outcomes by pooling adjacent violators."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from pointsman_server.domain.calibration import FallingMap

PRIOR_LABELS = 50.0
"""How many outcomes the expectation is worth that a map leans on."""


class Sample(NamedTuple):
    """One outcome (0..1) at a score; `weight` is how many outcomes it stands for."""

    score: float
    outcome: float
    weight: float = 1.0


class _Block(NamedTuple):
    """Neighbours that share one value: sums over their samples."""

    weight: float
    scores: float
    outcomes: float

    @property
    def value(self) -> float:
        return self.outcomes / self.weight


def fit_falling(samples: Sequence[Sample]) -> FallingMap:
    """The map that never rises and is nearest to the outcomes in squared distance; at least one sample is needed.

    Between the centres of its blocks it is drawn straight, so that no two near scores differ by a step.
    """
    blocks: list[_Block] = []
    for block in _at_equal_scores(samples):
        blocks.append(block)
        while len(blocks) > 1 and blocks[-1].value >= blocks[-2].value:
            last = blocks.pop()
            blocks[-1] = _pooled(blocks[-1], last)
    return FallingMap(tuple((round(block.scores / block.weight, 6), round(block.value, 6)) for block in blocks))


def fit_leaning(samples: Sequence[Sample], expected: Sequence[tuple[float, float]]) -> FallingMap:
    """The same, leaning on (score, probability) that were expected, together worth `PRIOR_LABELS` outcomes."""
    weight = PRIOR_LABELS / len(expected)
    return fit_falling([*samples, *(Sample(score, probability, weight) for score, probability in expected)])


def _at_equal_scores(samples: Iterable[Sample]) -> list[_Block]:
    sums: dict[float, _Block] = {}
    for score, outcome, weight in samples:
        block = _Block(weight, weight * score, weight * outcome)
        sums[score] = _pooled(sums[score], block) if score in sums else block
    return [sums[score] for score in sorted(sums)]


def _pooled(left: _Block, right: _Block) -> _Block:
    return _Block(left.weight + right.weight, left.scores + right.scores, left.outcomes + right.outcomes)
