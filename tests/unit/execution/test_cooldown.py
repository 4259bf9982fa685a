from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.domain.faults import FaultKind
from pointsman_server.execution.cooldown import Account, Cooldown


def refused(cooldown: Cooldown, times: int) -> list[float]:
    """The pauses after so many refusals, each at once after the pause before."""
    pauses = []
    for _ in range(times):
        now = cooldown.until_seconds
        pauses.append(cooldown.refuse(now, 1.0, 60.0))
        cooldown.extend(now + pauses[-1])
    return pauses


def test_it_doubles_while_it_does_not_help() -> None:
    assert refused(Cooldown(), 9) == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_however_often() -> None:
    assert refused(Cooldown(), 2_000)[-1] == 60


def test_who_is_served_after_it_begins_anew() -> None:
    cooldown = Cooldown()
    refused(cooldown, 4)
    cooldown.succeed(cooldown.until_seconds)
    assert refused(cooldown, 2) == [1, 2]


def test_attempts_at_the_same_time_are_refused_as_one() -> None:
    cooldown = Cooldown()
    assert [cooldown.refuse(5.0, 1.0, 60.0)] == [1]
    cooldown.extend(11.0)
    assert [cooldown.refuse(5.0, 1.0, 60.0) for _ in range(20)] == [1] * 20
    assert cooldown.refuse(11.0, 1.0, 60.0) == 2


def test_who_began_before_it_proves_nothing_by_being_served() -> None:
    cooldown = Cooldown()
    refused(cooldown, 4)
    cooldown.succeed(cooldown.until_seconds - 0.1)
    assert refused(cooldown, 1) == [16]


@examples(200)
@given(st.lists(st.floats(-100.0, 10_000.0)))
def test_it_is_never_shortened(wishes: list[float]) -> None:
    cooldown, longest = Cooldown(), 0.0
    for wish in wishes:
        cooldown.extend(wish)
        longest = max(longest, wish)
        assert cooldown.until_seconds == longest


def test_small_extensions_are_no_news() -> None:
    cooldown, told = Cooldown(), []
    for until in (0.5, 0.6, 1.4, 1.5, 1.6, 9.0, 3.0):
        cooldown.extend(until)
        told.append(cooldown.is_news())
    assert told == [True, False, False, True, False, True, False]


class TestAccount:
    def test_each_kind_of_loss_is_news_once_in_an_outage(self) -> None:
        account = Account("p")
        assert [account.lose(FaultKind.QUOTA), account.lose(FaultKind.QUOTA)] == [True, False]
        assert account.trouble == "the quota of its provider account is used up"
        assert [account.lose(FaultKind.AUTH), account.lose(FaultKind.AUTH)] == [True, False]
        assert account.trouble == "its provider refuses the key"

    @pytest.mark.parametrize(("began_at", "is_over"), [(99.0, False), (100.0, True)])
    def test_who_is_served_after_its_pause_ends_the_outage(self, began_at: float, is_over: bool) -> None:
        account = Account("p")
        account.cooldown.extend(100.0)
        account.lose(FaultKind.AUTH)
        account.serve(began_at)
        assert account.lose(FaultKind.AUTH) is is_over

    def test_it_can_be_said_to_be_well(self) -> None:
        account = Account("p")
        account.cooldown.extend(100.0)
        account.lose(FaultKind.AUTH)
        account.restore()
        assert (account.cooldown.until_seconds, account.lose(FaultKind.AUTH)) == (0.0, True)

    def test_what_others_told_of_it_has_a_wording_too(self) -> None:
        assert Account("p").trouble == "its provider account is out of service"
