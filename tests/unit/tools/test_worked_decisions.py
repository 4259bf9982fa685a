"""docs/decisions.md is what the router decides today, and shows what its titles say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kit.programs import ROOT, load_program
from pointsman.v1.completion_pb2 import Tier

working: Any = load_program("tools/worked_decisions.py")
CASES: list[dict[str, Any]] = json.loads((ROOT / "tests/fixtures/worked_decisions.json").read_text(encoding="utf-8"))
TITLES = [case["title"] for case in CASES]


@pytest.fixture(scope="module")
def worked() -> dict[str, Any]:
    """What is decided, by title."""
    return {one.title: one for one in working.work_out()}


@pytest.mark.slow
def test_the_page_is_up_to_date(worked: dict[str, Any]) -> None:
    page = (ROOT / "docs/decisions.md").read_text(encoding="utf-8").splitlines()
    assert working.page(list(worked.values())).splitlines() == page, "run `make decisions`"


def test_every_request_has_a_title_of_its_own() -> None:
    assert len(set(TITLES)) == len(TITLES) >= 20


@pytest.mark.parametrize("case", CASES, ids=TITLES)
def test_it_shows_what_it_says(case: dict[str, Any], worked: dict[str, Any]) -> None:
    shown, expected = worked[case["title"]], case.get("expect", {})
    if "refused" in expected:
        assert type(shown.error).__name__ == expected["refused"]
    else:
        assert shown.error is None
    assert shown.chosen == expected.get("chosen", shown.chosen)
    assert expected.get("excluded", {}).items() <= shown.excluded.items()


@pytest.mark.parametrize("case", [case for case in CASES if "expect" in case], ids=lambda case: case["title"])
def test_the_judgement_is_the_one_shown(case: dict[str, Any], worked: dict[str, Any]) -> None:
    decision, expected = worked[case["title"]].decision, case["expect"]
    if decision is None:
        assert "refused" in expected
        return
    if "tier" in expected:
        assert Tier.Name(decision.complexity.tier) == f"TIER_{expected['tier'].upper()}"
    assert set(expected.get("rules", ())) <= set(decision.applied_rules)
    assert decision.complexity.needs_fresh_facts >= expected.get("fresh", False)


def test_the_dial_trades_cost_for_quality(worked: dict[str, Any]) -> None:
    picks = [worked[title].decision.ranked[0] for title in TITLES if title.startswith("The dial")]
    assert [one.expected_quality for one in picks] == sorted(one.expected_quality for one in picks)
    assert picks[0].expected_cost_micro_usd < picks[-1].expected_cost_micro_usd


def test_memory_shapes_what_is_decided(worked: dict[str, Any]) -> None:
    """What happened before a request is the only difference between it and the first one."""
    plain, slow, useless = (
        {one.deployment: one for one in worked[title].decision.ranked}["sparrow-cloud"]
        for title in ("A fact", "A deployment has become slow", "Callers found a model useless")
    )
    assert slow.score < plain.score
    assert slow.expected_first_token.ToNanoseconds() > plain.expected_first_token.ToNanoseconds()
    assert useless.expected_quality < plain.expected_quality


def test_a_reason_is_given_for_everything(worked: dict[str, Any]) -> None:
    for one in worked.values():
        assert working.why(one).endswith(".")
        assert all(f"`{name}`" in working.page([one]) or name in working.page([one]) for name in one.excluded)


def test_usage_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert working.main([]) == 2
    assert "usage" in capsys.readouterr().err
