from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import judged, model
from kit.properties import examples
from pointsman_server.decision.quality import expected_quality, log_odds, quality_at
from pointsman_server.domain.calibration import ANY_TASK, Calibrated, FallingMap
from pointsman_server.domain.catalog import Model
from pointsman_server.domain.experience import NO_EXPERIENCE, Experience, Verdicts
from pointsman_server.domain.plan import TaskType

shares, difficulties, discriminations = st.floats(0, 1), st.floats(-8, 8), st.floats(0, 4)


def test_at_a_middling_request_it_is_the_models_own() -> None:
    for quality in (0.2, 0.5, 0.9):
        assert quality_at(quality, 0.0, 1.0) == pytest.approx(quality)


def test_it_falls_with_the_difficulty() -> None:
    # The ability of a model of quality 0.8 is ln 4, about 1.386.
    assert quality_at(0.8, 1.386294, 1.0) == pytest.approx(0.5, abs=1e-5)
    assert quality_at(0.8, 3.386294, 1.0) == pytest.approx(0.11920, abs=1e-5)
    assert quality_at(0.8, -0.613706, 1.0) == pytest.approx(0.88080, abs=1e-5)


def test_where_nothing_tells_models_apart_all_are_equal() -> None:
    assert quality_at(0.1, 2.0, 0.0) == quality_at(0.9, 2.0, 0.0) == 0.5


@examples(200)
@given(shares, difficulties, discriminations, shares, difficulties)
def test_it_is_a_probability_that_rises_with_quality_and_falls_with_difficulty(
    quality: float, difficulty: float, discrimination: float, other: float, harder: float
) -> None:
    at = quality_at(quality, difficulty, discrimination)
    assert 0.0 <= at <= 1.0
    assert quality_at(quality, max(difficulty, harder), discrimination) <= at + 1e-12
    assert quality_at(max(quality, other), difficulty, discrimination) >= at - 1e-12


def test_verdicts_correct_it() -> None:
    one = model("m", quality=0.5)
    assert expected_quality(one, judged(), NO_EXPERIENCE) == pytest.approx(0.5)
    assert expected_quality(one, judged(), Experience({"m": Verdicts(20.0, 20.0)})) == pytest.approx(0.75)
    assert expected_quality(one, judged(), Experience({"n": Verdicts(20.0, 20.0)})) == pytest.approx(0.5)


MAPS = {ANY_TASK: FallingMap(((0.2, 0.9), (0.8, 0.3))), "code": FallingMap(((0.5, 0.8),))}


def calibrated(above_tier: float = 0.0, maps: dict[str, FallingMap] = MAPS) -> Model:
    return model("m", quality=0.5, calibrated=Calibrated(maps, above_tier))


class TestCalibrated:
    @pytest.mark.parametrize(
        ("task", "score", "quality"),
        [
            (TaskType.CODE, 0.1, 0.8),
            (TaskType.CODE, 0.9, 0.8),
            (TaskType.CHAT, 0.1, 0.9),
            (TaskType.CHAT, 0.5, 0.6),
            (TaskType.CHAT, 0.9, 0.3),
        ],
    )
    def test_the_mean_model_of_the_tier_is_as_good_as_the_map_says(
        self, task: TaskType, score: float, quality: float
    ) -> None:
        asked = judged(task=task, score=score, difficulty=3.0, discrimination=2.0)
        assert expected_quality(calibrated(), asked, NO_EXPERIENCE) == pytest.approx(quality)

    def test_another_model_is_off_by_its_distance_times_the_discrimination(self) -> None:
        asked = judged(task=TaskType.CODE, discrimination=2.0)
        better = expected_quality(calibrated(0.5), asked, NO_EXPERIENCE)
        assert log_odds(better) == pytest.approx(log_odds(0.8) + 1.0)
        assert expected_quality(calibrated(-0.5), asked, NO_EXPERIENCE) < 0.8 < better

    def test_without_a_map_for_the_task_nothing_changes(self) -> None:
        asked = judged(task=TaskType.CHAT, difficulty=1.0)
        only_code = calibrated(0.5, {"code": MAPS["code"]})
        assert expected_quality(only_code, asked, NO_EXPERIENCE) == quality_at(0.5, 1.0, 1.0)

    def test_certainty_is_not_taken_at_its_word(self) -> None:
        sure = calibrated(0.0, {ANY_TASK: FallingMap(((0.1, 1.0), (0.2, 0.0)))})
        assert expected_quality(sure, judged(score=0.0), NO_EXPERIENCE) == pytest.approx(0.999)
        assert expected_quality(sure, judged(score=1.0), NO_EXPERIENCE) == pytest.approx(0.001)

    def test_verdicts_correct_it_too(self) -> None:
        asked = judged(task=TaskType.CODE)
        assert expected_quality(calibrated(), asked, Experience({"m": Verdicts(0.0, 20.0)})) == pytest.approx(0.4)
