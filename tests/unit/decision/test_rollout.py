"""Who gets the canary: a true share, always the same ones, and only more of them as it grows."""

from __future__ import annotations

from itertools import pairwise
from math import sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.decision.rollout import in_canary
from pointsman_server.domain.control import Rollout, RolloutKind

KEYS = 10_000


def canary(percent: int, version: str = "v2") -> Rollout:
    return Rollout(version, RolloutKind.CANARY, percent)


def chosen(percent: int, version: str = "v2", tenant: str = "shop") -> set[int]:
    return {number for number in range(KEYS) if in_canary(canary(percent, version), tenant, f"session-{number}")}


@pytest.mark.parametrize("percent", [1, 2, 10, 50, 90, 99])
def test_the_share_is_true(percent: int) -> None:
    share = percent / 100
    sigma = sqrt(KEYS * share * (1 - share))
    assert abs(len(chosen(percent)) - KEYS * share) <= 3 * sigma


@pytest.mark.parametrize(("percent", "count"), [(0, 0), (-1, 0), (100, KEYS), (101, KEYS)])
def test_the_ends_are_exact(percent: int, count: int) -> None:
    assert len(chosen(percent)) == count


def test_a_larger_share_only_adds() -> None:
    shares = [chosen(percent) for percent in (0, 1, 10, 25, 50, 99, 100)]
    for smaller, larger in pairwise(shares):
        assert smaller < larger


def test_others_try_another_version_and_in_another_tenant() -> None:
    first, second, elsewhere = chosen(50), chosen(50, "v3"), chosen(50, tenant="lab")
    for other in (second, elsewhere):
        assert abs(len(first & other) - KEYS / 4) <= 3 * sqrt(KEYS * 0.25 * 0.75)


def test_a_shadow_gets_nobody() -> None:
    assert not any(in_canary(Rollout("v2", RolloutKind.SHADOW, 100), "shop", str(number)) for number in range(100))


def test_it_is_the_same_everywhere_and_for_ever() -> None:
    """Other processes, and later versions of this code, must draw the same: written down once."""
    assert sorted(chosen(50))[:12] == [0, 2, 5, 6, 7, 10, 18, 19, 21, 22, 24, 25]


@examples(300)
@given(st.text(), st.text(), st.integers(0, 99))
def test_any_text_is_a_key(tenant: str, key: str, percent: int) -> None:
    was = in_canary(canary(percent), tenant, key)
    assert was == in_canary(canary(percent), tenant, key)
    assert was <= in_canary(canary(percent + 1), tenant, key)


def test_neighbours_do_not_run_into_each_other() -> None:
    one = [in_canary(canary(50), f"{number}a", "b") for number in range(64)]
    other = [in_canary(canary(50), f"{number}", "ab") for number in range(64)]
    assert one != other
