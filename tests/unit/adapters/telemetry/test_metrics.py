from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from kit.accounts import attempt, cancelled, completion, decision, failed
from kit.catalog import call, deployment, snapshot
from kit.clock import FakeClock
from kit.metric_table import COUNTERS_AND_GAUGES, HISTOGRAMS
from kit.scraping import Scrape
from pointsman_server.adapters.telemetry.call_metrics import CallMetrics
from pointsman_server.adapters.telemetry.metrics import Metrics
from pointsman_server.domain.cache import CacheOutcome
from pointsman_server.domain.call import AttemptPurpose
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.errors import AttemptsFailed
from pointsman_server.domain.faults import FaultKind
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.ledger import BudgetAlert, BudgetKey
from pointsman_server.domain.ports import Operation
from pointsman_server.domain.reply import Usage

A, B = deployment("a"), deployment("b")
POLICY = snapshot(A, B)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def metrics(clock: FakeClock) -> Metrics:
    return Metrics(lambda: POLICY, clock, "1.2.3")


def scrape(metrics: Metrics) -> Scrape:
    return Scrape(metrics.exposition())


def begin(metrics: Metrics, **changes: Any) -> CallMetrics:
    return metrics.call(call(POLICY, **changes), Operation.STREAM_COMPLETE)


def test_all_names_and_labels(metrics: Metrics) -> None:
    metrics.watch_load(calls_in_flight=lambda: 3, queued_calls=lambda: 1)
    metrics.watch_dropped("traces", lambda: 7)
    metrics.watch_cache(answers=lambda: 4, evicted=lambda: 5, dropped=lambda: 6)
    metrics.observe("Complete", "OK", 0.2)
    metrics.record_loop_lag(0.002)
    metrics.guard_hit("injection", "user", "flag")
    metrics.retried(Operation.COMPLETE, 1)
    metrics.budget_used(BudgetAlert(BudgetKey("shop", "month", "2026-11"), 80, 1_000, 801))
    watch = begin(metrics)
    watch.decided(decision(A))
    running = watch.attempt(A, AttemptPurpose.FIRST)
    watch.first_content()
    running.ended(attempt(A, first_token_seconds=0.1))
    watch.completed(completion(attempt(A)))
    begin(metrics).completed(completion(attempt(A), attempts=(), cache=CacheOutcome.HIT_EXACT, saved_micro_usd=15))
    found = scrape(metrics)
    promised = {**COUNTERS_AND_GAUGES} | {f"{name}_count": labels for name, labels in HISTOGRAMS.items()}
    ours = {name: labels for name, labels in found.label_names.items() if not name.endswith(("_bucket", "_sum"))}
    assert ours == {name: set(labels) for name, labels in promised.items() if name.startswith("pointsman_")}
    assert "otel_scope" not in found.text
    assert "target_info" not in found.families
    assert all(found.value(name) > 0 for name in promised if name.startswith("process_"))
    assert found.value("pointsman_calls_in_flight") == 3
    assert found.value("pointsman_queued_calls") == 1
    assert found.value("pointsman_cache_held_answers") == 4
    assert found.value("pointsman_cache_evicted_total") == 5
    assert found.value("pointsman_cache_dropped_total") == 6
    assert found.all("pointsman_cache_lookups_total") == {("bypass",): 1, ("hit_exact",): 1}
    assert found.all("pointsman_cache_saved_micro_usd_total") == {("a", "a-model", "a-provider"): 15}
    assert found.value("pointsman_telemetry_dropped_total", signal="traces") == 7
    assert found.value("pointsman_build_info", version="1.2.3", policy_version="v1") == 1
    assert found.all("pointsman_deployment_info") == {
        ("a", "a-model", "a-provider", "standard"): 1,
        ("b", "b-model", "b-provider", "standard"): 1,
    }


def test_a_histogram_has_round_bounds_from_the_fastest_to_the_slowest(metrics: Metrics) -> None:
    metrics.observe("Complete", "OK", 0.2)
    begin(metrics).decided(decision(A))
    found = scrape(metrics)

    def bounds(name: str) -> list[str]:
        return [sample.labels["le"] for sample in found.families[name].samples if sample.name.endswith("_bucket")]

    assert bounds("pointsman_request_duration_seconds")[0] == "0.005"
    assert bounds("pointsman_request_duration_seconds")[-2:] == ["120.0", "+Inf"]
    assert bounds("pointsman_decision_duration_seconds")[0] == "0.0001"
    assert bounds("pointsman_decision_duration_seconds")[-2:] == ["0.1", "+Inf"]


def test_calls_at_the_door(metrics: Metrics) -> None:
    metrics.observe("Complete", "OK", 0.2)
    metrics.observe("Complete", "OK", 0.3)
    metrics.observe("Route", "INVALID_ARGUMENT", 0.001)
    found = scrape(metrics)
    assert found.all("pointsman_requests_total") == {("OK", "Complete"): 2, ("INVALID_ARGUMENT", "Route"): 1}
    assert found.value("pointsman_request_duration_seconds_sum", method="Complete") == pytest.approx(0.5)


def test_a_fallback_is_told_with_each_attempt_and_once_for_the_call(metrics: Metrics) -> None:
    watch = begin(metrics)
    watch.decided(decision(A, B))
    watch.attempt(A, AttemptPurpose.FIRST).ended(failed(A))
    watch.attempt(A, AttemptPurpose.RETRY).ended(failed(A, FaultKind.TIMEOUT))
    last = attempt(B)
    watch.attempt(B, AttemptPurpose.FALLBACK).ended(last)
    watch.completed(completion(failed(A), failed(A), last))
    found = scrape(metrics)
    assert found.all("pointsman_attempts_total") == {
        ("a", "overloaded", "a-model", "failed", "a-provider", "first"): 1,
        ("a", "timeout", "a-model", "failed", "a-provider", "retry"): 1,
        ("b", "", "b-model", "succeeded", "b-provider", "fallback"): 1,
    }
    assert found.all("pointsman_fallbacks_total") == {("succeeded",): 1}
    assert found.all("pointsman_attempt_duration_seconds_count") == {
        ("a", "a-model", "a-provider"): 2,
        ("b", "b-model", "b-provider"): 1,
    }


def test_a_call_that_fails_after_a_fallback(metrics: Metrics) -> None:
    watch = begin(metrics)
    watch.attempt(A, AttemptPurpose.FIRST).ended(failed(A))
    watch.attempt(B, AttemptPurpose.CONTINUATION).ended(failed(B))
    watch.failed(AttemptsFailed(()))
    watch.failed(GeneratorExit())
    assert scrape(metrics).all("pointsman_fallbacks_total") == {("failed",): 1}


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit()])
def test_a_caller_who_leaves_is_no_failed_fallback(metrics: Metrics, error: BaseException) -> None:
    watch = begin(metrics)
    watch.attempt(A, AttemptPurpose.FIRST).ended(failed(A))
    running = watch.attempt(B, AttemptPurpose.FALLBACK)
    running.ended(cancelled(B))
    watch.failed(error)
    found = scrape(metrics)
    assert found.all("pointsman_fallbacks_total") == {}
    assert found.value("pointsman_attempts_total", **_labels("b", "fallback", "cancelled")) == 1
    assert ("b", "b-model", "b-provider") not in found.all("pointsman_attempt_duration_seconds_count")


def test_a_call_that_needed_none_is_no_fallback(metrics: Metrics) -> None:
    watch = begin(metrics)
    watch.attempt(A, AttemptPurpose.FIRST).ended(attempt(A))
    watch.completed(completion(attempt(A)))
    watch.failed(GeneratorExit())
    found = scrape(metrics)
    assert found.all("pointsman_fallbacks_total") == {}
    assert found.value("pointsman_fallbacks_total", outcome="succeeded") == 0
    assert 'pointsman_fallbacks_total{outcome="failed"} 0.0' in found.text


def test_a_decision_that_is_followed_was_measured_before(metrics: Metrics) -> None:
    begin(metrics).decided(decision(A, latency_seconds=0.004))
    begin(metrics, decision_id="dec_1").decided(decision(A, latency_seconds=0.004))
    found = scrape(metrics)
    assert found.value("pointsman_decision_duration_seconds_count") == 1
    assert found.value("pointsman_decision_duration_seconds_sum") == pytest.approx(0.004)


def test_tokens_and_cost_are_those_of_all_attempts(metrics: Metrics) -> None:
    usage = Usage(
        input_tokens=900, cached_input_tokens=500, cache_write_input_tokens=20, output_tokens=40, reasoning_tokens=30
    )
    watch = begin(metrics)
    watch.attempt(A, AttemptPurpose.FIRST).ended(failed(A, usage=Usage(input_tokens=900), cost_micro_usd=7))
    watch.attempt(B, AttemptPurpose.FALLBACK).ended(attempt(B, usage=usage, cost_micro_usd=11))
    found = scrape(metrics)
    of_b = {kind: value for (name, kind, *_), value in found.all("pointsman_tokens_total").items() if name == "b"}
    assert of_b == {"input": 900, "cached_input": 500, "cache_write_input": 20, "output": 40, "reasoning": 30}
    assert found.all("pointsman_cost_micro_usd_total") == {
        ("a", "a-model", "a-provider"): 7,
        ("b", "b-model", "b-provider"): 11,
    }


def test_counts_that_the_provider_left_out_are_added_once_settled(metrics: Metrics) -> None:
    reported = attempt(A, usage=Usage(input_tokens=9), cost_micro_usd=5)
    settled = replace(reported, usage=Usage(input_tokens=9, output_tokens=4), cost_micro_usd=13)
    watch = begin(metrics)
    watch.attempt(A, AttemptPurpose.FIRST).ended(reported)
    watch.completed(completion(settled, estimated=True))
    watch.completed(completion(settled, estimated=True))
    found = scrape(metrics)
    assert found.all("pointsman_tokens_total") == {
        ("a", "input", "a-model", "a-provider"): 9,
        ("a", "output", "a-model", "a-provider"): 4,
    }
    assert found.all("pointsman_cost_micro_usd_total") == {("a", "a-model", "a-provider"): 13}


class TestFirstToken:
    """The caller's first piece is credited to the model that gave it."""

    def test_of_the_only_attempt(self, metrics: Metrics, clock: FakeClock) -> None:
        watch = begin(metrics)
        watch.attempt(A, AttemptPurpose.FIRST).ended(failed(A))
        running = watch.attempt(B, AttemptPurpose.FALLBACK)
        clock.advance(0.7)
        watch.first_content()
        running.ended(attempt(B, first_token_seconds=0.3))
        found = scrape(metrics)
        assert found.all("pointsman_first_token_seconds_count") == {("b-model",): 1}
        assert found.value("pointsman_first_token_seconds_sum", model="b-model") == pytest.approx(0.7)
        assert found.all("pointsman_attempt_first_token_seconds_sum") == {("b", "b-model", "b-provider"): 0.3}

    @pytest.mark.parametrize("loser_ends", ["before", "while", "after"])
    def test_of_a_hedge_that_won(self, metrics: Metrics, loser_ends: str) -> None:
        watch = begin(metrics)
        loser = watch.attempt(A, AttemptPurpose.FIRST)
        winner = watch.attempt(B, AttemptPurpose.HEDGE)
        if loser_ends == "before":
            loser.ended(cancelled(A))
        watch.first_content()
        if loser_ends == "while":
            loser.ended(cancelled(A))
        winner.ended(attempt(B))
        if loser_ends == "after":
            loser.ended(cancelled(A))
        assert scrape(metrics).all("pointsman_first_token_seconds_count") == {("b-model",): 1}

    def test_of_an_answer_that_was_whole_before_its_first_piece_left(self, metrics: Metrics) -> None:
        watch = begin(metrics)
        watch.attempt(A, AttemptPurpose.FIRST).ended(attempt(A))
        watch.attempt(B, AttemptPurpose.HEDGE).ended(cancelled(B))
        watch.first_content()
        assert scrape(metrics).all("pointsman_first_token_seconds_count") == {("a-model",): 1}

    def test_of_nobody(self, metrics: Metrics) -> None:
        begin(metrics).first_content()
        assert scrape(metrics).all("pointsman_first_token_seconds_count") == {}


class TestBreakers:
    def test_those_never_heard_of_are_closed(self, metrics: Metrics) -> None:
        found = scrape(metrics)
        assert found.value("pointsman_breaker_state", deployment="a") == 0
        assert 'pointsman_breaker_state{deployment="b"} 0.0' in found.text
        assert 'to_state="open"} 0.0' in found.text

    def test_state_changes_and_open_time(self, metrics: Metrics, clock: FakeClock) -> None:
        def state_and_open_seconds() -> tuple[float, float]:
            found = scrape(metrics)
            return (
                found.value("pointsman_breaker_state", deployment="a"),
                found.value("pointsman_breaker_open_seconds_total", deployment="a"),
            )

        closed, opened, half = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
        metrics.breaker_changed("a", closed, opened)
        clock.advance(30)
        assert state_and_open_seconds() == (2, 30)
        metrics.breaker_changed("a", opened, half)
        clock.advance(1)
        assert state_and_open_seconds() == (1, 30)
        metrics.breaker_changed("a", half, opened)
        clock.advance(5)
        metrics.breaker_changed("a", opened, closed)
        clock.advance(9)
        assert state_and_open_seconds() == (0, 35)
        assert scrape(metrics).all("pointsman_breaker_transitions_total") == {
            ("a", "closed", "open"): 1,
            ("a", "open", "half_open"): 1,
            ("a", "half_open", "open"): 1,
            ("a", "open", "closed"): 1,
        }


def test_retries_hedges_and_refusals(metrics: Metrics) -> None:
    metrics.retried(Operation.COMPLETE, 1)
    metrics.retried(Operation.COMPLETE, 2)
    metrics.retried(Operation.STREAM_COMPLETE, 1)
    metrics.hedged(won=True)
    metrics.hedged(won=False)
    metrics.shed("queue")
    metrics.guard_hit("sensitive", "EMAIL", "mask", 2)
    metrics.guard_hit("injection", "user", "flag")
    found = scrape(metrics)
    assert found.all("pointsman_retries_total") == {
        ("1", "complete"): 1,
        ("2", "complete"): 1,
        ("1", "stream_complete"): 1,
    }
    assert found.all("pointsman_hedges_total") == {("won",): 1, ("lost",): 1}
    assert found.all("pointsman_shed_total") == {("queue",): 1}
    assert found.all("pointsman_guard_hits_total") == {
        ("mask", "EMAIL", "sensitive"): 2,
        ("flag", "user", "injection"): 1,
    }
    assert 'pointsman_shed_total{reason="reader"} 0.0' in found.text


def test_a_budget_that_is_nearly_used_up(metrics: Metrics) -> None:
    key = BudgetKey("shop", "month", "2026-11")
    metrics.budget_used(BudgetAlert(key, 80, 1_000, 801))
    metrics.budget_used(BudgetAlert(key, 100, 1_000, 1_000))
    found = scrape(metrics).all("pointsman_budget_alerts_total")
    assert {frozenset(labels): count for labels, count in found.items()} == {
        frozenset({"shop", "month", "80"}): 1,
        frozenset({"shop", "month", "100"}): 1,
    }


def test_a_simulated_provider_goes_by_no_other_name() -> None:
    simulated = deployment("a", by={"simulated": True})
    metrics = Metrics(lambda: snapshot(simulated), FakeClock(), "1")
    metrics.call(call(POLICY), Operation.COMPLETE).attempt(simulated, AttemptPurpose.FIRST).ended(attempt(simulated))
    labels = _labels("a", "first", "succeeded") | {"provider": "simulated"}
    assert scrape(metrics).value("pointsman_attempts_total", **labels) == 1


def test_a_new_policy_is_shown_as_it_is() -> None:
    policies = [snapshot(A)]
    metrics = Metrics(lambda: policies[-1], FakeClock(), "1")
    begin(metrics).attempt(A, AttemptPurpose.FIRST).ended(attempt(A))
    changed = deployment("a", of={"id": "another"})
    policies.append(_named("v2", snapshot(changed)))
    begin(metrics).attempt(changed, AttemptPurpose.FIRST).ended(attempt(changed))
    found = scrape(metrics)
    assert {labels[2] for labels in found.all("pointsman_attempts_total")} == {"a-model", "another"}
    assert found.all("pointsman_build_info") == {("v2", "1"): 1}


def test_nothing_of_ours_is_shown_after_the_end(metrics: Metrics) -> None:
    metrics.close()
    assert scrape(metrics).label_names == {}


def _labels(name: str, purpose: str, outcome: str, error: str = "") -> dict[str, str]:
    return {
        "deployment": name,
        "provider": f"{name}-provider",
        "model": f"{name}-model",
        "purpose": purpose,
        "outcome": outcome,
        "error": error,
    }


def _named(version: str, policy: Snapshot) -> Snapshot:
    return replace(policy, version=version)


class TestContextUtilisation:
    NAME = "pointsman_context_utilisation"

    def seen(self, metrics: Metrics) -> tuple[float, float]:
        """How many there were, and what they come to together."""
        found = scrape(metrics)
        return sum(found.all(f"{self.NAME}_count").values()), sum(found.all(f"{self.NAME}_sum").values())

    def test_every_input_is_measured_with_the_window(self, metrics: Metrics) -> None:
        watch = begin(metrics)
        watch.attempt(A, AttemptPurpose.FIRST).ended(attempt(A, usage=Usage(25_000, output_tokens=10)))
        assert self.seen(metrics) == (1, 0.25)

    def test_one_that_was_counted_by_us_is_measured_once(self, metrics: Metrics) -> None:
        watch = begin(metrics)
        watch.attempt(A, AttemptPurpose.FIRST).ended(attempt(A, usage=Usage()))
        assert self.seen(metrics) == (0, 0)
        watch.completed(completion(attempt(A, usage=Usage(50_000, output_tokens=10))))
        assert self.seen(metrics) == (1, 0.5)


class TestSecondOpinions:
    def test_counts_that_were_left_out_are_found_wherever_the_attempt_stands(self, metrics: Metrics) -> None:
        """The attempt that answered is the last of a completion, which need not be the order in which they ended."""
        watch = begin(metrics)
        first = attempt(A, usage=Usage(), cost_micro_usd=0)
        checked = attempt(B, usage=Usage(), cost_micro_usd=0, purpose=AttemptPurpose.CROSS_CHECK)
        for one in (first, checked):
            watch.attempt(one.deployment, one.purpose).ended(one)
        filled = replace(first, usage=Usage(input_tokens=9, output_tokens=3), cost_micro_usd=15)
        compared = replace(checked, usage=Usage(input_tokens=8, output_tokens=2), cost_micro_usd=11)
        watch.completed(completion(compared, filled))
        found = scrape(metrics)
        assert found.all("pointsman_cost_micro_usd_total") == {
            ("a", "a-model", "a-provider"): 15,
            ("b", "b-model", "b-provider"): 11,
        }
        tokens = found.all("pointsman_tokens_total")
        assert sorted(tokens.values()) == [2, 3, 8, 9]
