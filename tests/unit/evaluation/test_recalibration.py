from __future__ import annotations

import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from kit.judges import judge_by_length
from pointsman_server.decision.judge import SUCCESS_BY_TIER
from pointsman_server.decision.quality import log_odds
from pointsman_server.domain.calibration import ANY_TASK
from pointsman_server.domain.request import Tier
from pointsman_server.evaluation.calibration_file import FORMAT, recalibrate
from pointsman_server.evaluation.gain import Advice
from pointsman_server.evaluation.outcomes import Outcome, read_outcomes
from pointsman_server.evaluation.problems import DataError
from pointsman_server.evaluation.recalibration import (
    cross_validate,
    fit_maps,
    fold_of,
    maps_by_fold,
    scope_of,
)
from pointsman_server.evaluation.response import TYPICAL_SLOPE, bent, fit_response

COSTS = {Tier.LIGHT: 100.0, Tier.STANDARD: 400.0, Tier.ADVANCED: 2_000.0}


def tenant(
    count: int, *, telling: bool, seed: int = 1, panel: bool = False, tasks: Sequence[str] = ("code",)
) -> list[Outcome]:
    """Requests answered by tiers drawn by lot, or by all; with a `telling` score it decides who is right."""
    dice = random.Random(seed)
    found = []
    for number in range(count):
        score, hardness = dice.random(), dice.random()
        hardness = score if telling else hardness
        for tier in Tier if panel else (Tier(dice.randint(1, 3)),):
            right = float(hardness < 0.33 * tier or dice.random() < 0.1)
            task = tasks[number % len(tasks)]
            found.append(Outcome(str(number), score, task, tier, right, f"model-{tier}", COSTS[tier]))
    return found


def test_the_response_model_finds_what_made_the_outcomes() -> None:
    model = fit_response(tenant(2_000, telling=True, tasks=("code", "chat")))
    assert model.strengths[Tier.LIGHT] < model.strengths[Tier.STANDARD] < model.strengths[Tier.ADVANCED]
    assert model.slope > 3
    assert abs(model.eases["code"] - model.eases["chat"]) < 0.5
    assert model.probability("unknown", Tier.LIGHT, 0.1) > model.probability("unknown", Tier.LIGHT, 0.9)


def test_without_difficulty_a_quality_is_bent_by_the_typical_slope() -> None:
    assert bent(0.7, 0.5) == pytest.approx(0.7)
    assert bent(0.5, 0.3) == pytest.approx(1 / (1 + math.exp(-0.2 * TYPICAL_SLOPE)))
    assert bent(0.5, 0.7) == pytest.approx(1 - bent(0.5, 0.3))


def test_the_typical_slope_is_that_of_the_judges_own_table() -> None:
    for easy, _, hard in SUCCESS_BY_TIER:
        lost = log_odds(easy) - log_odds(hard)
        assert abs(TYPICAL_SLOPE - lost * 3 / 2) < 0.5


def test_a_score_that_misleads_gets_no_slope() -> None:
    rising = [Outcome(str(number), number / 200, "", Tier.LIGHT, float(number > 100)) for number in range(200)]
    assert fit_response(rising).slope == 0.0


def test_maps_fall_back_to_all_tasks() -> None:
    outcomes = tenant(300, telling=True) + tenant(10, telling=True, seed=2, tasks=("rare",))
    maps = fit_maps(outcomes, scope_of(outcomes))
    assert maps.tiers == (Tier.LIGHT, Tier.STANDARD, Tier.ADVANCED)
    assert {task for task, _ in maps.maps} == {ANY_TASK, "code"}
    assert maps.probability("rare", Tier.LIGHT, 0.5) == maps.probability("never seen", Tier.LIGHT, 0.5)
    assert maps.probability("code", Tier.LIGHT, 0.1) > 0.7 > 0.4 > maps.probability("code", Tier.LIGHT, 0.9)


def test_too_few_outcomes_make_no_map() -> None:
    few = tenant(12, telling=True)
    assert fit_maps(few, scope_of(few)).maps == {}
    assert cross_validate(few, maps_by_fold(few)) is None
    assert recalibrate(few, kept=0.95, judge="rules").gains == []


def test_a_request_is_in_one_fold_with_all_its_outcomes() -> None:
    outcomes = tenant(50, telling=True, panel=True)
    assert len({(outcome.request, fold_of(outcome)) for outcome in outcomes}) == 50
    assert len({fold_of(outcome) for outcome in outcomes}) == 5


def test_a_hundred_labels_already_help() -> None:
    outcomes = tenant(100, telling=True)
    errors = cross_validate(outcomes, maps_by_fold(outcomes))
    assert errors is not None
    assert errors.brier_after < errors.brier_before


def test_routing_is_advised_where_the_score_tells() -> None:
    whole = recalibrate(tenant(1_500, telling=True), kept=0.95, judge="rules").gains[0]
    assert whole.advice is Advice.ROUTE
    assert 0.01 < whole.low < whole.gain < whole.high
    assert whole.saved == pytest.approx(whole.blind_saved + whole.gain)
    assert whole.quality == pytest.approx(0.95 * whole.best_quality, abs=0.05)


def test_one_tier_is_advised_where_the_score_tells_nothing() -> None:
    gains = recalibrate(tenant(1_500, telling=False), kept=0.95, judge="rules").gains
    assert {line.advice for line in gains} == {Advice.ONE_TIER}
    assert gains[0].tier is Tier.ADVANCED


def test_the_single_tier_is_the_cheapest_that_keeps_the_quality() -> None:
    equal = [Outcome(str(number), 0.5, "", tier, 1.0, "", COSTS[tier]) for number in range(50) for tier in Tier]
    whole = recalibrate(equal, kept=0.95, judge="rules").gains[0]
    assert (whole.advice, whole.tier) == (Advice.ONE_TIER, Tier.LIGHT)


def test_tiers_that_were_never_tried_on_hard_requests_cannot_be_weighed() -> None:
    """As a router leaves it behind: easy requests light, hard ones advanced. Both were right, so light looks good."""
    dice = random.Random(4)
    found = []
    for number in range(600):
        score = dice.random()
        tier = Tier.LIGHT if score < 0.4 else Tier.ADVANCED
        found.append(Outcome(str(number), score, "", tier, float(dice.random() < 0.9), "", COSTS[tier]))
    whole = recalibrate(found, kept=0.95, judge="rules").gains[0]
    assert whole.supported < 0.9
    assert whole.advice is Advice.TRY_MORE


@pytest.mark.parametrize("tiers", [(Tier.LIGHT,), (Tier.LIGHT, Tier.STANDARD)])
def test_without_two_tiers_or_costs_nothing_is_compared(tiers: tuple[Tier, ...]) -> None:
    found = [Outcome(f"{tier}{n}", n / 60, "", tier, 1.0) for tier in tiers for n in range(60)]
    assert recalibrate(found, kept=0.95, judge="rules").gains == []


def test_the_file_holds_everything_and_is_the_same_every_time(tmp_path: Path) -> None:
    outcomes = tenant(300, telling=True, tasks=("code", "chat"))
    for name in ("one", "two"):
        recalibrate(outcomes, kept=0.9, judge="learned:abc").write(tmp_path / name)
    content = json.loads((tmp_path / "one").read_bytes())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (content["format"], content["judge"], content["kept_quality"]) == (FORMAT, "learned:abc", 0.9)
    assert [(line["task"], line["tier"]) for line in content["maps"]][:4] == [
        ("", "light"),
        ("", "standard"),
        ("", "advanced"),
        ("chat", "light"),
    ]
    for line in content["maps"]:
        probabilities = [probability for _, probability in line["points"]]
        assert probabilities == sorted(probabilities, reverse=True)
    assert {line["advice"] for line in content["gains"]} <= {"route", "one_tier", "try_more"}
    assert [line["model"] for line in content["models"]] == ["model-1", "model-2", "model-3"]


def test_outcomes_are_read_from_csv_and_json_lines(tmp_path: Path) -> None:
    (tmp_path / "o.csv").write_text(
        "request_id,score,task,tier,model,outcome,cost_micro_usd\nr1,0.3,Code,light,m,1,120\n,0.4,,complex,,0.5,\n"
    )
    (tmp_path / "o.jsonl").write_text(
        json.dumps({"prompt": "x" * 100, "tier": "standard", "outcome": True})
        + "\n\n"
        + json.dumps({"prompt": "x" * 100, "tier": "light", "outcome": 0, "task": "chat", "score": 0.9})
    )
    assert read_outcomes(tmp_path / "o.csv", judge_by_length) == [
        Outcome("r1", 0.3, "code", Tier.LIGHT, 1.0, "m", 120.0),
        Outcome("line 3", 0.4, "", Tier.ADVANCED, 0.5),
    ]
    first, second = read_outcomes(tmp_path / "o.jsonl", judge_by_length)
    assert (first.score, first.task, first.tier) == (0.4, "chat", Tier.STANDARD)
    assert (second.score, second.request) == (0.9, first.request)


@pytest.mark.parametrize(
    "row",
    [
        {"score": 0.5, "outcome": 1},
        {"score": 0.5, "tier": "huge", "outcome": 1},
        {"score": 1.5, "tier": "light", "outcome": 1},
        {"score": 0.5, "tier": "light", "outcome": 2},
        {"score": 0.5, "tier": "light", "outcome": "nan"},
        {"score": 0.5, "tier": "light", "outcome": 1, "cost_micro_usd": -1},
        {"tier": "light", "outcome": 1},
        {"prompt": "a secret", "outcome": 1},
        [1],
    ],
)
def test_a_wrong_outcome_is_named_without_its_prompt(tmp_path: Path, row: object) -> None:
    (tmp_path / "o.jsonl").write_text(json.dumps(row))
    with pytest.raises(DataError, match="line 1: needs `tier`") as caught:
        read_outcomes(tmp_path / "o.jsonl", judge_by_length)
    assert "secret" not in str(caught.value)


def test_files_that_hold_no_outcomes_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("tier,outcome\n")
    (tmp_path / "text.jsonl").write_text("hello\n")
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe")
    for name, message in (("empty.csv", "no outcomes"), ("text.jsonl", "is not a JSON"), ("bytes.csv", "UTF-8")):
        with pytest.raises(DataError, match=message):
            read_outcomes(tmp_path / name, judge_by_length)
