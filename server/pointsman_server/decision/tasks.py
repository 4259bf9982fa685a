"""What kind of work a request asks for, from the words of its ask."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pointsman_server.decision.vocabulary import STEM_CHARS
from pointsman_server.domain.plan import TaskType

_LANE = 16
_LEVEL = 1 << _LANE - 1


class Tasks:
    """A learned linear model: what each stem adds to each type of task.

    The weights of a stem for all types stand side by side in one whole number, so that adding up the numbers of the
    stems adds up every type at once. What they are added to keeps each lane from falling below 0.
    """

    def __init__(self, types: Sequence[TaskType], bias: Sequence[float], unit: float, rows: Mapping[str, int]) -> None:
        self.types = types
        self._unit = unit
        self._bias = bias
        self._rows = rows
        self._lanes = struct.Struct(f"<{len(types)}H")
        self._level = sum([_LEVEL << _LANE * number for number in range(len(types))])

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Tasks:
        """From the parsed data file: for each feature a list of numbers and weights in turn."""
        rows = {
            name: sum([weight << _LANE * number for number, weight in zip(flat[::2], flat[1::2], strict=True)])
            for name, flat in data["rows"].items()
        }
        return cls([TaskType(name) for name in data["types"]], data["bias"], data["unit"], rows)

    def judge(self, stems: Sequence[str]) -> TaskType:
        """The likeliest type for an ask of these stems."""
        packed = sum(filter(None, map(self._rows.get, _features(stems))), self._level)
        lanes = self._lanes.unpack(packed.to_bytes(self._lanes.size, "little"))
        totals = [bias + self._unit * (lane - _LEVEL) for bias, lane in zip(self._bias, lanes, strict=True)]
        return self.types[totals.index(max(totals))]


def task_features(words: Sequence[str]) -> Iterator[str]:
    """The stems of the words, and those that the ask begins with."""
    yield from _features([word[:STEM_CHARS] for word in words])


def _features(stems: Sequence[str]) -> list[str]:
    return [*set(stems), *[f"^{stem}" for stem in stems[:2]]]
