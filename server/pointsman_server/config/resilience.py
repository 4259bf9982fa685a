"""Reads how hard a policy tries: retries, breaker, hedging and load."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

from pointsman_server.config.scalars import decimal_number, seconds, share, whole_number
from pointsman_server.config.section import Keys, Section, Spot, UnacceptableError
from pointsman_server.domain.resilience import BreakerPolicy, HedgePolicy, LoadPolicy, Resilience, RetryPolicy

RESILIENCE_KEYS: Keys = {
    "retries": "retries: {attempts_per_deployment: 3}",
    "breaker": "breaker: {failures_in_a_row: 5}",
    "hedging": "hedging: {quantile: 0.95}",
    "load": "load: {most_queued: 100}",
    "continuation_prompt": "continuation_prompt: Go on exactly where your answer stops.",
}
RETRY_KEYS: Keys = {
    "attempts_per_deployment": "attempts_per_deployment: 3",
    "attempts_per_call": "attempts_per_call: 6",
    "base_seconds": "base_seconds: 0.2",
    "cap_seconds": "cap_seconds: 5",
    "budget_share": "budget_share: 0.1",
    "budget_floor": "budget_floor: 3",
}
BREAKER_KEYS: Keys = {
    "failures_in_a_row": "failures_in_a_row: 5",
    "failure_share": "failure_share: 0.5",
    "least_attempts": "least_attempts: 10",
    "window_seconds": "window_seconds: 30",
    "open_seconds": "open_seconds: 30",
    "longest_open_seconds": "longest_open_seconds: 300",
}
HEDGING_KEYS: Keys = {
    "quantile": "quantile: 0.95",
    "most_share": "most_share: 0.05",
    "least_answers": "least_answers: 20",
}
LOAD_KEYS: Keys = {
    "most_queued": "most_queued: 100",
    "longest_wait_seconds": "longest_wait_seconds: 1",
    "critical_labels": "critical_labels: {feature: checkout}",
    "critical_share": "critical_share: 0.2",
}
_MOST_ATTEMPTS_PER_DEPLOYMENT, _MOST_ATTEMPTS_PER_CALL = 3, 6
_LONGEST_PROMPT = 2_000
_QUANTILE = decimal_number(Decimal("0.5"), Decimal("0.999"))


def read_resilience(spot: Spot) -> Resilience:
    """Compiles the section; what it leaves out has the default of its kind."""
    section = Section(spot, RESILIENCE_KEYS)
    return Resilience(
        retries=section.optional("retries", _retries, RetryPolicy()),
        breaker=section.optional("breaker", _breaker, BreakerPolicy()),
        hedging=section.optional("hedging", _hedging, HedgePolicy()),
        load=section.optional("load", _load, LoadPolicy()),
        continuation_prompt=section.optional("continuation_prompt", _prompt, ""),
    )


def _retries(spot: Spot) -> RetryPolicy:
    section, default = Section(spot, RETRY_KEYS), RetryPolicy()
    pause = seconds(lowest=Decimal(0), highest=Decimal(60))
    here, all_in_all = whole_number(1, _MOST_ATTEMPTS_PER_DEPLOYMENT), whole_number(1, _MOST_ATTEMPTS_PER_CALL)
    return RetryPolicy(
        attempts_per_deployment=section.optional("attempts_per_deployment", here, default.attempts_per_deployment),
        attempts_per_call=section.optional("attempts_per_call", all_in_all, default.attempts_per_call),
        base_seconds=section.optional("base_seconds", pause, default.base_seconds),
        cap_seconds=section.optional("cap_seconds", pause, default.cap_seconds),
        budget_share=section.optional("budget_share", share, default.budget_share),
        budget_floor=section.optional("budget_floor", whole_number(0, 1_000), default.budget_floor),
    )


def _breaker(spot: Spot) -> BreakerPolicy:
    section, default = Section(spot, BREAKER_KEYS), BreakerPolicy()
    return BreakerPolicy(
        failures_in_a_row=section.optional("failures_in_a_row", whole_number(1, 1_000), default.failures_in_a_row),
        failure_share=section.optional("failure_share", _positive(share), default.failure_share),
        least_attempts=section.optional("least_attempts", whole_number(1, 100_000), default.least_attempts),
        window_seconds=section.optional("window_seconds", seconds(), default.window_seconds),
        open_seconds=section.optional("open_seconds", seconds(), default.open_seconds),
        longest_open_seconds=section.optional("longest_open_seconds", seconds(), default.longest_open_seconds),
    )


def _hedging(spot: Spot) -> HedgePolicy:
    section, default = Section(spot, HEDGING_KEYS), HedgePolicy()
    quantile = section.required("quantile", _QUANTILE, Decimal("0.95"))
    return HedgePolicy(
        quantile=float(quantile),
        most_share=section.optional("most_share", share, default.most_share),
        least_answers=section.optional("least_answers", whole_number(1, 100_000), default.least_answers),
    )


def _load(spot: Spot) -> LoadPolicy:
    section, default = Section(spot, LOAD_KEYS), LoadPolicy()
    return LoadPolicy(
        most_queued=section.optional("most_queued", whole_number(0, 100_000), default.most_queued),
        longest_wait_seconds=section.optional("longest_wait_seconds", seconds(), default.longest_wait_seconds),
        critical_labels=section.optional("critical_labels", _labels, default.critical_labels),
        critical_share=section.optional("critical_share", share, default.critical_share),
    )


def _prompt(spot: Spot) -> str:
    text = spot.text()
    if not text.strip() or len(text) > _LONGEST_PROMPT:
        raise UnacceptableError("is empty or too long", f"Write up to {_LONGEST_PROMPT} characters.")
    return text


def _labels(spot: Spot) -> tuple[tuple[str, str], ...]:
    return tuple((label, value.read(Spot.text, "")) for label, value in spot.entries())


def _positive(reader: Callable[[Spot], float]) -> Callable[[Spot], float]:
    def read(spot: Spot) -> float:
        value = reader(spot)
        if not value:
            raise UnacceptableError("is 0", "Write a share above 0, for example `0.5`.")
        return value

    return read
