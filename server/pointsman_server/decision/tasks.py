"""What kind of work a request asks for, from the words of its ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pointsman_server.decision.wording import STEM_CHARS
from pointsman_server.domain.plan import TaskType


@dataclass(frozen=True, slots=True)
class Tasks:
    """A learned linear model: what each word adds to each type of task, by the number of the type."""

    types: Sequence[TaskType]
    bias: Sequence[float]
    rows: Mapping[str, Sequence[tuple[int, float]]]

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Tasks:
        """From the parsed data file: for each feature a list of numbers and weights in turn."""
        unit = data["unit"]
        rows = {
            name: tuple((flat[place], flat[place + 1] * unit) for place in range(0, len(flat), 2))
            for name, flat in data["rows"].items()
        }
        return cls([TaskType(name) for name in data["types"]], data["bias"], rows)

    def judge(self, words: Sequence[str]) -> TaskType:
        """The likeliest type."""
        totals = list(self.bias)
        for feature in task_features(words):
            for number, weight in self.rows.get(feature, ()):
                totals[number] += weight
        return self.types[totals.index(max(totals))]


def task_features(words: Sequence[str]) -> Iterator[str]:
    """The stems of the words, and those that the ask begins with."""
    stems = [word[:STEM_CHARS] for word in words]
    yield from set(stems)
    yield from [f"^{stem}" for stem in stems[:2]]
