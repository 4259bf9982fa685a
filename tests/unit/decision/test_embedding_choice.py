"""Who turns texts into vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import circumstances, deployment, model, price, provider, rejection, snapshot
from pointsman_server.decision.embedding_choice import NOT_JUDGED, EmbeddingPlan, choose_embedding
from pointsman_server.decision.engine import decide
from pointsman_server.domain.catalog import Deployment, EmbeddingTraits, RoutingRule, RuleCondition, Snapshot
from pointsman_server.domain.errors import (
    ContextOverflow,
    DeploymentNotFound,
    NobodyHealthy,
    NoEligibleDeployment,
    Overloaded,
    UnsupportedContent,
)
from pointsman_server.domain.governance import Governance, TenantPolicy
from pointsman_server.domain.health import HealthView, Observed
from pointsman_server.domain.plan import ExclusionReason, TokenEstimate
from pointsman_server.domain.request import Capability, DataClass, RoutingConstraints
from pointsman_server.domain.tokenizer import Tokenizer

TRAITS = EmbeddingTraits(dimensions=8, max_inputs_per_call=3)
DEAR = model("dear", embedding=TRAITS, capabilities=frozenset(), price=price(500_000, 0))
CHEAP = model("cheap", embedding=TRAITS, capabilities=frozenset(), price=price(20_000, 0))
CHAT = deployment("chat")


def place(name: str, of: Any = CHEAP, **changes: Any) -> Deployment:
    return replace(deployment(name), model=of, **changes)


def sized(*tokens: int) -> tuple[TokenEstimate, ...]:
    return tuple(TokenEstimate(one, exact=True, upper_bound=one) for one in tokens)


def choose(
    policy: Snapshot, sizes: Sequence[TokenEstimate] = sized(10), dimensions: int | None = None, **facts: Any
) -> EmbeddingPlan:
    return choose_embedding(circumstances(**{"complexity": NOT_JUDGED, **facts}), sizes, dimensions, policy)


def order(plan: EmbeddingPlan) -> list[str]:
    return [one.deployment.id for one in plan.route.candidates]


def reasons(plan: EmbeddingPlan) -> dict[str, ExclusionReason]:
    return {one.deployment_id: one.reason for one in plan.route.rejections}


class TestModel:
    def test_the_cheapest_is_chosen_and_no_other_is_a_candidate(self) -> None:
        plan = choose(snapshot(CHAT, place("a", DEAR), place("b"), place("c")))
        assert order(plan) == ["b", "c"]
        assert reasons(plan) == {"a": ExclusionReason.NOT_PINNED, "chat": ExclusionReason.CAPABILITY}

    def test_of_equal_prices_the_first_by_id(self) -> None:
        other = replace(CHEAP, id="another")
        assert order(choose(snapshot(place("a"), place("b", other)))) == ["b"]

    def test_the_policy_may_name_another(self) -> None:
        policy = snapshot(place("a", DEAR), place("b"), embedding_model="dear")
        assert order(choose(policy)) == ["a"]

    @pytest.mark.parametrize("name", ["a", "far"])
    def test_a_pin_goes_before_all_and_is_alone(self, name: str) -> None:
        policy = snapshot(
            place("a", DEAR), place("a2", DEAR), place("b"), embedding_model="cheap", aliases={"far": "a"}
        )
        plan = choose(policy, deployment=name)
        assert order(plan) == ["a"]
        assert set(reasons(plan).values()) == {ExclusionReason.NOT_PINNED}

    def test_neither_health_nor_length_changes_the_model(self) -> None:
        policy = snapshot(place("a", DEAR), place("b"))
        ill = HealthView(rejections={"b": rejection("b", ExclusionReason.BREAKER_OPEN)}, back_in_seconds={"b": 7.0})
        with pytest.raises(NobodyHealthy) as caught:
            choose(policy, health=ill)
        assert caught.value.retry_after_seconds == 7.0
        short = replace(CHEAP, context_window_tokens=100)
        with pytest.raises(ContextOverflow) as overflow:
            choose(snapshot(place("a", DEAR), place("b", short)), sized(5, 500))
        assert overflow.value.problems[0].field == "inputs"

    def test_what_lasts_does(self) -> None:
        keyless = place("b", provider=provider("p", unusable_because="no key"))
        assert order(choose(snapshot(place("a", DEAR), keyless))) == ["a"]
        internal = RoutingConstraints(data_class=DataClass.INTERNAL)
        approved = place("a", DEAR, approved_data_class=DataClass.INTERNAL)
        assert order(choose(snapshot(approved, place("b")), constraints=internal)) == ["a"]
        longer = replace(DEAR, embedding=replace(TRAITS, dimensions=16))
        assert order(choose(snapshot(place("a", longer), place("b")), dimensions=16)) == ["a"]

    def test_a_model_without_a_deployment_for_the_tenant_is_none(self) -> None:
        policy = snapshot(
            place("a", DEAR), place("b"), embedding_model="cheap",
            governance=Governance(others=TenantPolicy(denied_deployments=frozenset({"b"}))),
        )  # fmt: skip
        with pytest.raises(NoEligibleDeployment):
            choose(policy)


class TestCandidates:
    def test_the_rules_favourite_then_the_sound_then_the_quick_then_by_id(self) -> None:
        quick = place("quick", expected_first_token_seconds=0.2)
        ill = place("ill", expected_first_token_seconds=0.1)
        policy = snapshot(place("z"), place("a"), quick, ill, place("loved"), rules=(rule(prefer=("loved",)),))
        failing = HealthView(observed={"ill": Observed(0, 0, 0, attempts=20, failures=20)})
        plan = choose(policy, health=failing, labels={"team": "one"})
        assert order(plan) == ["loved", "quick", "a", "z", "ill"]
        assert plan.route.applied_rules == ("r",)

    def test_rules_about_what_is_asked_say_nothing(self) -> None:
        policy = snapshot(
            place("a"), place("b"),
            rules=(
                rule("t", RuleCondition(tasks=frozenset({"chat"})), deny=frozenset({"a"})),
                rule("f", RuleCondition(needs_fresh_facts=False), deny=frozenset({"a"})),
                rule("o", only=frozenset({"chat"})),
            ),
        )  # fmt: skip
        plan = choose(policy, labels={"team": "one"})
        assert order(plan) == ["a", "b"]
        assert plan.route.applied_rules == ()

    @pytest.mark.parametrize("says", [{"deny": frozenset({"a"})}, {"only": frozenset({"b", "chat"})}])
    def test_other_rules_leave_out(self, says: dict[str, Any]) -> None:
        policy = snapshot(CHAT, place("a"), place("b"), rules=(rule(**says),))
        assert order(choose(policy, labels={"team": "one"})) == ["b"]
        assert order(choose(policy, labels={"team": "two"})) == ["a", "b"]

    def test_the_tenant_and_the_constraints_hold(self) -> None:
        secret = place("secret", approved_data_class=DataClass.RESTRICTED, regions=frozenset({"eu"}))
        tenant = TenantPolicy(least_data_class=DataClass.CONFIDENTIAL)
        policy = snapshot(secret, place("a"), governance=Governance(others=tenant))
        assert order(choose(policy)) == ["secret"]
        with pytest.raises(NoEligibleDeployment):
            choose(policy, constraints=RoutingConstraints(regions=frozenset({"us"})))
        with pytest.raises(NoEligibleDeployment):
            choose(policy, constraints=RoutingConstraints(denied_deployments=frozenset({"secret"})))
        with pytest.raises(NoEligibleDeployment):
            choose(policy, capabilities=frozenset({Capability.VISION}))

    def test_a_cost_cap_is_for_all_batches(self) -> None:
        policy = snapshot(place("a", replace(CHEAP, price=price(1_000_000, 0))))
        sizes = sized(*[100] * 7)
        assert choose(policy, sizes, constraints=RoutingConstraints(max_cost_micro_usd=700)).route
        with pytest.raises(NoEligibleDeployment):
            choose(policy, sizes, constraints=RoutingConstraints(max_cost_micro_usd=699))

    def test_all_places_taken_is_a_reason_to_wait(self) -> None:
        busy = HealthView(rejections={"a": rejection("a", ExclusionReason.BUSY)})
        with pytest.raises(Overloaded):
            choose(snapshot(CHAT, place("a")), health=busy)


class TestRefusals:
    def test_a_pin_that_nobody_knows(self) -> None:
        with pytest.raises(DeploymentNotFound):
            choose(snapshot(place("a")), deployment="b")

    def test_a_pin_that_answers(self) -> None:
        with pytest.raises(UnsupportedContent) as caught:
            choose(snapshot(CHAT, place("a")), deployment="chat")
        (problem,) = caught.value.problems
        assert problem.field == "deployment"
        assert "pin one of an embedding model" in problem.description

    def test_nobody_makes_vectors(self) -> None:
        with pytest.raises(NoEligibleDeployment):
            choose(snapshot(CHAT))

    @pytest.mark.parametrize(("variable", "wanted", "is_had"), [
        (False, 8, True), (False, 4, False), (True, 4, True), (True, 16, False),
    ])  # fmt: skip
    def test_dimensions(self, variable: bool, wanted: int, is_had: bool) -> None:
        policy = snapshot(place("a", replace(CHEAP, embedding=replace(TRAITS, variable_dimensions=variable))))
        for pin in ("", "a"):
            if is_had:
                assert order(choose(policy, dimensions=wanted, deployment=pin)) == ["a"]
            else:
                with pytest.raises(UnsupportedContent if pin else NoEligibleDeployment):
                    choose(policy, dimensions=wanted, deployment=pin)


class TestBatches:
    @given(st.lists(st.integers(1, 40), min_size=1, max_size=40), st.integers(1, 7), st.integers(0, 60))
    def test_every_text_goes_once_in_order_and_within_the_limits(
        self, tokens: list[int], most_inputs: int, most_tokens: int
    ) -> None:
        traits = EmbeddingTraits(8, max_inputs_per_call=most_inputs, max_tokens_per_call=most_tokens)
        plan = choose(snapshot(place("a", replace(CHEAP, embedding=traits))), sized(*tokens))
        assert [one.start for one in plan.batches] == [0, *(one.end for one in plan.batches[:-1])]
        assert plan.batches[-1].end == len(tokens)
        for batch in plan.batches:
            texts = tokens[batch.start : batch.end]
            assert batch.tokens == TokenEstimate(sum(texts), exact=True, upper_bound=sum(texts))
            assert 1 <= len(texts) <= most_inputs
            assert not most_tokens or len(texts) == 1 or sum(texts) <= most_tokens
        assert plan.route.input_tokens.tokens == sum(tokens)

    def test_whoever_counts_highest_sets_the_limit(self) -> None:
        traits = EmbeddingTraits(8, max_tokens_per_call=100)
        counted_otherwise = replace(CHEAP, embedding=traits, tokenizer=Tokenizer.CL100K)
        plan = choose(snapshot(place("a", counted_otherwise)), sized(30, 30))
        assert len(plan.batches) == 2  # 30 of ours may be 76 of theirs


class TestCompletions:
    def test_never_choose_a_model_that_makes_vectors(self) -> None:
        policy = snapshot(CHAT, place("a", replace(CHEAP, quality=1.0)))
        plan = decide(circumstances(), policy)
        assert [one.deployment.id for one in plan.candidates] == ["chat"]
        assert [(one.deployment_id, one.reason) for one in plan.rejections] == [("a", ExclusionReason.CAPABILITY)]

    def test_vectors_say_nothing_of_why_nobody_answers(self) -> None:
        ill = HealthView(rejections={"chat": rejection("chat", ExclusionReason.COOLDOWN)})
        with pytest.raises(NobodyHealthy):
            decide(circumstances(health=ill), snapshot(CHAT, place("a")))
        with pytest.raises(ContextOverflow) as caught:
            decide(
                circumstances(tokens=TokenEstimate(10**6, exact=True, upper_bound=10**6)), snapshot(CHAT, place("a"))
            )
        assert caught.value.problems[0].field == "completion.messages"

    def test_a_pin_that_makes_vectors_is_named(self) -> None:
        with pytest.raises(UnsupportedContent) as caught:
            decide(circumstances(deployment="a"), snapshot(CHAT, place("a")))
        (problem,) = caught.value.problems
        assert problem.field == "completion.deployment"
        assert "EmbeddingService" in problem.description

    def test_vectors_set_no_measure(self) -> None:
        policy = snapshot(CHAT, place("a", replace(CHEAP, quality=1.0, context_window_tokens=10)))
        assert policy.strongest is CHAT
        assert policy.smallest_window_tokens == CHAT.model.context_window_tokens


def rule(name: str = "r", when: RuleCondition | None = None, **says: Any) -> RoutingRule:
    return RoutingRule(name, when or RuleCondition(labels={"team": frozenset({"one"})}), **says)
