from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import EVERYTHING, FEW_TOKENS, deployment, rejection, request, snapshot
from kit.policies import Asked, questions
from kit.properties import examples
from pointsman_server.decision.engine import decide
from pointsman_server.decision.filters import implied_capabilities
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.errors import (
    ContextOverflow,
    DeploymentNotFound,
    NobodyHealthy,
    NoEligibleDeployment,
    RouterError,
    UnsupportedContent,
)
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.plan import ExclusionReason, Rejection, RoutePlan, TokenEstimate
from pointsman_server.domain.request import Capability, CompletionRequest, GenerationConfig, RoutingConstraints, Tier

WELL = HealthView()
ONE, TWO = deployment("one"), deployment("two", of={"context_window_tokens": 200_000})
BOTH = snapshot(ONE, TWO, aliases={"best": "two"})


def tokens(count: int) -> TokenEstimate:
    return TokenEstimate(count, exact=True, upper_bound=count * 5 // 4)


def ill(*names: str, reason: ExclusionReason = ExclusionReason.BREAKER_OPEN, seconds: float = 30.0) -> HealthView:
    return HealthView({name: rejection(name, reason) for name in names}, dict.fromkeys(names, seconds))


def wants(**constraints: Any) -> CompletionRequest:
    return request(constraints=RoutingConstraints(**constraints))


class TestPlan:
    def test_it_carries_what_it_was_made_of(self) -> None:
        plan = decide(request(), BOTH, WELL, FEW_TOKENS)
        assert (plan.policy_version, plan.input_tokens) == ("v1", FEW_TOKENS)
        assert plan.complexity.tier is Tier.LIGHT
        assert [one.deployment for one in plan.candidates] == [ONE, TWO]
        assert plan.rejections == ()

    def test_a_pin_by_alias_leaves_one(self) -> None:
        plan = decide(request(deployment="best"), BOTH, WELL, FEW_TOKENS)
        assert [one.deployment.id for one in plan.candidates] == ["two"]
        assert [(one.deployment_id, one.reason) for one in plan.rejections] == [("one", ExclusionReason.NOT_PINNED)]

    def test_an_observed_latency_is_told(self) -> None:
        health = HealthView(observed_first_token_seconds={"one": 0.25})
        plan = decide(request(), BOTH, health, FEW_TOKENS)
        assert [one.expected_first_token_seconds for one in plan.candidates] == [0.25, 1.0]


class TestNobody:
    def test_an_unknown_name(self) -> None:
        with pytest.raises(DeploymentNotFound):
            decide(request(deployment="three"), BOTH, WELL, FEW_TOKENS)

    def test_longer_than_every_window(self) -> None:
        with pytest.raises(ContextOverflow) as caught:
            decide(request(), BOTH, WELL, tokens(300_000))
        assert (caught.value.input_tokens, caught.value.largest_window_tokens) == (300_000, 200_000)

    def test_longer_than_the_windows_that_may_be_used(self) -> None:
        with pytest.raises(ContextOverflow) as caught:
            decide(wants(denied_deployments=frozenset({"two"})), BOTH, WELL, tokens(150_000))
        assert caught.value.largest_window_tokens == 100_000

    def test_a_window_asked_for_is_no_overflow(self) -> None:
        with pytest.raises(NoEligibleDeployment) as caught:
            decide(wants(min_context_tokens=1_000_000), BOTH, WELL, FEW_TOKENS)
        assert [one.reason for one in caught.value.rejections] == [ExclusionReason.CONTEXT_WINDOW] * 2

    def test_too_long_for_one_and_too_blind_the_other(self) -> None:
        policy = snapshot(ONE, deployment("two", of={"capabilities": frozenset()}))
        with pytest.raises(NoEligibleDeployment) as caught:
            decide(request(generation=GenerationConfig(seed=1)), policy, WELL, tokens(150_000))
        reasons = {one.deployment_id: one.reason for one in caught.value.rejections}
        assert reasons == {"one": ExclusionReason.CONTEXT_WINDOW, "two": ExclusionReason.CAPABILITY}

    def test_a_pinned_model_that_cannot(self) -> None:
        policy = snapshot(deployment("one", of={"capabilities": EVERYTHING - {Capability.SEED}}), TWO)
        with pytest.raises(UnsupportedContent) as caught:
            decide(request(deployment="one", generation=GenerationConfig(seed=1)), policy, WELL, FEW_TOKENS)
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
            decide(request(), BOTH, health, FEW_TOKENS)
        assert caught.value.retry_after_seconds == 9.0
        assert [one.deployment_id for one in caught.value.rejections] == ["one", "two"]

    def test_the_pinned_one_out_of_service(self) -> None:
        with pytest.raises(NobodyHealthy) as caught:
            decide(request(deployment="one"), BOTH, ill("one"), FEW_TOKENS)
        assert [one.deployment_id for one in caught.value.rejections] == ["one"]
        assert caught.value.retry_after_seconds == 30.0

    def test_one_out_of_service_and_one_unfit(self) -> None:
        policy = snapshot(ONE, deployment("two", of={"capabilities": frozenset()}))
        with pytest.raises(NoEligibleDeployment) as caught:
            decide(request(generation=GenerationConfig(seed=1)), policy, ill("one"), FEW_TOKENS)
        assert len(caught.value.rejections) == 2

    def test_everybody_excluded_by_the_caller(self) -> None:
        with pytest.raises(NoEligibleDeployment) as caught:
            decide(wants(denied_deployments=frozenset({"one", "two"})), BOTH, WELL, FEW_TOKENS)
        assert [one.reason for one in caught.value.rejections] == [ExclusionReason.DENIED] * 2

    def test_too_dear(self) -> None:
        with pytest.raises(NoEligibleDeployment) as caught:
            decide(wants(max_cost_micro_usd=1), BOTH, WELL, FEW_TOKENS)
        assert {one.reason for one in caught.value.rejections} == {ExclusionReason.COST}

    def test_no_deployment_at_all(self) -> None:
        with pytest.raises(NoEligibleDeployment) as caught:
            decide(request(), snapshot(), WELL, FEW_TOKENS)
        assert caught.value.rejections == ()


def outcome(asked: Asked) -> RoutePlan | RouterError:
    try:
        return decide(asked.request, asked.policy, asked.health, asked.tokens)
    except RouterError as error:
        return error


def chosen(asked: Asked) -> set[str]:
    found = outcome(asked)
    return {one.deployment.id for one in found.candidates} if isinstance(found, RoutePlan) else set()


def told(found: RoutePlan | RouterError) -> tuple[Rejection, ...]:
    assert isinstance(found, (RoutePlan, NoEligibleDeployment))
    return found.rejections


def keeps_every_rule(asked: Asked, one: Deployment) -> bool:
    """The hard rules once more, all at once and in plain words; money apart."""
    wanted, limits, model = asked.request, asked.request.constraints, one.model
    names = {one.id, *(alias for alias, target in asked.policy.aliases.items() if target == one.id)}
    chain = asked.policy.tier_chains.get(wanted.tier, ()) if wanted.tier else ()
    first_token = asked.health.observed_first_token_seconds.get(one.id, one.expected_first_token_seconds)
    return all(
        (
            not wanted.deployment or wanted.deployment in names,
            not names & limits.denied_deployments,
            not limits.allowed_deployments or names & limits.allowed_deployments,
            wanted.tier is None or model.tier is wanted.tier or one.id in chain,
            limits.data_class <= one.approved_data_class,
            not limits.regions or limits.regions & one.regions,
            limits.required_capabilities | implied_capabilities(wanted) <= model.capabilities,
            model.context_window_tokens >= limits.min_context_tokens,
            model.context_window_tokens > asked.tokens.tokens,
            limits.max_first_token_seconds is None or first_token <= limits.max_first_token_seconds,
            not one.provider.unusable_because,
            one.id not in asked.health.rejections,
        )
    )


class TestProperties:
    @examples(100)
    @given(questions())
    def test_everybody_is_candidate_or_rejected_exactly_once(self, asked: Asked) -> None:
        found = outcome(asked)
        if not isinstance(found, (RoutePlan, NoEligibleDeployment)):
            return
        candidates = [one.deployment.id for one in found.candidates] if isinstance(found, RoutePlan) else []
        rejected = [one.deployment_id for one in told(found)]
        assert sorted([*candidates, *rejected]) == sorted(asked.policy.deployments)

    @examples(100)
    @given(questions())
    def test_candidates_keep_every_rule_and_the_others_break_one(self, asked: Asked) -> None:
        found = outcome(asked)
        for one in asked.policy.deployments.values():
            if one.id in chosen(asked):
                assert keeps_every_rule(asked, one)
            elif isinstance(found, (RoutePlan, NoEligibleDeployment)):
                said = next(out.reason for out in told(found) if out.deployment_id == one.id)
                assert keeps_every_rule(asked, one) == (said is ExclusionReason.COST)
            else:
                assert not keeps_every_rule(asked, one)

    @examples(40)
    @given(questions())
    def test_the_same_inputs_give_the_same_plan(self, asked: Asked) -> None:
        first, second = outcome(asked), outcome(asked)
        assert type(first) is type(second)
        assert str(first) == str(second)

    @examples(40)
    @given(questions(), st.randoms(use_true_random=False))
    def test_the_order_of_the_policy_does_not_matter(self, asked: Asked, dice: Any) -> None:
        items = list(asked.policy.deployments.items())
        dice.shuffle(items)
        shuffled = replace(asked, policy=replace(asked.policy, deployments=dict(items)))
        first, second = outcome(asked), outcome(shuffled)
        assert type(first) is type(second)
        if isinstance(first, RoutePlan) and isinstance(second, RoutePlan):
            assert first.candidates == second.candidates

    @examples(80)
    @given(questions(), st.integers(0, 20_000), st.integers(0, 20_000))
    def test_a_higher_cost_cap_removes_nobody(self, asked: Asked, cap: int, more: int) -> None:
        def capped(micro_usd: int | None) -> set[str]:
            limits = replace(asked.request.constraints, max_cost_micro_usd=micro_usd)
            return chosen(replace(asked, request=replace(asked.request, constraints=limits)))

        assert capped(cap) <= capped(cap + more) <= capped(None)

    @examples(80)
    @given(questions(), st.data())
    def test_a_larger_window_does_not_remove_its_deployment(self, asked: Asked, data: st.DataObject) -> None:
        one = data.draw(st.sampled_from(sorted(asked.policy.deployments.values(), key=lambda one: one.id)))
        window = one.model.context_window_tokens + data.draw(st.integers(1, 3_000))
        wider = replace(one, model=replace(one.model, context_window_tokens=window))
        policy = replace(asked.policy, deployments={**asked.policy.deployments, one.id: wider})
        assert chosen(asked) <= chosen(replace(asked, policy=policy))

    @examples(60)
    @given(questions(), st.integers(0, 20_000))
    def test_no_candidate_can_cost_more_than_the_cap(self, asked: Asked, cap: int) -> None:
        limits = replace(asked.request.constraints, max_cost_micro_usd=cap)
        found = outcome(replace(asked, request=replace(asked.request, constraints=limits)))
        candidates = found.candidates if isinstance(found, RoutePlan) else ()
        assert all(one.worst_cost_micro_usd <= cap for one in candidates)

    @examples(60)
    @given(questions(), st.data())
    def test_only_the_pinned_one_answers(self, asked: Asked, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from([*asked.policy.deployments, *asked.policy.aliases]))
        pinned = asked.policy.resolve(name)
        assert pinned is not None
        unpinned = replace(asked, request=replace(asked.request, deployment=""))
        only = replace(asked, request=replace(asked.request, deployment=name))
        assert chosen(only) == chosen(unpinned) & {pinned.id}

    @examples(60)
    @given(questions())
    def test_output_stays_within_what_is_wanted_possible_and_left(self, asked: Asked) -> None:
        found = outcome(asked)
        wanted = asked.request.generation.max_output_tokens or asked.policy.default_max_output_tokens
        for one in found.candidates if isinstance(found, RoutePlan) else ():
            model = one.deployment.model
            assert 1 <= one.max_output_tokens <= min(wanted, model.max_output_tokens)
            assert asked.tokens.tokens + one.max_output_tokens <= model.context_window_tokens
            assert one.expected_cost_micro_usd <= one.worst_cost_micro_usd
