from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kit.catalog import call, deployment, plan, rejection, snapshot
from kit.clock import FakeClock
from pointsman_server.domain.call import Call, Decision
from pointsman_server.domain.errors import DecisionExpired, NobodyHealthy, NoEligibleDeployment
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.plan import ExclusionReason
from pointsman_server.execution.decisions import FRESH_SECONDS, MOST_DECISIONS, DecisionBook

ONE, TWO = deployment("one"), deployment("two")
DENIED = rejection("three", ExclusionReason.DENIED)
DECISION = Decision("dec_1", plan([ONE, TWO], rejections=(DENIED,)), 0.001)
WELL = HealthView()


def asked(**changes: Any) -> Call:
    return call(snapshot(ONE, TWO), decision_id="dec_1", request_digest=b"digest", **changes)


def ill(**seconds: float) -> HealthView:
    return HealthView({name: rejection(name, ExclusionReason.COOLDOWN) for name in seconds}, seconds)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def book(clock: FakeClock) -> DecisionBook:
    book = DecisionBook(clock)
    book.keep(DECISION, asked())
    return book


def test_it_knows_which_policy_a_decision_was_made_under(book: DecisionBook) -> None:
    assert book.policy_version_of("dec_1") == "v1"
    assert book.policy_version_of("dec_2") == ""


class TestFollowed:
    def test_it_is_given_back_as_it_was_as_often_as_it_is_named(self, book: DecisionBook) -> None:
        assert book.redeem(asked(), WELL) == DECISION
        assert book.redeem(asked(), WELL) == DECISION

    def test_until_it_is_no_longer_fresh(self, book: DecisionBook, clock: FakeClock) -> None:
        clock.advance(FRESH_SECONDS)
        assert book.redeem(asked(), WELL) == DECISION
        clock.advance(0.1)
        with pytest.raises(DecisionExpired, match="is unknown here or older than 300 s"):
            book.redeem(asked(), WELL)

    def test_the_wall_clock_has_no_say(self, book: DecisionBook, clock: FakeClock) -> None:
        clock.now_seconds += 86_400.0
        assert book.redeem(asked(), WELL) == DECISION

    def test_who_is_ill_now_is_left_out_and_named(self, book: DecisionBook) -> None:
        found = book.redeem(asked(), ill(one=9.0)).plan
        assert [one.deployment.id for one in found.candidates] == ["two"]
        assert found.rejections == (DENIED, rejection("one", ExclusionReason.COOLDOWN))
        assert book.redeem(asked(), WELL) == DECISION

    def test_when_all_are_ill_it_says_when_to_try_again(self, book: DecisionBook) -> None:
        with pytest.raises(NobodyHealthy) as caught:
            book.redeem(asked(), ill(one=9.0, two=4.0))
        assert caught.value.retry_after_seconds == 4.0
        assert [one.deployment_id for one in caught.value.rejections] == ["one", "two"]

    def test_when_operators_stopped_all_waiting_does_not_help(self, book: DecisionBook) -> None:
        stopped = {name: rejection(name, ExclusionReason.KILL_SWITCH) for name in ("one", "two")}
        with pytest.raises(NoEligibleDeployment) as caught:
            book.redeem(asked(), HealthView(stopped))
        assert [one.deployment_id for one in caught.value.rejections] == ["one", "two"]
        with pytest.raises(NobodyHealthy):
            book.redeem(asked(), HealthView({**stopped, **ill(two=4.0).rejections}))


class TestRefused:
    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"decision_id": "dec_2"}, "unknown here"),
            ({"tenant": "another"}, "unknown here"),
            ({"request_digest": b"other"}, "made for another request"),
            ({"request_digest": b""}, "made for another request"),
            ({"snapshot": snapshot(ONE, TWO, version="v2")}, "made under another policy"),
        ],
    )
    def test_it_says_why_and_what_to_do(self, book: DecisionBook, changes: dict[str, Any], why: str) -> None:
        with pytest.raises(DecisionExpired, match=why) as caught:
            book.redeem(replace(asked(), **changes), WELL)
        assert str(caught.value).endswith("ask Route again, or leave decision_id empty")


def test_the_oldest_is_forgotten_when_there_are_too_many(book: DecisionBook) -> None:
    for place in range(MOST_DECISIONS - 1):
        book.keep(replace(DECISION, id=f"more_{place}"), asked())
    assert book.redeem(asked(), WELL) == DECISION
    book.keep(replace(DECISION, id="last"), asked())
    with pytest.raises(DecisionExpired):
        book.redeem(asked(), WELL)
    assert book.redeem(replace(asked(), decision_id="more_0"), WELL).id == "more_0"
