"""What a tenant's own outcomes taught about the tiers, as values that hold still during a decision."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass

ANY_TASK = ""
"""Stands for requests of all task types."""


@dataclass(frozen=True, slots=True)
class FallingMap:
    """Probability of a good answer by complexity score: (score, probability), straight between, level outside.

    There is at least one point; scores rise, probabilities never do.
    """

    points: tuple[tuple[float, float], ...]

    def at(self, score: float) -> float:
        """The probability at this score."""
        after = bisect_right(self.points, (score, float("inf")))
        if after == 0:
            return self.points[0][1]
        if after == len(self.points):
            return self.points[-1][1]
        (left, above), (right, below) = self.points[after - 1], self.points[after]
        return above + (below - above) * (score - left) / (right - left)


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What is known of a model whose tier has maps: by task type or `ANY_TASK`, how well its tier answers.

    `above_tier` is how far the model's ability lies above the mean of the policy's models of that tier, in log-odds.
    """

    maps: Mapping[str, FallingMap]
    above_tier: float

    def map_for(self, task: str) -> FallingMap | None:
        """The map of this task type, else that of all tasks, if there is one."""
        return self.maps.get(task) or self.maps.get(ANY_TASK)
