"""What operators set while the service runs, as one value that every process holds and renews when it changes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pointsman_server.domain.caller import Role


@dataclass(frozen=True, slots=True)
class Key:
    """An API key without its secret: `digest` is the SHA-256 of the whole key. Times are seconds since the epoch."""

    id: str
    tenant: str
    roles: frozenset[Role]
    digest: bytes = field(repr=False)
    note: str = ""
    created_at: float = 0.0
    expires_at: float | None = None
    revoked_at: float | None = None

    def is_valid(self, now: float) -> bool:
        """Whether it opens the door at this moment."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


class KillScope(Enum):
    """What a kill switch stops."""

    GLOBAL = "global"
    TENANT = "tenant"
    PROVIDER = "provider"


@dataclass(frozen=True, slots=True)
class KillSwitch:
    """A kill switch that is on; `target` is a tenant or a provider's id, "" for the global one."""

    scope: KillScope
    target: str = ""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """A policy in the database; `yaml` is its text, "" where only the list is asked for."""

    version: str
    yaml: str
    author: str
    applied_at: float
    comment: str


class RolloutKind(Enum):
    """CANARY serves a share of the calls; SHADOW only decides beside them and records the difference."""

    CANARY = "canary"
    SHADOW = "shadow"


@dataclass(frozen=True, slots=True)
class Rollout:
    """A policy that is being tried; `percent` of the tenants' conversations for a canary."""

    version: str
    kind: RolloutKind
    percent: int


@dataclass(frozen=True, slots=True)
class Control:
    """Everything that can change at run time. `revision` grows with every change.

    `flags` are values by (name, tenant), tenant "" for all. `policy_version` is "" before any policy was applied.
    """

    revision: int = 0
    keys: Mapping[bytes, Key] = field(default_factory=dict)
    """By digest."""
    flags: Mapping[tuple[str, str], Any] = field(default_factory=dict)
    kill_switches: frozenset[KillSwitch] = frozenset()
    policy_version: str = ""
    rollout: Rollout | None = None

    def stopped_by(self, tenant: str) -> KillSwitch | None:
        """The switch that stops this tenant's calls, the global one first."""
        for switch in sorted(self.kill_switches, key=lambda one: one.scope.value):
            if switch.scope is KillScope.GLOBAL or (switch.scope is KillScope.TENANT and switch.target == tenant):
                return switch
        return None

    @property
    def is_service_stopped(self) -> bool:
        """Whether the global kill switch is on."""
        return any(one.scope is KillScope.GLOBAL for one in self.kill_switches)

    @property
    def stopped_providers(self) -> frozenset[str]:
        """Ids of the providers that must not be called."""
        return frozenset(one.target for one in self.kill_switches if one.scope is KillScope.PROVIDER)


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One change, who made it, and what was there before and after (JSON, never a secret)."""

    id: int
    at: float
    actor: str
    action: str
    target: str
    before: str
    after: str
    comment: str
