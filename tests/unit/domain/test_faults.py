from __future__ import annotations

import pytest

from pointsman_server.domain.faults import FAULT_RULES, FaultKind, FaultRule, ProviderFault

NEVER_THE_DEPLOYMENTS_BLAME = {
    FaultKind.RATE_LIMITED,
    FaultKind.CONTEXT_WINDOW,
    FaultKind.REQUEST_TOO_LARGE,
    FaultKind.INVALID_REQUEST,
    FaultKind.UNSUPPORTED,
    FaultKind.ANSWER_INVALID,
}


def test_every_fault_has_its_rule() -> None:
    assert set(FAULT_RULES) == set(FaultKind)


def test_an_invalid_request_and_an_invalid_answer_end_the_search() -> None:
    ending = {kind for kind, rule in FAULT_RULES.items() if not rule.try_next}
    assert ending == {FaultKind.INVALID_REQUEST, FaultKind.ANSWER_INVALID}


def test_what_lasts_is_not_asked_again() -> None:
    lasting = {kind for kind, rule in FAULT_RULES.items() if not rule.retry_here}
    assert lasting == {
        *(NEVER_THE_DEPLOYMENTS_BLAME - {FaultKind.RATE_LIMITED}),
        FaultKind.AUTH,
        FaultKind.QUOTA,
        FaultKind.MODEL_MISSING,
        FaultKind.TOO_SLOW,
        FaultKind.UNKNOWN,
    }


def test_what_the_caller_caused_does_not_count_against_the_deployment() -> None:
    assert {kind for kind, rule in FAULT_RULES.items() if not rule.counts_for_breaker} == NEVER_THE_DEPLOYMENTS_BLAME


def test_limits_and_refused_keys_cool_down() -> None:
    cooling = {kind for kind, rule in FAULT_RULES.items() if rule.cools_down}
    assert cooling == {FaultKind.RATE_LIMITED, FaultKind.AUTH, FaultKind.QUOTA}


def test_what_was_too_long_goes_to_a_larger_window() -> None:
    larger = {kind for kind, rule in FAULT_RULES.items() if rule.larger_window_only}
    assert larger == {FaultKind.CONTEXT_WINDOW, FaultKind.REQUEST_TOO_LARGE}


@pytest.mark.parametrize("kind", FaultKind)
def test_a_fault_knows_its_rule_and_says_only_our_words(kind: FaultKind) -> None:
    fault = ProviderFault(kind, "our words", status=503, retry_after_seconds=1.5)
    assert fault.rule is FAULT_RULES[kind]
    assert isinstance(fault.rule, FaultRule)
    assert str(fault) == f"{kind.value}: our words"
    assert (fault.status, fault.retry_after_seconds) == (503, 1.5)
