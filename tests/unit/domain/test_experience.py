from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.domain.experience import NO_EXPERIENCE, PRIOR_VERDICTS, Experience, Verdicts


def taught(total: float, weight: float) -> Experience:
    return Experience({"m": Verdicts(total, weight)})


def test_without_verdicts_the_expectation_stays() -> None:
    assert NO_EXPERIENCE.corrected("m", 0.7) == 0.7
    assert taught(0.0, 40.0).corrected("another", 0.7) == 0.7
    assert taught(0.0, 0.0).corrected("m", 0.7) == pytest.approx(0.7)


def test_as_many_verdicts_as_the_prior_is_worth_move_half_the_way() -> None:
    assert taught(0.0, PRIOR_VERDICTS).corrected("m", 0.8) == pytest.approx(0.4)
    assert taught(PRIOR_VERDICTS, PRIOR_VERDICTS).corrected("m", 0.8) == pytest.approx(0.9)


@examples(100)
@given(st.floats(0, 1), st.floats(0, 1), st.floats(0, 1e6))
def test_it_lies_between_the_expectation_and_the_mean_verdict(expected: float, mean: float, weight: float) -> None:
    corrected = taught(mean * weight, weight).corrected("m", expected)
    assert min(expected, mean) - 1e-9 <= corrected <= max(expected, mean) + 1e-9
