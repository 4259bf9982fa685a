from __future__ import annotations

import pytest

from kit.catalog import deployment, rejection
from pointsman_server.domain.health import PRIOR_ANSWERS, PRIOR_ATTEMPTS, HealthView, Observed
from pointsman_server.domain.plan import ExclusionReason


def test_a_deployment_that_is_not_listed_is_well() -> None:
    assert HealthView().unavailable("d") is None
    assert HealthView().retry_after_seconds([]) == 0.0


def test_the_first_that_comes_back_decides_when_to_try_again() -> None:
    open_breaker = rejection("d", ExclusionReason.BREAKER_OPEN)
    view = HealthView({"d": open_breaker}, {"d": 30.0, "e": 12.5})
    assert view.unavailable("d") is open_breaker
    assert view.retry_after_seconds(["d", "e"]) == 12.5
    assert view.retry_after_seconds(["d"]) == 30.0
    assert view.retry_after_seconds(["unknown"]) == 0.0


def seen(**changes: float) -> HealthView:
    fields = {"answers": 0.0, "first_token_p50_seconds": 0.0, "first_token_p95_seconds": 0.0, "attempts": 0.0}
    return HealthView(observed={"d": Observed(**{**fields, "failures": 0.0, **changes})})


class TestFirstToken:
    ONE = deployment("d", expected_first_token_seconds=2.0)

    def test_what_nobody_saw_is_as_the_policy_expects(self) -> None:
        assert HealthView().first_token_seconds(self.ONE) == 2.0
        assert seen(attempts=9.0, failures=9.0).first_token_seconds(self.ONE) == 2.0

    def test_few_observations_move_the_expectation_and_many_replace_it(self) -> None:
        assert seen(answers=PRIOR_ANSWERS, first_token_p50_seconds=1.0).first_token_seconds(self.ONE) == 1.5
        assert seen(answers=1e6, first_token_p50_seconds=0.4).first_token_seconds(self.ONE) == pytest.approx(0.4, 0.01)

    def test_others_are_not_meant(self) -> None:
        view = seen(answers=1e6, first_token_p50_seconds=0.4)
        assert view.first_token_seconds(deployment("e", expected_first_token_seconds=3.0)) == 3.0


class TestErrorRate:
    def test_nobody_saw_any(self) -> None:
        assert HealthView().error_rate("d") == 0.0
        assert seen(attempts=50.0).error_rate("d") == 0.0

    def test_one_failure_is_not_the_whole(self) -> None:
        assert seen(attempts=1.0, failures=1.0).error_rate("d") == pytest.approx(1 / (1 + PRIOR_ATTEMPTS))

    def test_many_are(self) -> None:
        assert seen(attempts=1e6, failures=5e5).error_rate("d") == pytest.approx(0.5, abs=0.001)
