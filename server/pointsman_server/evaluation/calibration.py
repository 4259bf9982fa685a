"""Whether stated probabilities of a good answer come true, as they are and after recalibration."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pointsman_server.decision.quality import log_odds, quality_at
from pointsman_server.evaluation.figures import expected_calibration_error
from pointsman_server.evaluation.folder import RoutingData
from pointsman_server.evaluation.isotonic import Sample, fit_falling, fit_leaning
from pointsman_server.evaluation.judging import Verdict
from pointsman_server.evaluation.metrics import Floats

EVERYTHING = "all sources"

LABEL_COUNTS = (0, 100, 250, 500)
"""How many outcomes of a model on a source a recalibration is given; without any, its ability overall is all it has."""

_HALVINGS = 40


@dataclass(frozen=True, slots=True)
class Calibration:
    """Expected calibration errors, 0..1, on one source or on `EVERYTHING`, over all outcomes of all models together.

    `by_global_ability` and `by_source_ability` are of `quality_at` with the prompt's difficulty and discrimination and
    one ability for each model, learned from the whole folder and from this source; `each_model` is the mean of the
    models' own errors by the latter. `recalibrated` is of a falling map of the score for each model and source.
    Everything is learned on one half of the prompts and measured on the other, both ways round.
    """

    source: str
    models: int
    outcomes: int
    by_global_ability: float
    by_source_ability: float
    each_model: float
    recalibrated: float


@dataclass(frozen=True, slots=True)
class Learning:
    """The mean calibration error on prompts left over, after a recalibration with so many labels a model and source.

    `cases` are the models and sources with at least twice the labels of the longest line, the same in every line.
    """

    labels: int
    error: float
    cases: int


class _Answers(NamedTuple):
    """One model on one source: what it achieved, by score, and the probabilities stated in each way."""

    model: str
    scores: Floats
    outcomes: Floats
    by_global: Floats
    by_source: Floats
    recalibrated: Floats


class _Judged(NamedTuple):
    """The prompts as they were judged, and their halves."""

    scores: Floats
    difficulties: Floats
    discriminations: Floats
    halves: NDArray[np.bool_]

    def at(self, places: NDArray[np.intp]) -> _Judged:
        """Some of them."""
        return _Judged(
            self.scores[places], self.difficulties[places], self.discriminations[places], self.halves[places]
        )


def measure_calibration(data: RoutingData, verdicts: Sequence[Verdict]) -> list[Calibration]:
    """One line for all sources, then one for each; of models that were asked prompts of both halves there."""
    by_source = _by_source(data, verdicts)
    lines = [_calibration(source, answers) for source, answers in by_source.items()]
    every = [answers for of_source in by_source.values() for answers in of_source]
    return [_calibration(EVERYTHING, every), *lines] if every else []


def measure_learning(data: RoutingData, verdicts: Sequence[Verdict]) -> Iterator[Learning]:
    """How the error falls with the number of labels."""
    every = [answers for of_source in _by_source(data, verdicts).values() for answers in of_source]
    cases = [answers for answers in every if len(answers.scores) >= 2 * LABEL_COUNTS[-1]]
    for labels in LABEL_COUNTS if cases else ():
        yield Learning(labels, float(np.mean([_error_after(answers, labels) for answers in cases])), len(cases))


def _by_source(data: RoutingData, verdicts: Sequence[Verdict]) -> dict[str, list[_Answers]]:
    sources = np.array([item.source for item in data.items])
    judged = _Judged(
        np.array([verdict.score for verdict in verdicts]),
        np.array([verdict.difficulty for verdict in verdicts]),
        np.array([verdict.discrimination for verdict in verdicts]),
        np.array(data.first_half),
    )
    found: dict[str, list[_Answers]] = {source: [] for source in dict.fromkeys(sources.tolist())}
    for model, scores in data.scores.items():
        known = np.flatnonzero(~np.isnan(scores))
        by_global = np.full(len(scores), np.nan)
        by_global[known] = _across(scores[known], judged.at(known), _state_by_ability)
        for source, answers in found.items():
            places = known[sources[known] == source]
            if len(set(judged.halves[places].tolist())) == 2:
                answers.append(_answers(model, scores[places], judged.at(places), by_global[places]))
    return {source: answers for source, answers in found.items() if answers}


def _answers(model: str, outcomes: Floats, judged: _Judged, by_global: Floats) -> _Answers:
    return _Answers(
        model=model,
        scores=judged.scores,
        outcomes=outcomes,
        by_global=by_global,
        by_source=_across(outcomes, judged, _state_by_ability),
        recalibrated=_across(outcomes, judged, _state_by_map),
    )


_State = Callable[[Floats, _Judged, _Judged], list[float]]
"""From outcomes and the prompts they are of, what is stated of other prompts."""


def _across(outcomes: Floats, judged: _Judged, state: _State) -> Floats:
    """Each half as stated from the other; NaN where the other is empty."""
    stated = np.full(len(outcomes), np.nan)
    for measured in (judged.halves, ~judged.halves):
        taught, left = np.flatnonzero(~measured), np.flatnonzero(measured)
        if len(taught):
            stated[left] = state(outcomes[taught], judged.at(taught), judged.at(left))
    return stated


def _state_by_ability(outcomes: Floats, taught: _Judged, left: _Judged) -> list[float]:
    quality = fit_quality(outcomes, taught.difficulties, taught.discriminations)
    items = zip(left.difficulties.tolist(), left.discriminations.tolist(), strict=True)
    return [quality_at(quality, difficulty, discrimination) for difficulty, discrimination in items]


def _state_by_map(outcomes: Floats, taught: _Judged, left: _Judged) -> list[float]:
    fitted = fit_falling(_samples(taught.scores, outcomes))
    return [fitted.at(score) for score in left.scores.tolist()]


def fit_quality(outcomes: Floats, difficulties: Floats, discriminations: Floats) -> float:
    """The `quality` with which the mean of what `quality_at` states is the mean outcome, or as near as it comes."""
    low, high = log_odds(0.0), log_odds(1.0)
    for _ in range(_HALVINGS):
        ability = (low + high) / 2
        stated = 1.0 / (1.0 + np.exp(-discriminations * (ability - difficulties)))
        low, high = (ability, high) if stated.mean() < outcomes.mean() else (low, ability)
    return float(1.0 / (1.0 + np.exp(-(low + high) / 2)))


def _calibration(source: str, answers: Sequence[_Answers]) -> Calibration:
    of_model: dict[str, list[_Answers]] = defaultdict(list)
    for one in answers:
        of_model[one.model].append(one)
    each = [_error(of_one, lambda one: one.by_source) for of_one in of_model.values()]
    return Calibration(
        source=source,
        models=len(of_model),
        outcomes=sum(len(one.outcomes) for one in answers),
        by_global_ability=_error(answers, lambda one: one.by_global),
        by_source_ability=_error(answers, lambda one: one.by_source),
        each_model=float(np.mean(each)),
        recalibrated=_error(answers, lambda one: one.recalibrated),
    )


def _error(answers: Sequence[_Answers], stated: Callable[[_Answers], Floats]) -> float:
    probabilities = np.concatenate([stated(one) for one in answers])
    outcomes = np.concatenate([one.outcomes for one in answers])
    return expected_calibration_error(probabilities.tolist(), outcomes.tolist())


def _error_after(answers: _Answers, labels: int) -> float:
    order = list(range(len(answers.scores)))
    random.Random(labels).shuffle(order)  # noqa: S311 - a fixed choice, not a secret
    taught, left = order[:labels], order[labels:]
    stated = answers.by_global[left].tolist()
    if labels:
        expected = zip(answers.scores[taught].tolist(), answers.by_global[taught].tolist(), strict=True)
        fitted = fit_leaning(_samples(answers.scores[taught], answers.outcomes[taught]), list(expected))
        stated = [fitted.at(score) for score in answers.scores[left].tolist()]
    return expected_calibration_error(stated, answers.outcomes[left].tolist())


def _samples(scores: Floats, outcomes: Floats) -> list[Sample]:
    return [Sample(score, outcome) for score, outcome in zip(scores.tolist(), outcomes.tolist(), strict=True)]
