from __future__ import annotations

import random

import numpy as np
import pytest

from pointsman_server.domain.request import Tier
from pointsman_server.evaluation.folder import Item, RoutingData
from pointsman_server.evaluation.judging import Verdict
from pointsman_server.evaluation.trust import LEAST_ANSWERS, MISJUDGED_LOG_ODDS, measure_confidence

PROMPTS = 1_200
QUALITY = 0.7


def recorded(qualities: dict[str, float], prompts: int = PROMPTS) -> tuple[RoutingData, list[Verdict]]:
    """Outcomes of models that get this share of all prompts right, whatever they are about."""
    chance = random.Random(1)
    items = [Item(f"exam:{number}", "exam", "all", str(number), "m", "m", {}) for number in range(prompts)]
    scores = {
        name: np.array([float(chance.random() < quality) for _ in range(prompts)])
        for name, quality in qualities.items()
    }
    first = next(iter(scores.values()))
    said = [Verdict(0.5, Tier.STANDARD, "chat") for _ in range(prompts)]
    return RoutingData(items, first, first, scores, {}, 0.0, ""), said


def test_a_policy_that_is_right_needs_no_verdicts() -> None:
    data, said = recorded({"m": QUALITY})
    right = measure_confidence(data, said)[0]
    assert (right.misjudged_log_odds, right.models) == (0.0, 1)
    assert right.unjudged < 0.06
    assert right.answers == sum(not half for half in data.first_half)


@pytest.mark.parametrize("place", [1, 2])
def test_verdicts_put_right_a_policy_that_is_wrong(place: int) -> None:
    wrong = measure_confidence(*recorded({"m": QUALITY}))[place]
    assert wrong.misjudged_log_odds == MISJUDGED_LOG_ODDS[place]
    assert wrong.unjudged > 0.12
    assert wrong.judged < wrong.unjudged / 2


def test_each_models_own_error_is_told() -> None:
    found = measure_confidence(*recorded({"weak": 0.3, "strong": 0.9}))[0]
    assert found.models == 2
    assert 0.0 < found.each_model < 0.1


def test_models_with_few_outcomes_are_left_out() -> None:
    data, said = recorded({"m": QUALITY, "rare": 0.5})
    rare = data.scores["rare"]
    rare[LEAST_ANSWERS:] = np.nan
    assert measure_confidence(data, said)[0].models == 1


def test_it_is_the_same_every_time() -> None:
    assert measure_confidence(*recorded({"m": QUALITY})) == measure_confidence(*recorded({"m": QUALITY}))
