from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.evaluation.figures import (
    blind_mix_cost,
    expected_calibration_error,
    mean_ranks,
    rank_correlation,
    wilson_interval,
)


def test_equal_values_share_their_ranks() -> None:
    assert mean_ranks([3.0, 1.0, 3.0, 2.0]) == [3.5, 1.0, 3.5, 2.0]


def test_rank_correlation_sees_the_order_alone() -> None:
    assert rank_correlation([1, 2, 3], [10, 100, 1000]) == pytest.approx(1.0)
    assert rank_correlation([1, 2, 3], [3, 2, 1]) == pytest.approx(-1.0)
    assert rank_correlation([1, 2, 3], [5, 5, 5]) is None


def test_wilson_interval_of_the_textbook() -> None:
    assert wilson_interval(147, 150) == pytest.approx((0.9428, 0.9932), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_calibration_error_by_hand() -> None:
    # Two bins: stated 0.2 and true 0.5 on two, stated 0.9 and true 1 on one.
    assert expected_calibration_error([0.2, 0.2, 0.9], [0.0, 1.0, 1.0]) == pytest.approx((2 * 0.3 + 0.1) / 3)
    assert expected_calibration_error([1.0, 0.0], [1.0, 0.0]) == 0.0


def test_blind_mix_by_hand() -> None:
    qualities, costs = [0.6, 0.8, 1.0], [1.0, 2.0, 10.0]
    assert blind_mix_cost(qualities, costs, 0.7) == pytest.approx(1.5)
    assert blind_mix_cost(qualities, costs, 0.9) == pytest.approx(6.0)
    assert blind_mix_cost(qualities, costs, 0.5) == 1.0
    assert blind_mix_cost(qualities, costs, 1.1) is None


def test_a_model_off_the_hull_is_not_used() -> None:
    # The middle model costs more than the lot between the others at its quality.
    assert blind_mix_cost([0.6, 0.8, 1.0], [1.0, 9.0, 10.0], 0.8) == pytest.approx(5.5)


MODELS = st.lists(st.tuples(st.floats(0.1, 1.0), st.floats(0.1, 50.0)), min_size=1, max_size=4)


@given(MODELS, st.floats(0.0, 1.0))
def test_the_mix_is_never_dearer_than_a_single_model_that_is_good_enough(
    models: list[tuple[float, float]], wanted: float
) -> None:
    mixed = blind_mix_cost([quality for quality, _ in models], [cost for _, cost in models], wanted)
    singles = [cost for quality, cost in models if quality >= wanted]
    if singles:
        assert mixed is not None
        assert mixed <= min(singles) + 1e-9
        assert mixed >= min(cost for _, cost in models) - 1e-9
    else:
        assert mixed is None or max(quality for quality, _ in models) >= wanted - 1e-9
