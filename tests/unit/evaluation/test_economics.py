from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.evaluation.economics import Outcomes, choose_across, fix_thresholds, oracle_choices, weigh

COSTS = (1.0, 3.0, 10.0)


def outcomes_of(needs: list[int]) -> Outcomes:
    """Three models of which those from `needs` on are right, at fixed costs."""
    quality = np.array([[float(need <= strength) for need in needs] for strength in range(3)])
    return Outcomes(quality, np.repeat(np.array(COSTS)[:, None], len(needs), axis=1))


NEEDS = [0, 0, 1, 1, 2, 2]
SCORES = np.array([0.1, 0.2, 0.4, 0.5, 0.7, 0.8])


def test_thresholds_stand_where_the_models_begin_to_fail() -> None:
    outcomes = outcomes_of(NEEDS)
    chosen = fix_thresholds(SCORES, outcomes, 1.0).choose(SCORES)
    assert chosen.tolist() == [0, 0, 1, 1, 2, 2]
    line = weigh("t", "router", 1.0, outcomes, chosen)
    assert (line.quality, line.adequate) == (1.0, 1.0)
    assert line.saved == pytest.approx(1 - (2 * 1 + 2 * 3 + 2 * 10) / 60)
    assert line.blind_saved == pytest.approx(0.0)
    assert line.shares == pytest.approx((1 / 3, 1 / 3, 1 / 3))


def test_less_quality_is_cheaper() -> None:
    outcomes = outcomes_of(NEEDS)
    chosen = fix_thresholds(SCORES, outcomes, 0.8).choose(SCORES)
    assert outcomes.quality[chosen, range(6)].sum() == 5
    assert outcomes.cost[chosen, range(6)].sum() == 21  # one of the hard ones goes to the standard model


def test_the_oracle_takes_the_cheapest_that_is_as_good_as_the_strongest() -> None:
    assert oracle_choices(outcomes_of([0, 1, 2, 3])).tolist() == [0, 1, 2, 0]


def test_each_half_goes_by_thresholds_of_the_other() -> None:
    outcomes = outcomes_of(NEEDS * 20)
    half = np.arange(120) % 2 == 0
    scores = np.tile(SCORES, 20)
    chosen = choose_across(scores, outcomes, half, 1.0)
    # Each half has one prompt of each kind, so the other's thresholds can stand anywhere between; quality still holds.
    assert weigh("t", "router", 1.0, outcomes, chosen).quality >= 5 / 6


@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.3, 0.5, 0.9]), st.integers(0, 3)), min_size=1, max_size=25),
    st.floats(0.5, 1.0),
)
def test_thresholds_keep_what_they_were_fixed_for(prompts: list[tuple[float, int]], kept: float) -> None:
    scores, outcomes = np.array([score for score, _ in prompts]), outcomes_of([need for _, need in prompts])
    chosen = fix_thresholds(scores, outcomes, kept).choose(scores)
    reached = outcomes.quality[chosen, range(len(prompts))].sum()
    assert reached >= kept * outcomes.quality[2].sum() - 1e-6
    assert outcomes.cost[chosen, range(len(prompts))].sum() <= outcomes.cost[2].sum()
