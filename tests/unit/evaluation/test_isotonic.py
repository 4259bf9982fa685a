from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.evaluation.isotonic import PRIOR_LABELS, Sample, fit_falling, fit_leaning

SAMPLES = st.lists(
    st.builds(Sample, st.floats(0, 1), st.sampled_from([0.0, 0.5, 1.0]), st.floats(0.1, 3)), min_size=1, max_size=40
)


def test_violators_are_pooled_by_hand() -> None:
    # 1, then 0 and 1 violate each other, then 0.
    fitted = fit_falling([Sample(0.1, 1.0), Sample(0.4, 0.0), Sample(0.6, 1.0), Sample(0.9, 0.0)])
    assert fitted.points == ((0.1, 1.0), (0.5, 0.5), (0.9, 0.0))
    assert fitted.at(0.0) == 1.0
    assert fitted.at(0.3) == pytest.approx(0.75)
    assert fitted.at(1.0) == 0.0


def test_equal_scores_are_one_place() -> None:
    assert fit_falling([Sample(0.5, 1.0), Sample(0.5, 0.0)]).points == ((0.5, 0.5),)


def test_a_rising_truth_becomes_one_level() -> None:
    assert fit_falling([Sample(0.2, 0.0), Sample(0.8, 1.0)]).points == ((0.5, 0.5),)


def test_what_was_expected_weighs_as_many_outcomes_as_it_says() -> None:
    samples = [Sample(0.5, 1.0)] * int(PRIOR_LABELS)
    assert fit_leaning(samples, [(0.5, 0.0)]).at(0.5) == pytest.approx(0.5)


@given(SAMPLES, st.floats(0, 1), st.floats(0, 1))
def test_a_map_never_rises_and_stays_among_the_outcomes(samples: list[Sample], one: float, other: float) -> None:
    fitted = fit_falling(samples)
    low, high = sorted((one, other))
    assert fitted.at(low) >= fitted.at(high) - 1e-6
    outcomes = [sample.outcome for sample in samples]
    assert min(outcomes) - 1e-6 <= fitted.at(one) <= max(outcomes) + 1e-6
