from __future__ import annotations

from random import Random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.clock import FakeClock
from kit.properties import examples
from pointsman_server.domain.resilience import RetryPolicy
from pointsman_server.execution.retrying import BUDGET_WINDOW_SECONDS, ShareBudget, pause_seconds

POLICY = RetryPolicy()


class TestPause:
    @pytest.mark.parametrize("number", [1, 2, 3, 4])
    def test_it_is_full_jitter_that_doubles(self, number: int) -> None:
        """Over 500 draws the mean is within 10 % of half the limit, and the draws spread over all of it."""
        random = Random(number)
        drawn = [pause_seconds(POLICY, number, random) for _ in range(500)]
        limit = POLICY.base_seconds * 2 ** (number - 1)
        assert fmean(drawn) == pytest.approx(limit / 2, rel=0.1)
        assert min(drawn) < 0.05 * limit
        assert 0.95 * limit < max(drawn) <= limit

    def test_it_is_capped(self) -> None:
        random = Random(1)
        assert max(pause_seconds(POLICY, 30, random) for _ in range(200)) <= POLICY.cap_seconds

    def test_two_callers_are_not_in_lockstep(self) -> None:
        one, other = Random(1), Random(2)
        assert all(pause_seconds(POLICY, n, one) != pause_seconds(POLICY, n, other) for n in range(1, 20))


class TestBudget:
    def test_the_floor_is_free(self) -> None:
        budget = ShareBudget(FakeClock())
        assert [budget.spend(3, 0.1) for _ in range(5)] == [True, True, True, False, False]

    def test_each_call_adds_its_share(self) -> None:
        budget = ShareBudget(FakeClock())
        for _ in range(1_000):
            budget.called()
        assert sum(budget.spend(3, 0.1) for _ in range(1_000)) == 103

    def test_it_comes_back_with_time(self) -> None:
        clock = FakeClock()
        budget = ShareBudget(clock)
        assert [budget.spend(1, 0.0) for _ in range(2)] == [True, False]
        clock.advance(BUDGET_WINDOW_SECONDS - 1)
        assert not budget.spend(1, 0.0)
        clock.advance(1)
        assert budget.spend(1, 0.0)

    def test_a_long_silence_forgets_everything(self) -> None:
        clock = FakeClock()
        budget = ShareBudget(clock)
        for _ in range(100):
            budget.called()
        clock.advance(1e6)
        assert not budget.spend(0, 1.0)
        budget.called()
        assert [budget.spend(0, 1.0) for _ in range(2)] == [True, False]

    @examples(200)
    @given(st.lists(st.tuples(st.sampled_from(("call", "spend")), st.floats(0, 40)), max_size=120))
    def test_in_no_minute_is_more_spent_than_the_share(self, history: list[tuple[str, float]]) -> None:
        clock = FakeClock()
        budget = ShareBudget(clock)
        calls: list[float] = []
        spent: list[float] = []
        for what, pause in history:
            clock.advance(pause)
            now = clock.monotonic()
            if what == "call":
                budget.called()
                calls.append(now)
            elif budget.spend(3, 0.1):
                # The window is of whole seconds: what counts is at most a minute old, and all of the last 59 s counts.
                recent = [at for at in calls if int(now) - int(at) < BUDGET_WINDOW_SECONDS]
                before = [at for at in spent if int(now) - int(at) < BUDGET_WINDOW_SECONDS]
                assert len(before) < 3 + 0.1 * len(recent)
                spent.append(now)
