"""Every attempt but the first has its money set aside before it is made."""

from __future__ import annotations

from typing import Any

from kit.catalog import deployment, request
from kit.dispatching import Dispatched, dispatch
from kit.scripted import Step, answers, says, used
from pointsman_server.domain.call import AttemptPurpose, FailoverMode
from pointsman_server.domain.errors import AnswerInvalid, BudgetExceeded, StreamInterrupted
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.request import CompletionRequest, GenerationConfig
from pointsman_server.domain.resilience import Resilience, RetryPolicy

WORST = 100
"""What any attempt of these plans may cost at most, in micro-USD."""

DOWN = ProviderFault(FaultKind.UNAVAILABLE, "down")
CUT = ProviderFault(FaultKind.STREAM_CUT, "cut")
BILLED_AND_DOWN: tuple[Step, ...] = (used(20, 5), DOWN)
"""A failure that costs 30 micro-USD."""

ONCE = {"resilience": Resilience(RetryPolicy(attempts_per_deployment=1))}


def two(first: tuple[Step, ...], second: tuple[Step, ...], money: int | None = None, **changes: Any) -> Dispatched:
    return dispatch(
        [(deployment("a"), first), (deployment("b"), second)], policy=ONCE, money_micro_usd=money, **changes
    )


def test_one_attempt_needs_no_more_than_was_reserved() -> None:
    assert two(answers("A"), answers("B")).money.covered == []


def test_a_fallback_is_covered_beside_what_the_failure_cost() -> None:
    done = two(BILLED_AND_DOWN, answers("B"))
    assert (done.text, done.money.covered) == ("B", [30 + WORST])


def test_a_failure_that_cost_nothing_leaves_its_money_to_the_next() -> None:
    assert two((DOWN,), answers("B")).money.covered == [WORST]


def test_a_retry_is_covered_as_well() -> None:
    done = dispatch([(deployment("a"), BILLED_AND_DOWN)], then={"a": answers("A")})
    assert (done.text, done.money.covered) == ("A", [30 + WORST])


def test_a_call_that_cannot_afford_another_attempt_ends_with_its_budget() -> None:
    done = two(BILLED_AND_DOWN, answers("B"), money=129)
    assert isinstance(done.error, BudgetExceeded)
    assert (done.asked, done.adapters["b"].calls) == (["a"], [])


def test_to_the_micro_usd() -> None:
    assert two(BILLED_AND_DOWN, answers("B"), money=130).text == "B"


def test_who_was_not_asked_for_want_of_money_is_free_for_others() -> None:
    lone = deployment("b", max_concurrent_calls=1)
    done = dispatch([(deployment("a"), BILLED_AND_DOWN), (lone, answers("B"))], policy=ONCE, money_micro_usd=129)
    assert isinstance(done.error, BudgetExceeded)
    assert done.full == set()


def test_a_stream_that_cannot_afford_to_go_on_is_interrupted() -> None:
    cut = (says("Half an "), used(20, 5), CUT)
    done = two(cut, answers("answer"), money=129, stream=True, failover=FailoverMode.CONTINUE)
    assert isinstance(done.error, StreamInterrupted)
    assert (done.relayed, done.error.cost_micro_usd) == ("Half an ", 30)


def test_a_repair_may_read_the_invalid_answer_too() -> None:
    wrong = (says("prose"), *answers("")[1:])
    done = dispatch([(deployment("a"), wrong)], then={"a": answers("{}")}, request=_demanding_json())
    assert done.record.attempts[-1].purpose is AttemptPurpose.REPAIR
    assert done.money.covered == [200 + 2 * WORST]


def test_an_answer_that_cannot_be_mended_for_want_of_money_is_shown_as_it_is() -> None:
    wrong = (says("prose"), *answers("")[1:])
    done = dispatch([(deployment("a"), wrong)], money_micro_usd=300, request=_demanding_json())
    assert isinstance(done.error, AnswerInvalid)
    assert done.error.text == "prose"


def _demanding_json() -> CompletionRequest:
    return request(generation=GenerationConfig(response_schema={"type": "object"}))
