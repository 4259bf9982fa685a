"""What callers' verdicts taught about the models, as a value that holds still during one decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pointsman_server.domain.plan import TaskType
from pointsman_server.domain.request import Tier

PRIOR_VERDICTS = 20.0
"""How many verdicts the expectation without any experience is worth. How far one tenant's verdicts can move it
follows from this and from the bound on their weight (`execution.feedback`)."""


class Lesson(NamedTuple):
    """What one verdict teaches about: a model at tasks of one type in one band of difficulty."""

    model_id: str
    task: TaskType
    band: Tier


class Verdicts(NamedTuple):
    """Decayed sum of the verdicts (each 0..1) and their decayed number."""

    total: float
    weight: float


NO_VERDICTS = Verdicts(0.0, 0.0)


@dataclass(frozen=True, slots=True)
class Experience:
    """The verdicts on each model, by its id, at requests like the one being decided; empty when there are none."""

    verdicts: Mapping[str, Verdicts] = field(default_factory=dict)

    def corrected(self, model_id: str, expected_quality: float) -> float:
        """The posterior mean of a Beta prior around the expectation, worth `PRIOR_VERDICTS` verdicts."""
        learned = self.verdicts.get(model_id)
        if learned is None:
            return expected_quality
        return (PRIOR_VERDICTS * expected_quality + learned.total) / (PRIOR_VERDICTS + learned.weight)


NO_EXPERIENCE = Experience()
