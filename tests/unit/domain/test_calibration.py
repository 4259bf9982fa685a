from __future__ import annotations

import pytest

from pointsman_server.domain.calibration import ANY_TASK, Calibrated, FallingMap

FALLS = FallingMap(((0.2, 0.9), (0.6, 0.5)))


@pytest.mark.parametrize(
    ("score", "probability"), [(0.0, 0.9), (0.2, 0.9), (0.3, 0.8), (0.6, 0.5), (0.7, 0.5), (1.0, 0.5)]
)
def test_a_map_is_straight_between_its_points_and_level_outside(score: float, probability: float) -> None:
    assert FALLS.at(score) == pytest.approx(probability)


def test_one_point_is_level_everywhere() -> None:
    assert {FallingMap(((0.5, 0.7),)).at(score) for score in (0.0, 0.5, 1.0)} == {0.7}


def test_the_map_of_the_task_goes_before_that_of_all() -> None:
    other = FallingMap(((0.5, 0.1),))
    both = Calibrated({ANY_TASK: FALLS, "code": other}, 0.0)
    assert (both.map_for("code"), both.map_for("chat")) == (other, FALLS)
    assert Calibrated({"code": other}, 0.0).map_for("chat") is None
