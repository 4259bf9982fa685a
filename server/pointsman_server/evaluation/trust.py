"""Whether the confidence in answers comes true: recorded outcomes replayed, each judged by its caller afterwards."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pointsman_server.decision.confidence import Evidence, confidence_of
from pointsman_server.decision.quality import log_odds, quality_at
from pointsman_server.domain.experience import Lesson
from pointsman_server.domain.plan import TaskType
from pointsman_server.domain.reply import FinishReason
from pointsman_server.domain.request import Tier
from pointsman_server.domain.verdict import Verdict as CallersVerdict
from pointsman_server.evaluation.calibration import fit_quality
from pointsman_server.evaluation.figures import expected_calibration_error
from pointsman_server.evaluation.folder import RoutingData
from pointsman_server.evaluation.judging import Verdict
from pointsman_server.evaluation.metrics import Floats
from pointsman_server.execution.feedback import FeedbackBook

LEAST_ANSWERS = 200
"""Models with fewer outcomes in the replayed half are left out."""

MISJUDGED_LOG_ODDS = (0.0, 1.0, -1.0)
"""By how much the policy's word on a model's quality is off, in the three replays of each model."""

_SECONDS_BETWEEN = 60.0
_TENANT = "replayed"
_SEED = 20


@dataclass(frozen=True, slots=True)
class ConfidenceReport:
    """Expected calibration errors, 0..1, over all answers of all models, where their quality is misjudged by so much.

    `unjudged` is without any verdict; `judged` where the caller of every answer says afterwards how good it was.
    """

    misjudged_log_odds: float
    models: int
    answers: int
    unjudged: float
    judged: float
    each_model: float
    """The mean of the models' own errors, judged."""


@dataclass(frozen=True, slots=True)
class _Replayed:
    outcomes: list[float]
    unjudged: list[float]
    judged: list[float]


class _Clock:
    """Answers come a minute apart."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> float:
        return self.seconds


class _Nowhere:
    """Verdicts of a replay are kept by nobody."""

    def append(self, verdict: CallersVerdict) -> None:
        """See `VerdictLog.append`."""


def measure_confidence(data: RoutingData, verdicts: Sequence[Verdict]) -> list[ConfidenceReport]:
    """For each error of the policy: qualities are learned from one half of the prompts, the other replayed."""
    return [_report(misjudged, data, verdicts) for misjudged in MISJUDGED_LOG_ODDS]


def _report(misjudged: float, data: RoutingData, verdicts: Sequence[Verdict]) -> ConfidenceReport:
    replays = [_replay(outcomes, data, verdicts, misjudged) for outcomes in data.scores.values()]
    known = [one for one in replays if one is not None]
    outcomes = [outcome for one in known for outcome in one.outcomes]
    return ConfidenceReport(
        misjudged_log_odds=misjudged,
        models=len(known),
        answers=len(outcomes),
        unjudged=expected_calibration_error([stated for one in known for stated in one.unjudged], outcomes),
        judged=expected_calibration_error([stated for one in known for stated in one.judged], outcomes),
        each_model=float(np.mean([expected_calibration_error(one.judged, one.outcomes) for one in known])),
    )


def _replay(
    outcomes: Floats,
    data: RoutingData,
    verdicts: Sequence[Verdict],
    misjudged: float,
) -> _Replayed | None:
    first_half = np.array(data.first_half)
    known = ~np.isnan(outcomes)
    taught, left = np.flatnonzero(known & first_half).tolist(), np.flatnonzero(known & ~first_half).tolist()
    if len(left) < LEAST_ANSWERS or not taught:
        return None
    quality = fit_quality(
        outcomes[taught],
        np.array([verdicts[place].difficulty for place in taught]),
        np.array([verdicts[place].discrimination for place in taught]),
    )
    stated = 1.0 / (1.0 + np.exp(-(log_odds(quality) + misjudged)))
    random.Random(_SEED).shuffle(left)  # noqa: S311 - a fixed order, not a secret
    return _answered_in_turn(left, outcomes, verdicts, float(stated))


def _answered_in_turn(
    order: Sequence[int],
    outcomes: Floats,
    verdicts: Sequence[Verdict],
    quality: float,
) -> _Replayed:
    clock = _Clock()
    book, replayed = FeedbackBook(clock, _Nowhere()), _Replayed([], [], [])
    for number, place in enumerate(order):
        verdict = verdicts[place]
        expected = quality_at(quality, verdict.difficulty, verdict.discrimination)
        lesson = Lesson("model", TaskType(verdict.task or "chat"), Tier(verdict.tier))
        corrected = book.experience(lesson.task, lesson.band).corrected("model", expected)
        own = book.own(_TENANT, lesson)
        replayed.outcomes.append(float(outcomes[place]))
        replayed.unjudged.append(confidence_of(Evidence(expected, FinishReason.STOP, "")).score)
        replayed.judged.append(confidence_of(Evidence(corrected, FinishReason.STOP, "", own)).score)
        book.answered(str(number), _TENANT, lesson)
        book.judge(str(number), _TENANT, float(outcomes[place]), "")
        clock.seconds += _SECONDS_BETWEEN
    return replayed
