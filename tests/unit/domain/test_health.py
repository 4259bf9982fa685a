from __future__ import annotations

from kit.catalog import deployment, rejection
from pointsman_server.domain.health import HealthView
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


def test_observation_goes_before_expectation() -> None:
    one = deployment("d", expected_first_token_seconds=2.0)
    assert HealthView().first_token_seconds(one) == 2.0
    assert HealthView(observed_first_token_seconds={"d": 0.4}).first_token_seconds(one) == 0.4
