"""What a tenant may not use does not exist for it, and what its policy demands holds as if each request said it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import circumstances, deployment, price, snapshot
from kit.policies import NAMES, Asked, questions
from kit.properties import examples
from pointsman_server.adapters.stores.decision_file import StateFolder, read_decisions
from pointsman_server.decision.engine import decide
from pointsman_server.decision.replay import decide_again
from pointsman_server.decision.tenancy import tightened
from pointsman_server.domain.errors import DeploymentNotFound, NoEligibleDeployment, RouterError
from pointsman_server.domain.governance import Governance, TenantPolicy
from pointsman_server.domain.plan import ExclusionReason
from pointsman_server.domain.record import DecisionRecord, PlanSummary, summarise
from pointsman_server.domain.request import DataClass, RoutingConstraints

SHOP = "shop"


def policy(tenant: TenantPolicy, *deployments: Any, **changes: Any) -> Any:
    some = deployments or (deployment("open"), deployment("secret"))
    return snapshot(*some, governance=Governance({SHOP: tenant}), aliases={"best": "secret"}, **changes)


def decided(tenant: TenantPolicy, *deployments: Any, **asked: Any) -> Any:
    under = replace(circumstances(**asked), tenant=SHOP)
    return decide(under, policy(tenant, *deployments))


class TestUnknown:
    @pytest.mark.parametrize(
        "tenant",
        [TenantPolicy(denied_deployments=frozenset({"secret"})), TenantPolicy(allowed_deployments=frozenset({"open"}))],
    )
    def test_a_forbidden_deployment_is_neither_ranked_nor_excluded(self, tenant: TenantPolicy) -> None:
        plan = decided(tenant)
        assert [one.deployment.id for one in plan.candidates] == ["open"]
        assert plan.rejections == ()

    @pytest.mark.parametrize("name", ["secret", "best", "never-heard-of"])
    def test_pinning_it_reads_as_if_it_did_not_exist(self, name: str) -> None:
        with pytest.raises(DeploymentNotFound) as caught:
            decided(TenantPolicy(denied_deployments=frozenset({"secret"})), deployment=name)
        assert str(caught.value) == str(DeploymentNotFound())

    def test_others_see_it(self) -> None:
        under = replace(circumstances(), tenant="another")
        plan = decide(under, policy(TenantPolicy(denied_deployments=frozenset({"secret"}))))
        assert {one.deployment.id for one in plan.candidates} == {"open", "secret"}

    def test_a_denial_goes_before_a_permission(self) -> None:
        tenant = TenantPolicy(
            allowed_deployments=frozenset({"open", "secret"}), denied_deployments=frozenset({"secret"})
        )
        assert [one.deployment.id for one in decided(tenant).candidates] == ["open"]

    def test_naming_it_in_the_request_tells_nothing(self) -> None:
        tenant = TenantPolicy(denied_deployments=frozenset({"secret"}))
        for name in ("secret", "never-heard-of"):
            with pytest.raises(NoEligibleDeployment) as caught:
                decided(tenant, constraints=RoutingConstraints(allowed_deployments=frozenset({name})))
            assert [one.deployment_id for one in caught.value.rejections] == ["open"]

    def test_who_may_use_nothing_is_told_of_nothing(self) -> None:
        with pytest.raises(NoEligibleDeployment) as caught:
            decided(TenantPolicy(denied_deployments=frozenset({"open", "secret"})))
        assert caught.value.rejections == ()


class TestDataClass:
    def test_the_tenants_is_the_least(self) -> None:
        tenant = TenantPolicy(least_data_class=DataClass.CONFIDENTIAL)
        house = deployment("house", approved_data_class=DataClass.RESTRICTED)
        plan = decided(tenant, house, deployment("open"))
        assert [one.deployment.id for one in plan.candidates] == ["house"]
        (out,) = plan.rejections
        assert out.reason is ExclusionReason.DATA_CLASS
        assert out.detail == "it is approved for public data, every call of the tenant carries confidential data"

    def test_the_requests_own_may_be_higher(self) -> None:
        tenant = TenantPolicy(least_data_class=DataClass.INTERNAL)
        with pytest.raises(NoEligibleDeployment) as caught:
            decided(tenant, deployment("open"), constraints=RoutingConstraints(data_class=DataClass.RESTRICTED))
        assert "the request carries restricted data" in caught.value.rejections[0].detail


class TestCost:
    DEAR = deployment("dear", of={"price": price(100_000_000, 100_000_000)})
    CHEAP = deployment("cheap")

    def test_the_tenants_cap_excludes_and_clamps(self) -> None:
        plan = decided(TenantPolicy(max_cost_per_request_micro_usd=1_000), self.DEAR, self.CHEAP)
        (cheap,) = plan.candidates
        assert cheap.worst_cost_micro_usd <= 1_000
        assert cheap.max_output_tokens < 4_000
        (out,) = plan.rejections
        assert "1000 micro-USD of the tenant's max_cost_per_request_usd" in out.detail

    @pytest.mark.parametrize(("own", "told"), [(500, "500 micro-USD of max_cost_micro_usd"), (2_000, "1000 micro-USD")])
    def test_the_lower_of_both_counts(self, own: int, told: str) -> None:
        tenant = TenantPolicy(max_cost_per_request_micro_usd=1_000)
        constraints = RoutingConstraints(max_cost_micro_usd=own)
        plan = decided(tenant, self.DEAR, self.CHEAP, constraints=constraints)
        assert plan.candidates[0].worst_cost_micro_usd <= min(own, 1_000)
        assert told in plan.rejections[0].detail


def test_a_tenant_that_demands_nothing_costs_nothing() -> None:
    constraints = RoutingConstraints()
    assert tightened(constraints, TenantPolicy()) is constraints


_names = st.frozensets(st.sampled_from(NAMES), max_size=3)
_tenants = st.builds(
    TenantPolicy,
    allowed_deployments=st.just(frozenset()) | _names,
    denied_deployments=_names,
    least_data_class=st.none() | st.sampled_from(DataClass),
    max_cost_per_request_micro_usd=st.none() | st.integers(0, 100_000),
)


def outcome(under: Any, snapshot: Any) -> PlanSummary:
    try:
        return summarise(decide(under, snapshot))
    except RouterError as error:
        return PlanSummary(refusal=type(error).__name__)


@examples(150)
@given(questions, _tenants)
def test_it_is_as_if_the_rest_did_not_exist_and_the_request_had_said_it(asked: Asked, tenant: TenantPolicy) -> None:
    governed = replace(asked.policy, governance=Governance({SHOP: tenant}))
    under = replace(asked.under, tenant=SHOP)
    there = {name: one for name, one in asked.policy.deployments.items() if tenant.may_use(name)}
    bare = replace(asked.policy, deployments=there)
    bare.__dict__["strongest"] = governed.strongest  # costs are measured by the same yardstick for all tenants
    facts = asked.under.facts
    said = replace(asked.under, facts=replace(facts, constraints=tightened(facts.constraints, tenant)))
    assert outcome(under, governed) == outcome(said, bare)


@examples(60)
@given(questions, _tenants)
def test_nothing_forbidden_is_ever_named(asked: Asked, tenant: TenantPolicy) -> None:
    governed = replace(asked.policy, governance=Governance({SHOP: tenant}))
    found = outcome(replace(asked.under, tenant=SHOP), governed)
    named = {name for name, _, _ in found.ranked} | {name for name, _ in found.excluded}
    assert all(tenant.may_use(name) for name in named)
    assert named == {name for name in asked.policy.deployments if tenant.may_use(name)} or found.refusal


def test_a_recorded_decision_is_decided_again_for_its_tenant(tmp_path: Path) -> None:
    tenant = TenantPolicy(denied_deployments=frozenset({"secret"}), max_cost_per_request_micro_usd=1_000)
    governed = policy(tenant)
    under = replace(circumstances(), tenant=SHOP)
    folder = StateFolder(tmp_path)
    folder.open()
    folder.decisions.append(DecisionRecord("dec_1", "req_1", 1.0, "v1", under, summarise(decide(under, governed))))
    folder.close()
    (record,) = read_decisions(tmp_path)
    assert decide_again(record, governed) == record.outcome
    assert {name for name, *_ in decide_again(record, policy(TenantPolicy())).ranked} == {"open", "secret"}


def test_records_without_a_tenant_can_still_be_read(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    folder.open()
    folder.decisions.append(DecisionRecord("dec_1", "req_1", 1.0, "v1", circumstances(), PlanSummary(refusal="X")))
    folder.close()
    file = tmp_path / "decisions.jsonl"
    file.write_bytes(file.read_bytes().replace(b',"tenant":""', b""))
    assert b"tenant" not in file.read_bytes()
    (record,) = read_decisions(tmp_path)
    assert record.circumstances.tenant == ""
