"""The policy's resilience section: what it compiles to, and every mistake in it told where it stands."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pointsman_server.config.policy_file import LoadedPolicy
from pointsman_server.config.problems import PolicyError
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.resilience import BreakerPolicy, HedgePolicy, LoadPolicy, Resilience, RetryPolicy

Compile = Callable[..., LoadedPolicy]
Read = Callable[[str], Snapshot]
WHOLE = """\
resilience:
  retries: {attempts_per_deployment: 2, attempts_per_call: 4, base_seconds: 0.5, cap_seconds: 2, budget_share: 0.2,
    budget_floor: 0}
  breaker: {failures_in_a_row: 3, failure_share: 0.25, least_attempts: 20, window_seconds: 10, open_seconds: 5,
    longest_open_seconds: 60}
  hedging: {quantile: 0.9, most_share: 0.1, least_answers: 50}
  load: {most_queued: 10, longest_wait_seconds: 0.5, critical_labels: {feature: checkout, team: "on call"},
    critical_share: 0.25}
  continuation_prompt: Go on, please.
"""


@pytest.fixture
def read(good_policy: str, compile_text: Compile) -> Read:
    """The policy with this section."""
    return lambda section: compile_text(good_policy + section).snapshot


def test_everything_is_taken_over(read: Read) -> None:
    assert read(WHOLE).resilience == Resilience(
        RetryPolicy(2, 4, 0.5, 2.0, 0.2, 0),
        BreakerPolicy(3, 0.25, 20, 10.0, 5.0, 60.0),
        HedgePolicy(0.9, 0.1, 50),
        LoadPolicy(10, 0.5, (("feature", "checkout"), ("team", "on call")), 0.25),
        "Go on, please.",
    )


@pytest.mark.parametrize("section", ["", "resilience: {}\n", "resilience: {retries: {}, breaker: {}, load: {}}\n"])
def test_what_is_left_out_has_its_default(read: Read, section: str) -> None:
    assert read(section).resilience == Resilience()


def test_it_is_part_of_the_policys_version(read: Read) -> None:
    assert read("resilience: {retries: {base_seconds: 0.3}}\n").version != read("").version


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("{retries: {attempts_per_call: 0}}", "retries.attempts_per_call is 0"),
        ("{retries: {attempts_per_call: 7}}", "retries.attempts_per_call is 7"),
        ("{retries: {attempts_per_deployment: 4}}", "retries.attempts_per_deployment is 4"),
        ("{retries: {max_retires: 4}}", "retries.max_retires is not a known key"),
        ("{retries: {budget_share: 1.1}}", "retries.budget_share is 1.1"),
        ("{retries: {base_seconds: -1}}", "retries.base_seconds is -1"),
        ("{breaker: {failure_share: 0}}", "breaker.failure_share is 0"),
        ("{breaker: {open_seconds: 0}}", "breaker.open_seconds is 0"),
        ("{breaker: {failures_in_a_row: 0}}", "breaker.failures_in_a_row is 0"),
        ("{hedging: {most_share: 0.1}}", "hedging.quantile is missing"),
        ("{hedging: {quantile: 1}}", "hedging.quantile is 1"),
        ("{hedging: {quantile: 0.4}}", "hedging.quantile is 0.4"),
        ("{load: {most_queued: -1}}", "load.most_queued is -1"),
        ("{load: {longest_wait_seconds: soon}}", "load.longest_wait_seconds is not a plain decimal number"),
        ("{load: {critical_labels: [checkout]}}", "load.critical_labels is not a mapping"),
        ("{load: {critical_labels: {feature: [a]}}}", "load.critical_labels.feature is a list"),
        ('{continuation_prompt: " "}', "continuation_prompt is empty or too long"),
        ("[]", "resilience is not a mapping"),
        ("{brakes: {}}", "resilience.brakes is not a known key"),
    ],
)
def test_a_mistake_is_told_with_its_place(read: Read, text: str, place: str) -> None:
    with pytest.raises(PolicyError) as caught:
        read(f"resilience: {text}\n")
    assert place in str(caught.value)


def test_a_deployments_own_limits(good_policy: str, compile_text: Compile) -> None:
    text = good_policy.replace("{total_seconds: 90}", "{least_tokens_per_second: 2.5}, max_concurrent_calls: 40")
    claude = compile_text(text).snapshot.deployments["claude-direct"]
    assert (claude.timeouts.least_tokens_per_second, claude.max_concurrent_calls) == (2.5, 40)
