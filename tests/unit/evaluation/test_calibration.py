from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from pointsman_server.decision.quality import quality_at
from pointsman_server.domain.request import Tier
from pointsman_server.evaluation.calibration import (
    EVERYTHING,
    LABEL_COUNTS,
    Calibration,
    fit_quality,
    measure_calibration,
    measure_learning,
)
from pointsman_server.evaluation.folder import Item, RoutingData
from pointsman_server.evaluation.judging import Verdict

PROMPTS = 2_000
QUALITIES = {"weak": 0.35, "middling": 0.6, "strong": 0.85}


def verdicts(seed: int = 1) -> list[Verdict]:
    """Prompts of all difficulties, the score rising with the difficulty."""
    dice = random.Random(seed)
    difficulties = [dice.uniform(-3, 3) for _ in range(PROMPTS)]
    return [Verdict((one + 3) / 6, Tier.LIGHT, "", one, dice.uniform(0.3, 2.0)) for one in difficulties]


def recorded(said: list[Verdict], qualities: Mapping[str, float] = QUALITIES, sources: int = 2) -> RoutingData:
    """Outcomes by lot, with the chances that `quality_at` states."""
    dice = random.Random(2)
    items = [Item(f"i{place}", f"source {place % sources}", "", "", "weak", "strong", {}) for place in range(len(said))]
    scores = {
        model: np.array(
            [float(dice.random() < quality_at(quality, one.difficulty, one.discrimination)) for one in said]
        )
        for model, quality in qualities.items()
    }
    return RoutingData(items, scores["weak"], scores["strong"], scores, {}, 0.0, "")


SAID = verdicts()
DATA = recorded(SAID)


def errors(line: Calibration) -> tuple[float, ...]:
    return line.by_global_ability, line.by_source_ability, line.each_model, line.recalibrated


def test_probabilities_that_made_the_outcomes_come_true() -> None:
    lines = measure_calibration(DATA, SAID)
    assert [(line.source, line.models, line.outcomes) for line in lines] == [
        (EVERYTHING, 3, 6_000),
        ("source 0", 3, 3_000),
        ("source 1", 3, 3_000),
    ]
    assert max(errors(lines[0])) < 0.03
    assert max(lines[0].by_global_ability, lines[0].by_source_ability) < 0.02
    for line in lines:
        assert line.each_model >= line.by_source_ability  # errors of models can make good each other only together


def test_without_difficulties_every_prompt_is_stated_alike() -> None:
    """The mean is right, so one bin is; the models' errors are small and say nothing of use."""
    flat = [replace(one, difficulty=0.0, discrimination=1.0) for one in SAID]
    assert measure_calibration(DATA, flat)[0].by_global_ability < 0.03


def test_difficulties_that_mislead_are_told() -> None:
    wrong = [replace(one, difficulty=-one.difficulty) for one in SAID]
    line = measure_calibration(DATA, wrong)[0]
    assert min(line.by_global_ability, line.by_source_ability, line.each_model) > 0.15
    assert line.recalibrated < 0.03  # the score still tells


def test_a_source_of_its_own_kind_needs_an_ability_of_its_own() -> None:
    """On the second source everything is two logits harder than it is judged to be."""
    harder = [replace(one, difficulty=one.difficulty + 2.0 * (place % 2)) for place, one in enumerate(SAID)]
    whole, first, second = measure_calibration(recorded(harder), SAID)
    assert whole.by_source_ability < 0.03
    for line in (first, second):
        assert line.by_source_ability < 0.04 < 0.12 < line.by_global_ability


def test_nothing_is_measured_on_the_half_it_was_learned_on() -> None:
    """The halves contradict each other, so what either teaches is wrong of the other."""
    halves = np.array(DATA.first_half, dtype=np.float64)
    data = replace(DATA, scores={"only": halves})
    (line,) = measure_calibration(replace(data, items=[replace(one, source="s") for one in data.items]), SAID)[1:]
    assert min(errors(line)) > 0.8


def test_models_without_prompts_in_both_halves_are_left_out() -> None:
    half = np.array(DATA.first_half)
    scores = {**DATA.scores, "half": np.where(half, 1.0, np.nan)}
    assert measure_calibration(replace(DATA, scores=scores), SAID) == measure_calibration(DATA, SAID)
    assert measure_calibration(replace(DATA, scores={"half": scores["half"]}), SAID) == []


@pytest.mark.parametrize("quality", [0.1, 0.5, 0.9])
def test_the_ability_is_such_that_the_means_agree(quality: float) -> None:
    difficulties = np.array([one.difficulty for one in SAID])
    discriminations = np.array([one.discrimination for one in SAID])
    stated = np.array([quality_at(quality, one.difficulty, one.discrimination) for one in SAID])
    assert fit_quality(stated, difficulties, discriminations) == pytest.approx(quality, abs=1e-6)


@pytest.mark.parametrize("outcome", [0.0, 1.0])
def test_outcomes_that_are_all_the_same_have_an_ability_too(outcome: float) -> None:
    same = fit_quality(np.full(10, outcome), np.zeros(10), np.ones(10))
    assert same == pytest.approx(outcome, abs=0.0011)


def test_labels_repair_what_is_judged_wrongly() -> None:
    wrong = [replace(one, difficulty=-one.difficulty) for one in SAID]
    data = replace(DATA, items=[replace(one, source="s") for one in DATA.items])
    lines = list(measure_learning(data, wrong))
    assert [(line.labels, line.cases) for line in lines] == [(labels, 3) for labels in LABEL_COUNTS]
    assert lines[0].error > 0.15 > 0.08 > lines[-1].error


def test_without_enough_outcomes_nothing_is_told_of_labels() -> None:
    assert list(measure_learning(recorded(SAID[:900], sources=1), SAID[:900])) == []
