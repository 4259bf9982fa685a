"""What the decision may know of the deployments' health, as a value that holds still during one decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.plan import Rejection


@dataclass(frozen=True, slots=True)
class HealthView:
    """Only deployments that cannot be called now, and observed latencies, are listed."""

    rejections: Mapping[str, Rejection] = field(default_factory=dict)
    back_in_seconds: Mapping[str, float] = field(default_factory=dict)
    observed_first_token_seconds: Mapping[str, float] = field(default_factory=dict)

    def unavailable(self, deployment_id: str) -> Rejection | None:
        """Why the deployment cannot be called now: an open breaker or a cooldown."""
        return self.rejections.get(deployment_id)

    def retry_after_seconds(self, deployment_ids: Iterable[str]) -> float:
        """When the first of these deployments can be tried again."""
        return min((self.back_in_seconds.get(deployment_id, 0.0) for deployment_id in deployment_ids), default=0.0)

    def first_token_seconds(self, deployment: Deployment) -> float:
        """Observed time to the first token, else the policy's expectation."""
        return self.observed_first_token_seconds.get(deployment.id, deployment.expected_first_token_seconds)
