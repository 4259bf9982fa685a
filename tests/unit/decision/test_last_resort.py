"""What answers without a model: there for every tier and region, after all that have one, and never in their way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from kit.catalog import circumstances, deployment, rejection, snapshot
from pointsman_server.decision.engine import decide
from pointsman_server.domain.catalog import Deployment, Dialect, RoutingRule, RuleCondition, Snapshot
from pointsman_server.domain.errors import NobodyHealthy, NoEligibleDeployment, UnsupportedContent
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.plan import ExclusionReason
from pointsman_server.domain.request import Capability, DataClass, RoutingConstraints, Tier

FREE: Mapping[str, Any] = {"tier": Tier.LIGHT, "capabilities": frozenset(), "quality": 0.05}


def local(name: str = "kb") -> Deployment:
    return deployment(name, of=FREE, by={"dialect": Dialect.LOCAL_KNOWLEDGE}, approved_data_class=DataClass.RESTRICTED)


CHEAP = deployment("cheap", of={"tier": Tier.LIGHT, "quality": 0.1})
GOOD = deployment("good", of={"tier": Tier.ADVANCED, "quality": 0.9})


def order(policy: Snapshot, **asked: Any) -> list[str]:
    return [one.deployment.id for one in decide(circumstances(**asked), policy).candidates]


@pytest.mark.parametrize("tier", Tier)
@pytest.mark.parametrize("quality_bias", [0.0, 1.0])
def test_it_comes_after_all_models(tier: Tier, quality_bias: float) -> None:
    policy = snapshot(local("aaa"), CHEAP, GOOD)
    assert order(policy, quality_bias=quality_bias)[-1] == "aaa"
    assert order(policy, tier=tier)[-1] == "aaa"


def test_alone_it_answers_everything_but_tools_and_images() -> None:
    policy = snapshot(local())
    harmless = frozenset(Capability) - {Capability.TOOLS, Capability.VISION}
    constraints = RoutingConstraints(data_class=DataClass.RESTRICTED, regions=frozenset({"eu"}))
    assert order(policy, capabilities=harmless, tier=Tier.ADVANCED, constraints=constraints) == ["kb"]
    for capability in (Capability.TOOLS, Capability.VISION):
        with pytest.raises(NoEligibleDeployment) as caught:
            order(policy, capabilities=frozenset({capability}))
        assert [one.reason for one in caught.value.rejections] == [ExclusionReason.CAPABILITY]


def test_pinned_and_lacking_it_is_told() -> None:
    with pytest.raises(UnsupportedContent) as caught:
        order(snapshot(local(), GOOD), deployment="kb", capabilities=frozenset({Capability.TOOLS}))
    assert "lacks tools" in caught.value.problems[0].description


@pytest.mark.parametrize(
    ("chain", "expected"),
    [
        (("kb", "good"), ["kb", "good", "cheap"]),
        (("good", "kb"), ["good", "cheap", "kb"]),
        (("kb",), ["kb", "good", "cheap"]),
    ],
)
def test_only_who_lists_it_first_asks_it_first(chain: tuple[str, ...], expected: list[str]) -> None:
    policy = snapshot(local(), CHEAP, GOOD, tier_chains={Tier.ADVANCED: chain}, quality_bias=1.0)
    plan = decide(circumstances(), snapshot(local(), CHEAP, GOOD))
    assert plan.candidates[-1].score_parts[-1].name == "last_resort"
    rules = (RoutingRule("advanced", RuleCondition(), tier=Tier.ADVANCED),)
    listed = snapshot(*policy.deployments.values(), tier_chains=policy.tier_chains, rules=rules, quality_bias=1.0)
    assert order(listed) == expected


def test_a_rule_may_prefer_it_too() -> None:
    rules = (RoutingRule("faq", RuleCondition(), prefer=("kb", "good")),)
    assert order(snapshot(local(), CHEAP, GOOD, rules=rules)) == ["kb", "good", "cheap"]
    rules = (RoutingRule("faq", RuleCondition(), prefer=("good", "kb")),)
    assert order(snapshot(local(), CHEAP, GOOD, rules=rules)) == ["good", "cheap", "kb"]


def test_that_it_cannot_help_hides_no_better_reason() -> None:
    ill = HealthView({"good": rejection("good", ExclusionReason.BREAKER_OPEN)}, {"good": 12.0}, {})
    with pytest.raises(NobodyHealthy):
        order(snapshot(local(), GOOD), health=ill, capabilities=frozenset({Capability.TOOLS}))
