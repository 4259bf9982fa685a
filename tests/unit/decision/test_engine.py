from __future__ import annotations

from typing import Any

import pytest

from kit.catalog import EVERYTHING, FEW_TOKENS, circumstances, deployment, judged, price, rejection, snapshot
from pointsman_server.decision.engine import decide
from pointsman_server.domain.catalog import FreshFacts, RoutingRule, RuleCondition, Snapshot
from pointsman_server.domain.errors import (
    ContextOverflow,
    DeploymentNotFound,
    NobodyHealthy,
    NoEligibleDeployment,
    UnsupportedContent,
)
from pointsman_server.domain.facts import Circumstances
from pointsman_server.domain.health import HealthView, Observed
from pointsman_server.domain.plan import ExclusionReason, TaskType, TokenEstimate
from pointsman_server.domain.request import Capability, RoutingConstraints, Tier

ONE, TWO = deployment("one"), deployment("two", of={"context_window_tokens": 200_000})
BOTH = snapshot(ONE, TWO, aliases={"best": "two"})


def tokens(count: int) -> TokenEstimate:
    return TokenEstimate(count, exact=True, upper_bound=count * 5 // 4)


def ill(*names: str, reason: ExclusionReason = ExclusionReason.BREAKER_OPEN, seconds: float = 30.0) -> HealthView:
    return HealthView({name: rejection(name, reason) for name in names}, dict.fromkeys(names, seconds))


def wants(**constraints: Any) -> Circumstances:
    return circumstances(constraints=RoutingConstraints(**constraints))


SEED = frozenset({Capability.SEED})


class TestPlan:
    def test_it_carries_what_it_was_made_of(self) -> None:
        plan = decide(circumstances(complexity=judged(Tier.LIGHT)), BOTH)
        assert (plan.policy_version, plan.input_tokens) == ("v1", FEW_TOKENS)
        assert plan.complexity == judged(Tier.LIGHT)
        assert [one.deployment for one in plan.candidates] == [ONE, TWO]
        assert plan.rejections == ()

    def test_a_pin_by_alias_leaves_one(self) -> None:
        plan = decide(circumstances(deployment="best"), BOTH)
        assert [one.deployment.id for one in plan.candidates] == ["two"]
        assert [(one.deployment_id, one.reason) for one in plan.rejections] == [("one", ExclusionReason.NOT_PINNED)]

    def test_an_observed_latency_is_told(self) -> None:
        health = HealthView(observed={"one": Observed(15.0, 0.2, 0.4, 15.0, 0.0)})
        plan = decide(circumstances(health=health), BOTH)
        assert [one.expected_first_token_seconds for one in plan.candidates] == [pytest.approx(0.4), 1.0]

    def test_the_dial_and_the_rules_that_had_a_say_are_told(self) -> None:
        rules = (
            RoutingRule("never", RuleCondition(tasks=frozenset({"code"})), quality_bias=1.0),
            RoutingRule("always", RuleCondition(), quality_bias=0.75),
        )
        plan = decide(circumstances(), snapshot(ONE, rules=rules))
        assert (plan.applied_rules, plan.quality_bias) == (("always",), 0.75)
        assert decide(circumstances(), snapshot(ONE, quality_bias=0.25)).quality_bias == 0.25


class TestNobody:
    def test_an_unknown_name(self) -> None:
        with pytest.raises(DeploymentNotFound):
            decide(circumstances(deployment="three"), BOTH)

    def test_longer_than_every_window(self) -> None:
        with pytest.raises(ContextOverflow) as caught:
            decide(circumstances(tokens=tokens(300_000)), BOTH)
        assert (caught.value.input_tokens, caught.value.largest_window_tokens) == (300_000, 200_000)

    def test_longer_than_the_windows_that_may_be_used(self) -> None:
        with pytest.raises(ContextOverflow) as caught:
            decide(
                circumstances(
                    tokens=tokens(150_000), constraints=RoutingConstraints(denied_deployments=frozenset({"two"}))
                ),
                BOTH,
            )
        assert caught.value.largest_window_tokens == 100_000

    def test_a_window_asked_for_is_no_overflow(self) -> None:
        with pytest.raises(NoEligibleDeployment) as caught:
            decide(wants(min_context_tokens=1_000_000), BOTH)
        assert [one.reason for one in caught.value.rejections] == [ExclusionReason.CONTEXT_WINDOW] * 2

    def test_too_long_for_one_and_too_blind_the_other(self) -> None:
        policy = snapshot(ONE, deployment("two", of={"capabilities": frozenset()}))
        with pytest.raises(NoEligibleDeployment) as caught:
            decide(circumstances(capabilities=SEED, tokens=tokens(150_000)), policy)
        reasons = {one.deployment_id: one.reason for one in caught.value.rejections}
        assert reasons == {"one": ExclusionReason.CONTEXT_WINDOW, "two": ExclusionReason.CAPABILITY}

    def test_a_pinned_model_that_cannot(self) -> None:
        policy = snapshot(deployment("one", of={"capabilities": EVERYTHING - {Capability.SEED}}), TWO)
        with pytest.raises(UnsupportedContent) as caught:
            decide(circumstances(deployment="one", capabilities=SEED), policy)
        assert [problem.field for problem in caught.value.problems] == ["completion.deployment"]
        assert "its model lacks seed" in str(caught.value)

    def test_all_out_of_service(self) -> None:
        health = HealthView(
            {
                "one": rejection("one", ExclusionReason.BREAKER_OPEN),
                "two": rejection("two", ExclusionReason.COOLDOWN),
            },
            {"one": 40.0, "two": 9.0},
        )
        with pytest.raises(NobodyHealthy) as caught:
            decide(circumstances(health=health), BOTH)
        assert caught.value.retry_after_seconds == 9.0
        assert [one.deployment_id for one in caught.value.rejections] == ["one", "two"]

    def test_the_pinned_one_out_of_service(self) -> None:
        with pytest.raises(NobodyHealthy) as caught:
            decide(circumstances(deployment="one", health=ill("one")), BOTH)
        assert [one.deployment_id for one in caught.value.rejections] == ["one"]
        assert caught.value.retry_after_seconds == 30.0

    def test_one_out_of_service_and_one_unfit(self) -> None:
        policy = snapshot(ONE, deployment("two", of={"capabilities": frozenset()}))
        with pytest.raises(NoEligibleDeployment) as caught:
            decide(circumstances(capabilities=SEED, health=ill("one")), policy)
        assert len(caught.value.rejections) == 2

    def test_everybody_excluded_by_the_caller(self) -> None:
        with pytest.raises(NoEligibleDeployment) as caught:
            decide(wants(denied_deployments=frozenset({"one", "two"})), BOTH)
        assert [one.reason for one in caught.value.rejections] == [ExclusionReason.DENIED] * 2

    def test_too_dear(self) -> None:
        with pytest.raises(NoEligibleDeployment) as caught:
            decide(wants(max_cost_micro_usd=1), BOTH)
        assert {one.reason for one in caught.value.rejections} == {ExclusionReason.COST}

    def test_no_deployment_at_all(self) -> None:
        with pytest.raises(NoEligibleDeployment) as caught:
            decide(circumstances(), snapshot())
        assert caught.value.rejections == ()

    def test_everybody_left_out_by_a_rule(self) -> None:
        policy = snapshot(ONE, TWO, rules=(RoutingRule("none", RuleCondition(), deny=frozenset({"one", "two"})),))
        with pytest.raises(NoEligibleDeployment) as caught:
            decide(circumstances(), policy)
        assert [one.reason for one in caught.value.rejections] == [ExclusionReason.RULE] * 2

    def test_whom_a_rule_leaves_out_says_nothing_of_the_others_health(self) -> None:
        policy = snapshot(ONE, TWO, rules=(RoutingRule("not_two", RuleCondition(), deny=frozenset({"two"})),))
        with pytest.raises(NobodyHealthy) as caught:
            decide(circumstances(health=ill("one")), policy)
        assert [one.deployment_id for one in caught.value.rejections] == ["one"]
        assert caught.value.retry_after_seconds == 30.0

    def test_nor_of_how_long_an_input_they_take(self) -> None:
        policy = snapshot(ONE, TWO, rules=(RoutingRule("one", RuleCondition(), only=frozenset({"one"})),))
        with pytest.raises(ContextOverflow) as caught:
            decide(circumstances(tokens=tokens(150_000)), policy)
        assert caught.value.largest_window_tokens == 100_000

    def test_everybody_stopped_by_an_operator(self) -> None:
        with pytest.raises(NoEligibleDeployment) as caught:
            decide(circumstances(health=stopped("one", "two")), BOTH)
        assert [one.reason for one in caught.value.rejections] == [ExclusionReason.KILL_SWITCH] * 2

    def test_whom_an_operator_stopped_says_nothing_of_the_others_health(self) -> None:
        health = HealthView({**stopped("two").rejections, **ill("one").rejections}, {"one": 30.0})
        with pytest.raises(NobodyHealthy) as caught:
            decide(circumstances(health=health), BOTH)
        assert [one.deployment_id for one in caught.value.rejections] == ["one"]
        assert caught.value.retry_after_seconds == 30.0

    def test_nobody_can_search_where_that_is_required(self) -> None:
        policy = snapshot(blind("one"), fresh_facts=FreshFacts.REQUIRE_SEARCH)
        with pytest.raises(NoEligibleDeployment) as caught:
            decide(circumstances(complexity=judged(needs_fresh_facts=True)), policy)
        assert "web_search" in caught.value.rejections[0].detail


def stopped(*names: str) -> HealthView:
    return HealthView({name: rejection(name, ExclusionReason.KILL_SWITCH) for name in names})


def blind(name: str, **of: Any) -> Any:
    return deployment(name, of={"capabilities": EVERYTHING - {Capability.WEB_SEARCH}, **of})


LOCAL = blind("local", tier=Tier.LIGHT, quality=0.4, price=price(0, 0))
MIDDLE = deployment("middle", of={"tier": Tier.STANDARD, "quality": 0.6, "price": price(1_000_000, 5_000_000)})
BEST = blind("best", tier=Tier.ADVANCED, quality=0.9, price=price(5_000_000, 25_000_000))
RULES = (
    RoutingRule("research", RuleCondition(labels={"agent": frozenset({"research"})}), tier=Tier.ADVANCED),
    RoutingRule("thrifty", RuleCondition(labels={"budget": frozenset({"*"})}), prefer=("local",)),
    RoutingRule("code", RuleCondition(tasks=frozenset({"code"})), quality_bias=1.0),
    RoutingRule("long", RuleCondition(least_input_tokens=50_000), deny=frozenset({"best"})),
)
LIGHT, HARD = judged(Tier.LIGHT), judged(Tier.ADVANCED)


@pytest.mark.parametrize(
    ("asked", "picks"),
    [
        ({"complexity": LIGHT}, "local"),
        ({}, "middle"),
        ({"complexity": HARD}, "best"),
        ({"complexity": HARD, "health": ill("best")}, "middle"),
        ({"complexity": LIGHT, "quality_bias": 1.0}, "best"),
        ({"complexity": LIGHT, "tier": Tier.STANDARD}, "middle"),
        ({"complexity": HARD, "deployment": "local"}, "local"),
        ({"complexity": HARD, "constraints": RoutingConstraints(max_cost_micro_usd=1_000)}, "middle"),
        ({"complexity": judged(Tier.LIGHT, needs_fresh_facts=True)}, "middle"),
        ({"complexity": LIGHT, "labels": {"agent": "research"}}, "best"),
        ({"complexity": LIGHT, "labels": {"agent": "chat"}}, "local"),
        ({"labels": {"agent": "research"}, "tier": Tier.LIGHT}, "local"),
        ({"complexity": HARD, "labels": {"budget": "q3"}}, "local"),
        ({"complexity": HARD, "labels": {"budget": "q3"}, "health": ill("local")}, "best"),
        ({"complexity": judged(task=TaskType.CODE)}, "best"),
        ({"complexity": judged(task=TaskType.CODE), "quality_bias": 0.0}, "middle"),
        ({"complexity": HARD, "tokens": tokens(60_000)}, "middle"),
        ({"complexity": LIGHT, "session": "middle"}, "local"),
        ({"capabilities": frozenset({Capability.WEB_SEARCH}), "complexity": LIGHT}, "middle"),
    ],
)
def test_decision_table(asked: dict[str, Any], picks: str) -> None:
    house = snapshot(LOCAL, MIDDLE, BEST, rules=RULES)
    assert decide(circumstances(**asked), house).candidates[0].deployment.id == picks


def test_affinity_starves_neither_health_nor_budget() -> None:
    def pick(policy: Snapshot, **asked: Any) -> str:
        return decide(circumstances(session="two", **asked), policy).candidates[0].deployment.id

    twins = snapshot(ONE, deployment("two"))
    assert pick(twins) == "two"
    assert pick(twins, health=ill("two")) == "one"
    dear = snapshot(ONE, deployment("two", of={"price": price(9_000_000, 9_000_000)}))
    assert pick(dear, constraints=RoutingConstraints(max_cost_micro_usd=500)) == "one"
