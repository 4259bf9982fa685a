from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.execution.observations import HALF_LIFE_SECONDS, Observations

MOST_OFF = 0.12
latencies = st.floats(0.001, 120.0)


def seen(*seconds: float | None) -> Observations:
    observations = Observations(0.0)
    for one in seconds:
        observations.answered(one, 0.0)
    return observations


def test_nothing_seen() -> None:
    assert Observations(5.0).view(5.0) == (0.0, 0.0, 0.0, 0.0, 0.0)


def test_answers_failures_and_attempts_are_counted_apart() -> None:
    observations = seen(0.5, 0.5, None)
    observations.failed(0.0)
    view = observations.view(0.0)
    assert (view.answers, view.attempts, view.failures) == (2.0, 4.0, 1.0)


def test_quantiles_of_a_known_distribution() -> None:
    seconds = [place / 100 for place in range(1, 1_001)]
    random.Random(7).shuffle(seconds)
    view = seen(*seconds).view(0.0)
    assert view.first_token_p50_seconds == pytest.approx(5.0, rel=MOST_OFF)
    assert view.first_token_p95_seconds == pytest.approx(9.5, rel=MOST_OFF)


@pytest.mark.parametrize(("seconds", "told"), [(0.0, 0.001), (1e-9, 0.001), (1e6, 150.0)])
def test_what_lies_outside_the_range_counts_at_its_end(seconds: float, told: float) -> None:
    assert seen(seconds).view(0.0).first_token_p50_seconds == pytest.approx(told, rel=0.15)


@examples(200)
@given(st.lists(latencies, min_size=1, max_size=40))
def test_quantiles_are_at_most_so_far_off(seconds: list[float]) -> None:
    view = seen(*seconds).view(0.0)
    ranked = sorted(seconds)
    for share, told in ((0.5, view.first_token_p50_seconds), (0.95, view.first_token_p95_seconds)):
        true = ranked[max(0, -int(-share * len(ranked) // 1) - 1)]
        assert told == pytest.approx(true, rel=MOST_OFF)


class TestDecay:
    def test_after_its_half_life_an_observation_counts_half(self) -> None:
        observations = seen(0.5, 0.5)
        observations.failed(0.0)
        view = observations.view(HALF_LIFE_SECONDS)
        assert (view.answers, view.attempts, view.failures) == pytest.approx((1.0, 1.5, 0.5))
        assert view.first_token_p50_seconds == pytest.approx(0.5, rel=MOST_OFF)

    def test_new_ones_outweigh_old_ones(self) -> None:
        observations = seen(*[5.0] * 20)
        for _ in range(3):
            observations.answered(0.2, 4 * HALF_LIFE_SECONDS)
        assert observations.view(4 * HALF_LIFE_SECONDS).first_token_p50_seconds == pytest.approx(0.2, rel=MOST_OFF)

    def test_a_look_changes_nothing(self) -> None:
        looked, alone = seen(0.5), seen(0.5)
        looked.view(9_999.0)
        assert looked.view(0.0) == alone.view(0.0)

    def test_after_ages_nothing_is_left(self) -> None:
        observations = seen(0.5)
        observations.failed(1e9)
        assert observations.view(1e9) == (0.0, 0.0, 0.0, 1.0, 1.0)

    def test_time_that_runs_backwards_adds_no_weight(self) -> None:
        observations = Observations(100.0)
        observations.answered(0.5, 100.0)
        observations.answered(0.5, 40.0)
        assert observations.view(40.0).answers == 2.0
