from __future__ import annotations

from typing import Any

import pytest

from kit.catalog import circumstances, deployment, judged, snapshot
from pointsman_server.decision.rules import Wishes, excluded_by, gather_wishes
from pointsman_server.domain.catalog import FreshFacts, RoutingRule, RuleCondition
from pointsman_server.domain.plan import TaskType, TokenEstimate
from pointsman_server.domain.request import Capability, Tier

RESEARCH = {"labels": {"agent": frozenset({"research", "analyst"})}}
ANY_TEAM = {"labels": {"team": frozenset({"*"})}}
BOTH = {"labels": {**RESEARCH["labels"], **ANY_TEAM["labels"]}}
CODE = {"tasks": frozenset({"code", "mathematics"})}
HARD = {"tiers": frozenset({Tier.ADVANCED})}
FRESH: dict[str, Any] = {"needs_fresh_facts": True}
STALE: dict[str, Any] = {"needs_fresh_facts": False}
LONG: dict[str, Any] = {"least_input_tokens": 1_000}


def tokens(count: int) -> TokenEstimate:
    return TokenEstimate(count, exact=True, upper_bound=count)


def rule(name: str = "one", when: dict[str, Any] | None = None, **does: Any) -> RoutingRule:
    return RoutingRule(name, RuleCondition(**(when or {})), **does)


def wishes(*rules: RoutingRule, policy: dict[str, Any] | None = None, **asked: Any) -> Wishes:
    return gather_wishes(circumstances(**asked), snapshot(deployment("d"), rules=rules, **(policy or {})))


@pytest.mark.parametrize(
    ("when", "asked", "applies"),
    [
        ({}, {}, True),
        (RESEARCH, {"labels": {"agent": "research"}}, True),
        (RESEARCH, {"labels": {"agent": "analyst", "team": "a"}}, True),
        (RESEARCH, {"labels": {"agent": "chat"}}, False),
        (RESEARCH, {"labels": {"agent": "*"}}, False),
        (RESEARCH, {"labels": {"other": "research"}}, False),
        (RESEARCH, {}, False),
        (ANY_TEAM, {"labels": {"team": "whatever"}}, True),
        (ANY_TEAM, {"labels": {"team": ""}}, True),
        (ANY_TEAM, {}, False),
        (BOTH, {"labels": {"agent": "research", "team": "a"}}, True),
        (BOTH, {"labels": {"agent": "research"}}, False),
        (CODE, {"complexity": judged(task=TaskType.CODE)}, True),
        (CODE, {"complexity": judged(task=TaskType.CHAT)}, False),
        (HARD, {"complexity": judged(Tier.ADVANCED)}, True),
        (HARD, {"complexity": judged(Tier.STANDARD)}, False),
        (HARD, {"complexity": judged(Tier.LIGHT), "tier": Tier.ADVANCED}, True),
        (HARD, {"complexity": judged(Tier.ADVANCED), "tier": Tier.LIGHT}, False),
        (FRESH, {"complexity": judged(needs_fresh_facts=True)}, True),
        (FRESH, {}, False),
        (STALE, {"complexity": judged(needs_fresh_facts=True)}, False),
        (STALE, {}, True),
        (LONG, {"tokens": tokens(1_000)}, True),
        (LONG, {"tokens": tokens(999)}, False),
        ({**RESEARCH, **LONG}, {"labels": {"agent": "research"}}, False),
        ({**RESEARCH, **LONG}, {"labels": {"agent": "research"}, "tokens": tokens(1_000)}, True),
    ],
)
def test_a_rule_applies_when_all_that_it_gives_holds(
    when: dict[str, Any], asked: dict[str, Any], applies: bool
) -> None:
    assert wishes(rule(when=when), **asked).applied_rules == (("one",) if applies else ())


class TestTier:
    def test_without_a_word_the_judgement_counts(self) -> None:
        assert wishes(complexity=judged(Tier.LIGHT)).tier is Tier.LIGHT

    def test_a_rule_goes_before_the_judgement_and_the_request_before_both(self) -> None:
        hard = rule(tier=Tier.ADVANCED)
        assert wishes(hard, complexity=judged(Tier.LIGHT)).tier is Tier.ADVANCED
        assert wishes(hard, complexity=judged(Tier.LIGHT), tier=Tier.STANDARD).tier is Tier.STANDARD

    def test_the_first_rule_that_says_one_counts(self) -> None:
        assert wishes(rule("a"), rule("b", tier=Tier.LIGHT), rule("c", tier=Tier.ADVANCED)).tier is Tier.LIGHT


class TestDial:
    def test_request_then_rules_then_policy(self) -> None:
        policy = {"quality_bias": 0.1}
        assert wishes(policy=policy).quality_bias == 0.1
        assert wishes(rule("a"), rule("b", quality_bias=0.6), policy=policy).quality_bias == 0.6
        assert wishes(rule(quality_bias=0.6), policy=policy, quality_bias=0.9).quality_bias == 0.9

    def test_nought_is_a_word_too(self) -> None:
        assert wishes(rule(quality_bias=0.0), policy={"quality_bias": 0.7}).quality_bias == 0.0
        assert wishes(rule(quality_bias=0.6), quality_bias=0.0).quality_bias == 0.0


class TestLists:
    def test_preferences_follow_each_other_once(self) -> None:
        assert wishes(rule("a", prefer=("x", "y")), rule("b", prefer=("z", "x"))).preferred == ("x", "y", "z")

    def test_what_is_required_adds_up(self) -> None:
        seed, tools = frozenset({Capability.SEED}), frozenset({Capability.TOOLS})
        assert wishes(rule("a", require=seed), rule("b", require=tools)).required == seed | tools

    def test_rules_that_do_not_apply_say_nothing(self) -> None:
        silent = rule(when=RESEARCH, tier=Tier.ADVANCED, quality_bias=1.0, prefer=("d",), deny=frozenset({"d"}))
        assert wishes(silent) == wishes()

    def test_the_rule_that_leaves_one_out_is_named(self) -> None:
        found = wishes(
            rule("a", only=frozenset({"x", "y"})), rule("b", deny=frozenset({"y"})), rule("c", only=frozenset({"x"}))
        )
        assert [excluded_by(found, name) for name in ("x", "y", "z")] == ["", "b", "a"]
        assert excluded_by(wishes(), "x") == ""


class TestFreshFacts:
    @pytest.mark.parametrize(
        ("word", "prefers", "required"),
        [
            (FreshFacts.PREFER_SEARCH, True, frozenset()),
            (FreshFacts.REQUIRE_SEARCH, False, frozenset({Capability.WEB_SEARCH})),
            (FreshFacts.IGNORE, False, frozenset()),
        ],
    )
    def test_the_policy_says_what_to_do(self, word: FreshFacts, prefers: bool, required: frozenset[Capability]) -> None:
        found = wishes(complexity=judged(needs_fresh_facts=True), policy={"fresh_facts": word})
        assert (found.prefers_search, found.required) == (prefers, required)

    @pytest.mark.parametrize("word", FreshFacts)
    def test_for_others_it_does_not_matter(self, word: FreshFacts) -> None:
        assert wishes(policy={"fresh_facts": word}) == wishes()

    def test_requirements_of_rules_are_kept(self) -> None:
        found = wishes(
            rule(require=frozenset({Capability.SEED})),
            complexity=judged(needs_fresh_facts=True),
            policy={"fresh_facts": FreshFacts.REQUIRE_SEARCH},
        )
        assert found.required == {Capability.SEED, Capability.WEB_SEARCH}


def test_without_anything_nothing_is_wished() -> None:
    assert wishes() == Wishes(Tier.STANDARD, 0.0)
