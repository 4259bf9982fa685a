from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from kit.catalog import call, deployment, plan, rejection, snapshot
from kit.clock import FakeClock
from kit.noting import InstantNotes, ListNotes
from pointsman_server.domain.call import Call, Decision
from pointsman_server.domain.errors import DecisionExpired, NobodyHealthy, NoEligibleDeployment
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.plan import ExclusionReason
from pointsman_server.domain.ports import StoreUnavailableError
from pointsman_server.execution.decisions import FRESH_SECONDS, MOST_DECISIONS, DecisionBook

ONE, TWO = deployment("one"), deployment("two")
DENIED = rejection("three", ExclusionReason.DENIED)
DECISION = Decision("dec_1", plan([ONE, TWO], rejections=(DENIED,)), 0.001)
WELL = HealthView()


def asked(**changes: Any) -> Call:
    return call(snapshot(ONE, TWO), decision_id="dec_1", request_digest=b"digest", **changes)


def content(decision: Decision) -> tuple[object, ...]:
    return decision.id, decision.plan, decision.latency_seconds, decision.template


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
        assert content(book.redeem(asked(), WELL)) == content(DECISION)
        assert content(book.redeem(asked(), WELL)) == content(DECISION)

    def test_until_it_is_no_longer_fresh(self, book: DecisionBook, clock: FakeClock) -> None:
        clock.advance(FRESH_SECONDS)
        assert content(book.redeem(asked(), WELL)) == content(DECISION)
        clock.advance(0.1)
        with pytest.raises(DecisionExpired, match="is unknown here or older than 300 s"):
            book.redeem(asked(), WELL)

    def test_the_wall_clock_has_no_say(self, book: DecisionBook, clock: FakeClock) -> None:
        clock.now_seconds += 86_400.0
        assert content(book.redeem(asked(), WELL)) == content(DECISION)

    def test_who_is_ill_now_is_left_out_and_named(self, book: DecisionBook) -> None:
        found = book.redeem(asked(), ill(one=9.0)).plan
        assert [one.deployment.id for one in found.candidates] == ["two"]
        assert found.rejections == (DENIED, rejection("one", ExclusionReason.COOLDOWN))
        assert content(book.redeem(asked(), WELL)) == content(DECISION)

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
    assert content(book.redeem(asked(), WELL)) == content(DECISION)
    book.keep(replace(DECISION, id="last"), asked())
    with pytest.raises(DecisionExpired):
        book.redeem(asked(), WELL)
    assert book.redeem(replace(asked(), decision_id="more_0"), WELL).id == "more_0"


class TestElsewhere:
    """Decisions that another process made."""

    @pytest.fixture
    def store(self, clock: FakeClock) -> ListNotes:
        return ListNotes(clock)

    @pytest.fixture
    def other(self, clock: FakeClock, store: ListNotes) -> DecisionBook:
        notes = InstantNotes(store)
        DecisionBook(clock, notes).keep(DECISION, asked(tenant="shop"))
        return DecisionBook(clock, notes)

    async def test_one_is_followed_as_if_it_had_been_made_here(self, other: DecisionBook, store: ListNotes) -> None:
        assert other.policy_version_of("dec_1") == ""
        await other.look_up("dec_1", "shop")
        assert other.policy_version_of("dec_1") == "v1"
        assert content(other.redeem(asked(tenant="shop"), WELL)) == content(DECISION)
        await other.look_up("dec_1", "shop")
        assert store.reads == 1, "what is known is not asked for"

    async def test_it_is_as_old_as_it_is(self, other: DecisionBook, clock: FakeClock) -> None:
        clock.advance(FRESH_SECONDS - 10.0)
        await other.look_up("dec_1", "shop")
        clock.advance(9.0)
        assert content(other.redeem(asked(tenant="shop"), WELL)) == content(DECISION)
        clock.advance(2.0)
        with pytest.raises(DecisionExpired, match="older than 300 s"):
            other.redeem(asked(tenant="shop"), WELL)

    async def test_another_tenant_finds_nothing(self, other: DecisionBook) -> None:
        await other.look_up("dec_1", "another")
        with pytest.raises(DecisionExpired, match="unknown here"):
            other.redeem(asked(tenant="another"), WELL)
        await other.look_up("dec_1", "shop")
        await other.look_up("dec_1", "another")
        with pytest.raises(DecisionExpired, match="unknown here"):
            other.redeem(asked(tenant="another"), WELL)

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"request_digest": b"other"}, "for another request"),
            ({"snapshot": snapshot(ONE, TWO, version="v2")}, "under another policy"),
            ({"snapshot": snapshot(ONE)}, "under another policy"),
        ],
    )
    async def test_what_it_was_not_made_for(self, other: DecisionBook, changes: dict[str, Any], why: str) -> None:
        await other.look_up("dec_1", "shop")
        with pytest.raises(DecisionExpired, match=why):
            other.redeem(replace(asked(tenant="shop"), **changes), WELL)

    async def test_one_that_this_version_cannot_read_is_unknown(self, other: DecisionBook, store: ListNotes) -> None:
        store.kept = {name: (b"{}", until) for name, (_, until) in store.kept.items()}
        with capture_logs() as lines:
            await other.look_up("dec_1", "shop")
        assert [line["event"] for line in lines] == ["decision_not_read"]
        assert other.policy_version_of("dec_1") == ""

    async def test_a_store_that_is_away_says_so(self, other: DecisionBook, store: ListNotes) -> None:
        store.down = True
        with pytest.raises(StoreUnavailableError):
            await other.look_up("dec_1", "shop")
