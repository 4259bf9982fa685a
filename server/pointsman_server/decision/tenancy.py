"""What a tenant's policy makes of a request: which deployments there are for it, and what its calls must respect."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pointsman_server.domain.catalog import Deployment, Snapshot
from pointsman_server.domain.facts import Circumstances
from pointsman_server.domain.governance import TenantPolicy
from pointsman_server.domain.request import RoutingConstraints


def tightened(constraints: RoutingConstraints, tenant: TenantPolicy) -> RoutingConstraints:
    """The request's constraints with those of its tenant: the higher data class, the lower cost cap."""
    least, cap = tenant.least_data_class, tenant.max_cost_per_request_micro_usd
    if least is not None and least > constraints.data_class:
        constraints = replace(constraints, data_class=least)
    own_cap = constraints.max_cost_micro_usd
    if cap is not None and (own_cap is None or cap < own_cap):
        constraints = replace(constraints, max_cost_micro_usd=cap)
    return constraints


def under_tenant(circumstances: Circumstances, tenant: TenantPolicy) -> Circumstances:
    """The circumstances with the tenant's own constraints; the same ones where it has none."""
    facts = circumstances.facts
    constraints = tightened(facts.constraints, tenant)
    if constraints is facts.constraints:
        return circumstances
    return replace(circumstances, facts=replace(facts, constraints=constraints))


def deployments_for(tenant: TenantPolicy, snapshot: Snapshot) -> Iterable[Deployment]:
    """The deployments that exist for this tenant. All others are as unknown to it as those that do not exist."""
    deployments = snapshot.deployments.values()
    if not (tenant.allowed_deployments or tenant.denied_deployments):
        return deployments
    return [one for one in deployments if tenant.may_use(one.id)]


def finds(tenant: TenantPolicy, name: str, snapshot: Snapshot) -> bool:
    """Whether this id or alias names a deployment that exists for the tenant."""
    deployment = snapshot.resolve(name)
    return deployment is not None and tenant.may_use(deployment.id)
