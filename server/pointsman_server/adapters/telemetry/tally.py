"""Counters whose hot path is one dictionary entry."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from opentelemetry.metrics import CallbackOptions, Meter, Observation

LabelValues: TypeAlias = tuple[str, ...]


class Tally:
    """A counter with labels: counted in a dictionary, observed when somebody scrapes.

    The SDK's own counter takes 5 to 7 microseconds for an addition, this one a fraction of one. `zeros` are shown
    from the start, so that the first event of a kind is a rise and not a new series.
    """

    __slots__ = ("_counts", "_labels")

    def __init__(
        self, meter: Meter, name: str, description: str, labels: Sequence[str], zeros: Iterable[LabelValues] = ()
    ) -> None:
        self._labels = tuple(labels)
        self._counts: dict[LabelValues, int] = dict.fromkeys(zeros, 0)
        meter.create_observable_counter(name, [self._observe], description=description)

    def add(self, values: LabelValues, amount: int = 1) -> None:
        """Counts; `values` are in the order of the labels."""
        counts = self._counts
        counts[values] = counts.get(values, 0) + amount

    def _observe(self, _: CallbackOptions) -> list[Observation]:
        # Scrapes run beside the event loop's thread: copying takes one step, so no entry can come in between.
        counts = self._counts.copy()
        return [Observation(count, dict(zip(self._labels, values, strict=True))) for values, count in counts.items()]
