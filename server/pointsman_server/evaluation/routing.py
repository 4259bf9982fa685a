"""The whole evaluation of a folder of recorded outcomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pointsman_server.evaluation.calibration import Calibration, Learning, measure_calibration, measure_learning
from pointsman_server.evaluation.economics import ThreeTiers, measure_triples
from pointsman_server.evaluation.folder import LABEL_COLUMNS, RoutingData
from pointsman_server.evaluation.judging import TIER_NAMES, Judge, Verdict, judge_text
from pointsman_server.evaluation.metrics import Floats
from pointsman_server.evaluation.robustness import Prompt, Robustness, measure_robustness
from pointsman_server.evaluation.slices import Kind, SliceFigures, measure_slice, mixes, sources, subsets
from pointsman_server.evaluation.tiers import Confusion, confusion

MOST_EDITED_PROMPTS = 1_000
"""Robustness is measured on so many prompts, evenly spread over the folder."""


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """How often the judged tier is the tier that recorded outcomes suggest; `majority` is always saying one tier."""

    label: str
    prompts: int
    right: float
    majority: float
    confusion: Confusion


@dataclass(frozen=True, slots=True)
class RoutingReport:
    """Everything an evaluation found."""

    prompts: int
    outcomes: int
    models: int
    digest: str
    seen_in_training: bool
    scores_from: str
    guessed_answers: float
    mean_apgr: float | None
    mean_length_apgr: float | None
    lowest: str
    slices: Sequence[SliceFigures]
    three_tiers: Sequence[ThreeTiers]
    calibration: Sequence[Calibration]
    learning: Sequence[Learning]
    labels: Sequence[LabelAgreement]
    robustness: Sequence[Robustness]

    def of_kind(self, kind: Kind) -> list[SliceFigures]:
        """The slices of one kind."""
        return [part for part in self.slices if part.kind is kind]


def judge_items(judge: Judge, data: RoutingData) -> list[Verdict]:
    """What the judge says of every prompt, in order."""
    return [judge_text(judge, item.prompt) for item in data.items]


def evaluate(
    data: RoutingData,
    verdicts: Sequence[Verdict],
    judge: Judge,
    *,
    seen: bool,
    scores_from: str,
    resamples: int = 1_000,
) -> RoutingReport:
    """Measures everything; `verdicts` run along the items, `judge` is asked again for edited prompts only."""
    ranking = np.array([verdict.score for verdict in verdicts])
    lengths = np.array([len(item.prompt) for item in data.items], dtype=np.float64)
    slices = [
        measure_slice(part, ranking[part.places], lengths[part.places], resamples=resamples)
        for part in (*sources(data), *mixes(data), *subsets(data))
    ]
    main = [part for part in slices if part.kind is not Kind.SUBSET]
    return RoutingReport(
        prompts=len(data.items),
        outcomes=sum(int((~np.isnan(scores)).sum()) for scores in data.scores.values()),
        models=len(data.scores),
        digest=data.digest,
        seen_in_training=seen,
        scores_from=scores_from,
        guessed_answers=data.guessed_answers,
        mean_apgr=_mean(main, lambda part: part.apgr),
        mean_length_apgr=_mean(main, lambda part: part.length_apgr),
        lowest=_lowest(main),
        slices=slices,
        three_tiers=list(measure_triples(data, ranking, lengths)),
        calibration=measure_calibration(data, verdicts),
        learning=list(measure_learning(data, verdicts)),
        labels=list(filter(None, (_agreement(data, verdicts, column) for column in LABEL_COLUMNS))),
        robustness=measure_robustness(judge, _sample(data, lengths)),
    )


def _mean(parts: Sequence[SliceFigures], figure: Callable[[SliceFigures], float | None]) -> float | None:
    found = [value for value in map(figure, parts) if value is not None]
    return sum(found) / len(found) if found else None


def _lowest(parts: Sequence[SliceFigures]) -> str:
    known = [(part.apgr, part.name) for part in parts if part.apgr is not None]
    return min(known)[1] if known else ""


def _agreement(data: RoutingData, verdicts: Sequence[Verdict], column: str) -> LabelAgreement | None:
    pairs = [
        (item.labels[column], verdict.tier)
        for item, verdict in zip(data.items, verdicts, strict=True)
        if column in item.labels
    ]
    solved = [(label, tier) for label, tier in pairs if label in TIER_NAMES.values()]
    if not solved:
        return None
    right = sum(label == TIER_NAMES[tier] for label, tier in solved)
    most = max(sum(label == name for label, _ in solved) for name in TIER_NAMES.values())
    return LabelAgreement(column, len(solved), right / len(solved), most / len(solved), confusion(pairs))


def _sample(data: RoutingData, lengths: Floats) -> list[Prompt]:
    step = max(1, -(-len(lengths) // MOST_EDITED_PROMPTS))
    return [Prompt(item.prompt) for item in data.items[::step]]
