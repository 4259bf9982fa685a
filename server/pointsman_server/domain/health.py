"""What the decision may know of the deployments' health, as a value that holds still during one decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.plan import Rejection

PRIOR_ANSWERS = 5.0
"""How many observed answers the policy's expected first-token latency is worth."""

PRIOR_ATTEMPTS = 10.0
"""How many faultless attempts an error rate starts from."""


class BreakerState(Enum):
    """CLOSED: calls pass. OPEN: none does. HALF_OPEN: one passes, and its end decides."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Observed(NamedTuple):
    """Decayed observations of one deployment's attempts. Latencies are to the first token, in seconds."""

    answers: float
    first_token_p50_seconds: float
    first_token_p95_seconds: float
    attempts: float
    failures: float


@dataclass(frozen=True, slots=True)
class HealthReport:
    """One deployment's health as operators see it; `observed` is None before the first attempt.

    `half_open_seconds` is the time until an open breaker lets one call through to try, 0 when the next call may; it is
    0 for the other states too. `cooldown_seconds` is what is left of a cooldown.
    """

    breaker: BreakerState
    half_open_seconds: float
    cooldown_seconds: float
    observed: Observed | None

    @property
    def out_seconds(self) -> float:
        """How long the deployment is still kept out of picks."""
        return max(self.half_open_seconds, self.cooldown_seconds)

    @property
    def error_rate(self) -> float:
        """Share of the attempts that failed lately, 0..1; 0 before the first."""
        return self.observed.failures / self.observed.attempts if self.observed and self.observed.attempts else 0.0


class NewsKind(Enum):
    """What replicas tell each other: an opened or closed breaker, a cooldown, an operator's reset."""

    OPENED = "opened"
    CLOSED = "closed"
    COOLED = "cooled"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class HealthNews:
    """What changed of a deployment's health in one replica, for the others.

    `seconds` is how long it is still in force, `age_seconds` how long ago it happened. Of an opening, `failed_probes`
    counts the probes that failed since the breaker was closed, and `by_rate` tells that it opened by its failure rate.
    Of a cooldown, `account` is the provider's id when all deployments of that account cool, otherwise "".
    """

    deployment_id: str
    kind: NewsKind
    seconds: float = 0.0
    age_seconds: float = 0.0
    failed_probes: int = 0
    by_rate: bool = False
    account: str = ""


@dataclass(frozen=True, slots=True)
class HealthView:
    """Only deployments that cannot be called now, and those that were observed, are listed."""

    rejections: Mapping[str, Rejection] = field(default_factory=dict)
    back_in_seconds: Mapping[str, float] = field(default_factory=dict)
    observed: Mapping[str, Observed] = field(default_factory=dict)

    def unavailable(self, deployment_id: str) -> Rejection | None:
        """Why the deployment cannot be called now: an open breaker or a cooldown."""
        return self.rejections.get(deployment_id)

    def retry_after_seconds(self, deployment_ids: Iterable[str]) -> float:
        """When the first of these deployments can be tried again."""
        return min((self.back_in_seconds.get(deployment_id, 0.0) for deployment_id in deployment_ids), default=0.0)

    def first_token_seconds(self, deployment: Deployment) -> float:
        """The median of what was observed, drawn towards the policy's expectation while observations are few."""
        observed = self.observed.get(deployment.id)
        if observed is None:
            return deployment.expected_first_token_seconds
        prior = PRIOR_ANSWERS * deployment.expected_first_token_seconds
        return (prior + observed.answers * observed.first_token_p50_seconds) / (PRIOR_ANSWERS + observed.answers)

    def error_rate(self, deployment_id: str) -> float:
        """Share of attempts that failed lately, drawn towards 0 while attempts are few."""
        observed = self.observed.get(deployment_id)
        return observed.failures / (PRIOR_ATTEMPTS + observed.attempts) if observed else 0.0
