"""A small item response model of a tenant's outcomes: what a handful of labels can tell about every tier and task.

log-odds of a good answer = strength of the tier + ease of the task type + slope * (1/2 - score), after G. Rasch
(1960). Few parameters, each held near a plain guess, so that a hundred outcomes are enough.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from pointsman_server.decision.quality import log_odds
from pointsman_server.domain.request import Tier
from pointsman_server.evaluation.outcomes import Outcome

TYPICAL_SLOPE = 5.0
"""What a model's log-odds of a good answer lose from score 0 to score 1, where no outcomes tell. By the judge's own
table (`SUCCESS_BY_TIER`) they fall by 3.0 to 3.5 from the middle of the lightest band to that of the highest, which is
two thirds of the way. A tenant's outcomes have scores only, no difficulty, so this stands in for it."""

_SWEEPS = 40
_LONGEST_STEP = 1.0
_SCORE_DIGITS = 2
"""Scores are rounded for the fit, so that its time does not grow with the number of outcomes."""


class _Guess(NamedTuple):
    """What a parameter is without outcomes, and how strongly it is held there (an inverse variance)."""

    value: float
    pull: float


_STRENGTH, _EASE, _STEEPNESS = _Guess(1.0, 0.1), _Guess(0.0, 1.0), _Guess(TYPICAL_SLOPE / 2, 0.2)
"""The slope's guess is half of the typical one: a judge tells less about traffic that it was not made for."""


@dataclass(frozen=True, slots=True)
class ResponseModel:
    """The fitted parameters; the slope is never negative."""

    strengths: Mapping[Tier, float]
    eases: Mapping[str, float]
    slope: float

    def probability(self, task: str, tier: Tier, score: float) -> float:
        """How likely a good answer is; an unknown task type is of middling ease. The tier must be a known one."""
        ease = self.eases.get(task, _EASE.value)
        return _share(self.strengths[tier] + ease + self.slope * (0.5 - score))


@dataclass(slots=True)
class _Cell:
    """Outcomes that the model cannot tell apart."""

    bend: float
    weight: float = 0.0
    good: float = 0.0
    log_odds: float = 0.0


@dataclass(slots=True)
class _Parameter:
    """One parameter while it is fitted, with the cells it acts on and how strongly."""

    guess: _Guess
    value: float = 0.0
    cells: list[tuple[_Cell, float]] = field(default_factory=list)

    def act(self, cell: _Cell, strength: float = 1.0) -> None:
        """Adds a cell; the value is still the guess."""
        self.value = self.guess.value
        self.cells.append((cell, strength))
        cell.log_odds += self.value * strength

    def step(self, least: float = -math.inf) -> None:
        """One Newton step towards the likeliest value, the other parameters held."""
        slant, bow = self.guess.pull * (self.guess.value - self.value), self.guess.pull
        for cell, strength in self.cells:
            share = _share(cell.log_odds)
            slant += strength * (cell.good - cell.weight * share)
            bow += strength * strength * cell.weight * share * (1 - share)
        wanted = self.value + min(max(slant / bow, -_LONGEST_STEP), _LONGEST_STEP)
        change, self.value = max(wanted, least) - self.value, max(wanted, least)
        for cell, strength in self.cells:
            cell.log_odds += change * strength


def bent(quality: float, score: float) -> float:
    """The chance of a good answer at this score, of who has this quality on the whole, by the typical slope."""
    return _share(log_odds(quality) + TYPICAL_SLOPE * (0.5 - score))


def fit_response(outcomes: Iterable[Outcome]) -> ResponseModel:
    """The likeliest parameters given the outcomes and the guesses."""
    strengths: dict[Tier, _Parameter] = defaultdict(lambda: _Parameter(_STRENGTH))
    eases: dict[str, _Parameter] = defaultdict(lambda: _Parameter(_EASE))
    slope = _Parameter(_STEEPNESS, _STEEPNESS.value)
    for (tier, task, _), cell in _cells(outcomes).items():
        strengths[tier].act(cell)
        eases[task].act(cell)
        slope.act(cell, cell.bend)
    for _ in range(_SWEEPS):
        for parameter in (*strengths.values(), *eases.values()):
            parameter.step()
        slope.step(least=0.0)
    return ResponseModel(
        {tier: parameter.value for tier, parameter in strengths.items()},
        {task: parameter.value for task, parameter in eases.items()},
        slope.value,
    )


def _cells(outcomes: Iterable[Outcome]) -> dict[tuple[Tier, str, float], _Cell]:
    cells: dict[tuple[Tier, str, float], _Cell] = {}
    for outcome in outcomes:
        score = round(outcome.score, _SCORE_DIGITS)
        cell = cells.setdefault((outcome.tier, outcome.task, score), _Cell(0.5 - score))
        cell.weight += 1
        cell.good += outcome.outcome
    return cells


def _share(log_odds: float) -> float:
    return 1 / (1 + math.exp(-min(max(log_odds, -30.0), 30.0)))
