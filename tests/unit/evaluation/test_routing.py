from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kit.judges import judge_by_length, judge_nothing
from kit.routing_folder import PRICES, STRONG, WEAK, Prompt, varied_prompts, write_folder
from pointsman_server.evaluation.calibration import EVERYTHING
from pointsman_server.evaluation.folder import RoutingData, read_folder
from pointsman_server.evaluation.judging import Judge
from pointsman_server.evaluation.plot import draw_curves
from pointsman_server.evaluation.report import write_report
from pointsman_server.evaluation.routing import RoutingReport, evaluate, judge_items
from pointsman_server.evaluation.slices import Kind

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "routing"


def measure(data: RoutingData, judge: Judge, seen: bool = False, scores_from: str = "") -> RoutingReport:
    return evaluate(data, judge_items(judge, data), judge, seen=seen, scores_from=scores_from, resamples=60)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> RoutingData:
    prompts = [*varied_prompts(120), *varied_prompts(60, "bar | exam")]
    return read_folder(write_folder(tmp_path_factory.mktemp("folder"), prompts))


@pytest.fixture(scope="module")
def report(data: RoutingData) -> RoutingReport:
    return measure(data, judge_by_length)


def test_slices_are_sources_mixes_and_subsets(report: RoutingReport) -> None:
    assert [(part.kind, part.name, part.prompts) for part in report.slices] == [
        (Kind.SOURCE, "exam", 120),
        (Kind.SOURCE, "bar | exam", 60),
        (Kind.MIX, "claude-3-haiku / claude-3.5-sonnet", 180),
        (Kind.SUBSET, "exam: part 0", 60),
        (Kind.SUBSET, "exam: part 1", 60),
    ]


def test_a_judge_that_knows_beats_the_lot_and_the_oracle_beats_it(report: RoutingReport) -> None:
    exam = report.slices[0]
    assert exam.apgr is not None
    assert exam.oracle_apgr is not None
    assert 0.6 < exam.apgr <= exam.oracle_apgr
    assert exam.apgr == pytest.approx(exam.length_apgr)  # this judge goes by length
    assert exam.apgr_interval is not None
    assert exam.apgr_interval.low < exam.apgr < exam.apgr_interval.high
    assert exam.saved is not None
    assert exam.blind_saved is not None
    assert exam.saved > exam.blind_saved


def test_a_judge_that_says_nothing_is_the_lot(data: RoutingData) -> None:
    report = measure(data, judge_nothing)
    assert report.mean_apgr == pytest.approx(0.5)
    for part in report.slices:
        assert part.cpt50 == pytest.approx(0.5)
        assert part.cpt80 == pytest.approx(0.8)
        assert part.saved == pytest.approx(part.blind_saved)
    routed = [line for line in report.three_tiers if line.chosen_by == "router"]
    assert all(line.saved <= (line.blind_saved or 0.0) + 1e-9 for line in routed)


def test_curves_run_from_all_weak_to_all_strong(report: RoutingReport) -> None:
    for part in report.slices:
        first, last = part.curve[0], part.curve[-1]
        assert (first.share, last.share, last.quality, last.cost) == (0.0, 1.0, 1.0, 1.0)
        assert first.quality == pytest.approx(part.weak_quality / part.strong_quality, abs=1e-4)


def test_three_models_save_more_than_the_lot(report: RoutingReport) -> None:
    lines = [line for line in report.three_tiers if line.chosen_by == "router"]
    assert [line.kept_target for line in lines] == [0.95, 0.96, 0.97, 0.98]
    for line in lines:
        assert line.prompts == 180
        assert line.blind_saved is not None
        assert line.saved > line.blind_saved
        assert line.adequate > 0.9


def test_calibration_is_told_for_all_sources_and_for_each(report: RoutingReport) -> None:
    assert [(line.source, line.models, line.outcomes) for line in report.calibration] == [
        (EVERYTHING, 3, 540),
        ("exam", 3, 360),
        ("bar | exam", 3, 180),
    ]
    text = write_report(report, "command")
    assert f"| **{EVERYTHING}** | 3 | 540 | {report.calibration[0].by_global_ability:.3f} |" in text


def test_labels_and_unsolved_ones_are_told_apart(report: RoutingReport) -> None:
    (agreement,) = report.labels
    assert agreement.label == "tier_claude35"
    assert agreement.confusion["complex"]["complex"] > 50
    assert sum(agreement.confusion["unsolved"].values()) == 180 - agreement.prompts
    assert agreement.right > agreement.majority


def test_without_prices_money_is_not_told(tmp_path: Path) -> None:
    prices = {STRONG: PRICES[STRONG]}
    report = measure(read_folder(write_folder(tmp_path, varied_prompts(60), prices)), judge_by_length)
    part = report.slices[0]
    assert (part.saved, part.blind_saved, part.curve[0].cost) == (None, None, None)
    assert part.apgr is not None
    assert report.three_tiers == []
    assert "no family of three priced models" in write_report(report, "command")
    assert ">sent to the strong model</text>" in draw_curves([part])


def test_without_a_gap_figures_are_undefined(tmp_path: Path) -> None:
    report = measure(read_folder(write_folder(tmp_path, [Prompt("What?", 0)] * 60)), judge_by_length)
    assert (report.mean_apgr, report.slices[0].apgr, report.slices[0].cpt50, report.lowest) == (None, None, None, "")
    assert "| exam | 60 | 1.000 → 1.000 | - | - / - |" in write_report(report, "command")
    assert "no gap to recover" in draw_curves(report.slices)


def test_a_single_prompt_is_enough_to_run(tmp_path: Path) -> None:
    report = measure(read_folder(write_folder(tmp_path, [Prompt("What?", 2)])), judge_by_length)
    assert write_report(report, "command")


def test_the_report_shows_the_figures_and_its_command(report: RoutingReport) -> None:
    text = write_report(report, "pointsman evaluate routing folder")
    assert "Written by `pointsman evaluate routing folder`" in text
    exam = report.slices[0]
    assert f"| exam | 120 | {exam.weak_quality:.3f} → {exam.strong_quality:.3f} | {exam.apgr:.3f} [" in text
    assert "| bar / exam |" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 120


@pytest.mark.parametrize(
    ("seen", "scores_from", "words"),
    [
        (True, "", "These figures are not held out."),
        (False, "", "does not name this file of prompts"),
        (True, "scores.csv", "The scores were read from a file"),
    ],
)
def test_the_report_says_what_was_seen(report: RoutingReport, seen: bool, scores_from: str, words: str) -> None:
    text = write_report(replace(report, seen_in_training=seen, scores_from=scores_from), "command")
    assert words in " ".join(text.split())


def test_the_plot_is_sound_and_has_a_panel_for_each_slice(report: RoutingReport) -> None:
    drawn = draw_curves(report.slices)
    root = ElementTree.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    assert len(root.findall(f"{space}g")) == len(report.slices)
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for group in root.findall(f"{space}g"):
        left, top = map(float, group.attrib["transform"].removeprefix("translate(").removesuffix(")").split(","))
        for line in group.findall(f"{space}polyline"):
            for point in line.attrib["points"].split():
                along, down = map(float, point.split(","))
                assert 0 <= left + along <= width
                assert 0 <= top + down <= height


@pytest.mark.slow
def test_the_shared_outcomes_are_read_as_they_are_described() -> None:
    if not SHARED.exists():
        pytest.skip("recorded outcomes are absent: ../shared/data/routing (seen from the project root)")
    data = read_folder(SHARED)
    assert len(data.items) == 23_376
    assert sum(int((~np.isnan(scores)).sum()) for scores in data.scores.values()) == 376_751
    described = {
        "mmlu": (0.630, 0.771),
        "mmlu_pro": (0.436, 0.710),
        "llmrouter11": (0.387, 0.619),
        "crux_eval": (0.583, 0.846),
        "gsm8k": (0.622, 0.835),
        "math_l5": (0.122, 0.578),
    }
    for source, means in described.items():
        places = [place for place, item in enumerate(data.items) if item.source == source]
        pair = data.canonical(places)
        assert (pair.weak.mean(), pair.strong.mean()) == pytest.approx(means, abs=6e-4)
        first = data.items[places[0]]
        again = data.pair(first.weak_model, first.strong_model, places)
        assert np.allclose(pair.weak, again.weak, atol=1e-6)
        assert np.allclose(pair.strong, again.strong, atol=1e-6)
    assert len(data.places_with((WEAK, STRONG))) == 557 + 527 + 493
