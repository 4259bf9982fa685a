from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from kit.catalog import EVERYTHING, circumstances, deployment, judged, rejection, request, snapshot
from pointsman_server.decision.facts import facts_of
from pointsman_server.decision.filters import Needs, reject, rules_for, work_out_needs
from pointsman_server.decision.rules import gather_wishes
from pointsman_server.domain.catalog import Deployment, RoutingRule, RuleCondition, Snapshot
from pointsman_server.domain.facts import Circumstances
from pointsman_server.domain.health import HealthView, Observed
from pointsman_server.domain.message import ImagePart, Message, Role, TextPart
from pointsman_server.domain.plan import ExclusionReason, Rejection, TokenEstimate
from pointsman_server.domain.request import (
    Capability,
    CompletionRequest,
    DataClass,
    GenerationConfig,
    ReasoningEffort,
    RoutingConstraints,
    Tier,
    Tool,
)

OPEN = rejection("one", ExclusionReason.BREAKER_OPEN)
COOLING = rejection("one", ExclusionReason.COOLDOWN)
TOOL = Tool("f", "", {})
IMAGE = Message(Role.USER, (TextPart("what is it?"), ImagePart(b"", "image/png")))


@dataclass(frozen=True)
class Case:
    """The deployment `one` and what is asked of it; `reason` None means that it may answer."""

    reason: ExclusionReason | None
    detail: str = ""
    asked: CompletionRequest = field(default_factory=request)
    one: Deployment = field(default_factory=lambda: deployment("one"))
    health: HealthView = field(default_factory=HealthView)
    policy: dict[str, Any] = field(default_factory=dict)


def wants(**constraints: Any) -> CompletionRequest:
    return request(constraints=RoutingConstraints(**constraints))


def generates(**generation: Any) -> CompletionRequest:
    return request(generation=GenerationConfig(**generation))


def without(*capabilities: Capability, **changes: Any) -> Deployment:
    return deployment("one", of={"capabilities": EVERYTHING - set(capabilities), **changes})


DENIED, ALLOWED = ExclusionReason.DENIED, ExclusionReason.NOT_ALLOWED
NAMED: dict[str, Any] = {"policy": {"aliases": {"other-name": "one"}}}
CHAINED: dict[str, Any] = {"policy": {"tier_chains": {Tier.LIGHT: ("one",)}}}
SMALL = deployment("one", of={"context_window_tokens": 101})
SLOW = deployment("one", expected_first_token_seconds=2.0)
FAST = HealthView(observed={"one": Observed(1_000.0, 0.5, 0.9, 1_000.0, 0.0)})
LACKS = "its model lacks"


def ruled(**rule: Any) -> dict[str, Any]:
    """A policy with the one rule `house`."""
    return {"policy": {"rules": (RoutingRule("house", RuleCondition(), **rule),)}}


TABLE: dict[str, Case] = {
    "nothing asked": Case(None),
    "pinned": Case(None, asked=request(deployment="one")),
    "pinned by alias": Case(None, asked=request(deployment="other-name"), **NAMED),
    "another pinned": Case(ExclusionReason.NOT_PINNED, "the request pins two", request(deployment="two")),
    "denied": Case(DENIED, "constraints.denied_deployments names it", wants(denied_deployments=frozenset({"one"}))),
    "denied by alias": Case(DENIED, "names it", wants(denied_deployments=frozenset({"other-name"})), **NAMED),
    "another denied": Case(None, asked=wants(denied_deployments=frozenset({"two"}))),
    "allowed": Case(None, asked=wants(allowed_deployments=frozenset({"one", "two"}))),
    "allowed by alias": Case(None, asked=wants(allowed_deployments=frozenset({"other-name"})), **NAMED),
    "another allowed": Case(ALLOWED, "does not name it", wants(allowed_deployments=frozenset({"two"}))),
    "denied and not allowed": Case(
        DENIED, asked=wants(allowed_deployments=frozenset({"two"}), denied_deployments=frozenset({"one"}))
    ),
    "its tier": Case(None, asked=request(tier=Tier.STANDARD)),
    "a weaker tier asked": Case(
        ExclusionReason.TIER, "it is of tier standard, the request asks for light", request(tier=Tier.LIGHT)
    ),
    "a stronger tier asked": Case(ExclusionReason.TIER, "asks for advanced", request(tier=Tier.ADVANCED)),
    "in the chain of the tier": Case(None, asked=request(tier=Tier.LIGHT), **CHAINED),
    "in the chain of another tier": Case(ExclusionReason.TIER, asked=request(tier=Tier.ADVANCED), **CHAINED),
    "data it is approved for": Case(
        None,
        asked=wants(data_class=DataClass.INTERNAL),
        one=deployment("one", approved_data_class=DataClass.CONFIDENTIAL),
    ),
    "data as sensitive as approved": Case(
        None,
        asked=wants(data_class=DataClass.CONFIDENTIAL),
        one=deployment("one", approved_data_class=DataClass.CONFIDENTIAL),
    ),
    "data too sensitive": Case(
        ExclusionReason.DATA_CLASS,
        "it is approved for internal data, the request carries confidential data",
        wants(data_class=DataClass.CONFIDENTIAL),
        deployment("one", approved_data_class=DataClass.INTERNAL),
    ),
    "one of the regions": Case(
        None, asked=wants(regions=frozenset({"eu", "us"})), one=deployment("one", regions=frozenset({"eu", "asia"}))
    ),
    "another region": Case(
        ExclusionReason.REGION,
        "it serves from asia, us",
        wants(regions=frozenset({"eu"})),
        deployment("one", regions=frozenset({"us", "asia"})),
    ),
    "no region named": Case(ExclusionReason.REGION, "from no named region", wants(regions=frozenset({"eu"}))),
    "required capability": Case(None, asked=wants(required_capabilities=frozenset({Capability.WEB_SEARCH}))),
    "required and lacking": Case(
        ExclusionReason.CAPABILITY,
        f"{LACKS} seed, web_search",
        wants(required_capabilities=frozenset({Capability.WEB_SEARCH, Capability.SEED})),
        without(Capability.WEB_SEARCH, Capability.SEED),
    ),
    "no tools": Case(ExclusionReason.CAPABILITY, "tools", generates(tools=(TOOL,)), without(Capability.TOOLS)),
    "no schema": Case(
        ExclusionReason.CAPABILITY, "json_schema", generates(response_schema={}), without(Capability.JSON_SCHEMA)
    ),
    "no reasoning": Case(
        ExclusionReason.CAPABILITY,
        "reasoning",
        generates(reasoning_effort=ReasoningEffort.LOW),
        without(Capability.REASONING),
    ),
    "no reasoning wanted": Case(
        None, asked=generates(reasoning_effort=ReasoningEffort.NONE), one=without(Capability.REASONING)
    ),
    "no seed": Case(ExclusionReason.CAPABILITY, "seed", generates(seed=0), without(Capability.SEED)),
    "no temperature": Case(
        ExclusionReason.CAPABILITY, "sampling", generates(temperature=0.0), without(Capability.SAMPLING)
    ),
    "no top_p": Case(ExclusionReason.CAPABILITY, "sampling", generates(top_p=0.5), without(Capability.SAMPLING)),
    "blind": Case(ExclusionReason.CAPABILITY, "vision", request(messages=(IMAGE,)), without(Capability.VISION)),
    "input fits": Case(None, one=SMALL),
    "input fills the window": Case(
        ExclusionReason.CONTEXT_WINDOW,
        "the input has about 100 of its tokens, its window 100",
        one=deployment("one", of={"context_window_tokens": 100}),
    ),
    "window as small as asked": Case(None, asked=wants(min_context_tokens=101), one=SMALL),
    "window smaller than asked": Case(
        ExclusionReason.CONTEXT_WINDOW,
        "its window has 101 tokens, constraints.min_context_tokens asks for 102",
        wants(min_context_tokens=102),
        SMALL,
    ),
    "first token in time": Case(None, asked=wants(max_first_token_seconds=2.0), one=SLOW),
    "first token too late": Case(
        ExclusionReason.FIRST_TOKEN_LATENCY,
        "its first token is expected after 2.00 s, the request allows 1.90 s",
        wants(max_first_token_seconds=1.9),
        SLOW,
    ),
    "first token observed to be in time": Case(None, "", wants(max_first_token_seconds=1.9), SLOW, FAST),
    "a rule denies it": Case(ExclusionReason.RULE, "the policy's rule 'house' leaves it out", **ruled(deny={"one"})),
    "a rule denies another": Case(None, **ruled(deny={"two"})),
    "a rule wants it": Case(None, **ruled(only={"one"})),
    "a rule wants another": Case(ExclusionReason.RULE, "rule 'house'", **ruled(only={"two"})),
    "a rule leaves out what is pinned": Case(
        ExclusionReason.RULE, "", request(deployment="one"), **ruled(deny={"one"})
    ),
    "a rule requires what it has": Case(None, **ruled(require={Capability.WEB_SEARCH})),
    "a rule requires what it lacks": Case(
        ExclusionReason.CAPABILITY,
        f"{LACKS} web_search",
        one=without(Capability.WEB_SEARCH),
        **ruled(require={Capability.WEB_SEARCH}),
    ),
    "a rule takes it to need another tier": Case(None, **ruled(tier=Tier.ADVANCED)),
    "no key": Case(
        ExclusionReason.PROVIDER_UNUSABLE,
        "environment variable K is not set",
        one=deployment("one", by={"unusable_because": "environment variable K is not set"}),
    ),
    "open breaker": Case(ExclusionReason.BREAKER_OPEN, OPEN.detail, health=HealthView({"one": OPEN})),
    "cooldown": Case(ExclusionReason.COOLDOWN, COOLING.detail, health=HealthView({"one": COOLING})),
    "another is ill": Case(None, health=HealthView({"two": OPEN})),
}


def under(asked: CompletionRequest, health: HealthView) -> Circumstances:
    tokens = TokenEstimate(100, exact=True, upper_bound=125)
    return Circumstances(facts_of(asked, judged()), tokens, health)


def needs_of(found: Circumstances, policy: Snapshot) -> Needs:
    return work_out_needs(found, gather_wishes(found, policy), policy)


@pytest.mark.parametrize("row", TABLE)
def test_table(row: str) -> None:
    case = TABLE[row]
    policy = snapshot(case.one, deployment("two"), **case.policy)
    needs = needs_of(under(case.asked, case.health), policy)
    found = reject(rules_for(needs), needs, case.one)
    assert (found and found.reason) is case.reason
    if found is not None:
        assert found.deployment_id == "one"
        assert case.detail in found.detail


def test_the_table_has_every_reason_except_money_load_and_kill_switches() -> None:
    """What is too dear is left out when costs are known; what is full or stopped is in the health that is given."""
    reasons = {case.reason for case in TABLE.values()} - {None}
    elsewhere = {ExclusionReason.COST, ExclusionReason.BUSY, ExclusionReason.KILL_SWITCH}
    assert reasons == set(ExclusionReason) - elsewhere


WORST = deployment(
    "one",
    of={"capabilities": frozenset(), "context_window_tokens": 10},
    by={"unusable_because": "no key"},
    expected_first_token_seconds=9.0,
)
WORST_REQUEST = CompletionRequest(
    messages=(),
    tier=Tier.LIGHT,
    deployment="two",
    constraints=RoutingConstraints(
        required_capabilities=frozenset({Capability.SEED}),
        max_first_token_seconds=1.0,
        allowed_deployments=frozenset({"two"}),
        denied_deployments=frozenset({"one"}),
        data_class=DataClass.RESTRICTED,
        regions=frozenset({"eu"}),
    ),
)


def test_the_first_rule_that_speaks_gives_the_reason() -> None:
    """Each rule removed in turn lets the next one speak: the order is that of the callers' own choices first."""
    policy = snapshot(WORST, **ruled(deny={"one"})["policy"])
    needs = needs_of(under(WORST_REQUEST, HealthView({"one": OPEN})), policy)
    spoken = [said.reason for rule in rules_for(needs) if (said := rule(needs, WORST)) is not None]
    assert spoken == [
        ExclusionReason.NOT_PINNED,
        ExclusionReason.DENIED,
        ExclusionReason.NOT_ALLOWED,
        ExclusionReason.TIER,
        ExclusionReason.DATA_CLASS,
        ExclusionReason.REGION,
        ExclusionReason.RULE,
        ExclusionReason.CAPABILITY,
        ExclusionReason.CONTEXT_WINDOW,
        ExclusionReason.FIRST_TOKEN_LATENCY,
        ExclusionReason.PROVIDER_UNUSABLE,
        ExclusionReason.BREAKER_OPEN,
    ]
    first = reject(rules_for(needs), needs, WORST)
    assert isinstance(first, Rejection)
    assert first.reason is ExclusionReason.NOT_PINNED


def test_rules_that_can_say_nothing_are_not_asked() -> None:
    bare = needs_of(circumstances(), snapshot(deployment("one")))
    assert len(rules_for(bare)) == 3  # the model's kind, the window and the provider's key can always be wrong
    assert reject(rules_for(bare), bare, deployment("one")) is None


def test_what_rules_require_adds_up_with_what_the_request_needs() -> None:
    policy = snapshot(**ruled(require={Capability.WEB_SEARCH})["policy"])
    needs = needs_of(circumstances(capabilities=frozenset({Capability.SEED})), policy)
    assert needs.capabilities == {Capability.SEED, Capability.WEB_SEARCH}
