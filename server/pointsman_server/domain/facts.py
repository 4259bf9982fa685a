"""What a decision depends on, without a word of the prompt: it can be stored, and decided again later."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pointsman_server.domain.experience import Experience
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.plan import Complexity, TokenEstimate
from pointsman_server.domain.request import Capability, RoutingConstraints, Tier


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """A request as the decision sees it. `capabilities` are those that its content needs and those it names.

    `template` is the prompt template that it is made from, with its version (`greet@2`), "" without one.
    """

    complexity: Complexity
    capabilities: frozenset[Capability] = frozenset()
    tier: Tier | None = None
    deployment: str = ""
    constraints: RoutingConstraints = field(default_factory=RoutingConstraints)
    quality_bias: float | None = None
    max_output_tokens: int | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    template: str = ""


@dataclass(frozen=True, slots=True)
class Circumstances:
    """Everything a decision depends on beside the policy. The same circumstances and policy give the same plan.

    `session_deployment_id` answered the conversation's last turn, "" if none did or it is not known. `tenant` is whose
    request it is; the policy says what that tenant may use.
    """

    facts: RequestFacts
    tokens: TokenEstimate
    health: HealthView = field(default_factory=HealthView)
    experience: Experience = field(default_factory=Experience)
    session_deployment_id: str = ""
    tenant: str = ""
