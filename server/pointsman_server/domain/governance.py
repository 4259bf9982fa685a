"""What tenants may use and spend, as the policy says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from pointsman_server.domain.caller import Role
from pointsman_server.domain.context import ContextPolicy
from pointsman_server.domain.request import DataClass
from pointsman_server.domain.safety import Safety
from pointsman_server.domain.trace_policy import TracePolicy


class Period(Enum):
    """What a budget is for. Days and months are those of UTC."""

    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class RateLimit:
    """At most so much in any minute; None is no limit. A minute's worth may come at once."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """At most so many micro-USD in a period, for calls that carry all of `labels` (name, value); none is all calls."""

    name: str
    period: Period
    limit_micro_usd: int
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """What one tenant may use and spend. `allowed_deployments` empty is all; `denied_deployments` goes before it."""

    limit: RateLimit = field(default_factory=RateLimit)
    end_user_limit: RateLimit = field(default_factory=RateLimit)
    budgets: tuple[Budget, ...] = ()
    max_cost_per_request_micro_usd: int | None = None
    allowed_deployments: frozenset[str] = frozenset()
    denied_deployments: frozenset[str] = frozenset()
    least_data_class: DataClass | None = None
    """All its calls are taken to be at least this sensitive."""
    suspended: bool = False
    context: ContextPolicy | None = None
    """How its inputs are made to fit; None is as for everybody."""
    safety: Safety | None = None
    """None is that of the policy."""
    traces: TracePolicy | None = None
    """What is recorded of its calls; None is as for everybody."""

    def may_use(self, deployment_id: str) -> bool:
        """Whether this deployment exists for the tenant."""
        if deployment_id in self.denied_deployments:
            return False
        return not self.allowed_deployments or deployment_id in self.allowed_deployments


class WhenCountersFail(Enum):
    """What happens to calls when the shared counters cannot be reached."""

    REFUSE = "refuse"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class Identity:
    """What the holder of a certificate may."""

    tenant: str
    roles: frozenset[Role]


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where budget alerts are posted. `unusable_because` is "" or why nothing can be sent (a missing secret, by name).

    `place` is the address as the policy gives it, which may be a reference: to many receivers the address is a secret.
    Without a `secret_reference` nothing is signed.
    """

    place: str
    secret_reference: str = ""
    url: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)
    unusable_because: str = ""


@dataclass(frozen=True, slots=True)
class Governance:
    """All tenants. Who is not listed has `others`; with `only_listed` he is refused.

    `identities` are those of client certificates, by the name in the certificate (a URI or DNS name).
    """

    tenants: Mapping[str, TenantPolicy] = field(default_factory=dict)
    others: TenantPolicy = field(default_factory=TenantPolicy)
    only_listed: bool = False
    identities: Mapping[str, Identity] = field(default_factory=dict)
    peer_limit: RateLimit = field(default_factory=RateLimit)
    """For each network address that calls come from."""
    when_counters_fail: WhenCountersFail = WhenCountersFail.REFUSE
    kill_switch_ends_streams: bool = False
    """Whether streams that run end when a kill switch stops them; otherwise only new calls are stopped."""
    webhook: Webhook | None = None
    kill_switch_keeps_local: bool = False
    """Whether knowledge bases in this process still answer while the global kill switch is on."""

    def of(self, tenant: str) -> TenantPolicy:
        """What this tenant may."""
        return self.tenants.get(tenant, self.others)
