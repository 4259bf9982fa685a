"""The deployments' health as attempts reveal it: breakers, cooldowns and observed latencies."""

from __future__ import annotations

from collections.abc import Mapping

import pybreaker

from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.health import HealthView, Observed
from pointsman_server.domain.plan import ExclusionReason, Rejection
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.observations import Observations

FAILURES_TO_OPEN = 5
OPEN_SECONDS = 60.0
MAX_COOLDOWN_SECONDS = 3600.0

COOLDOWN_SECONDS: Mapping[FaultKind, float] = {FaultKind.AUTH: 30.0, FaultKind.QUOTA: 30.0}
"""How long a deployment rests after a fault whose provider named no time. Others do not rest."""

VIEW_SECONDS = 1.0
"""How long observations are shown before they lose weight again; what an attempt adds is shown at once."""

_NEVER_BY_ITSELF = 10**9
"""pybreaker half-opens by the wall clock, which may jump; here the monotonic clock decides."""


class _DeploymentHealth:
    __slots__ = ("breaker", "cooldown_until", "opened_at")

    def __init__(self, deployment_id: str) -> None:
        self.breaker = pybreaker.CircuitBreaker(
            fail_max=FAILURES_TO_OPEN, reset_timeout=_NEVER_BY_ITSELF, name=deployment_id
        )
        self.opened_at = 0.0
        self.cooldown_until = 0.0


class HealthBoard:
    """Learns from every attempt; shows the decision who cannot be called now."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_id: dict[str, _DeploymentHealth] = {}
        self._unwell: set[str] = set()
        self._observations: dict[str, Observations] = {}
        self._observed: Mapping[str, Observed] = {}
        self._observed_until = float("-inf")
        self._touched: set[str] = set()

    def view(self) -> HealthView:
        """Health at this moment."""
        now = self._clock.monotonic()
        if self._touched or (self._observations and now >= self._observed_until):
            self._observe(now)
        if not self._unwell:
            return HealthView(observed=self._observed)
        rejections: dict[str, Rejection] = {}
        back_in_seconds: dict[str, float] = {}
        for deployment_id in tuple(self._unwell):
            unwell = self._judge(deployment_id, now)
            if unwell is not None:
                rejections[deployment_id], back_in_seconds[deployment_id] = unwell
        return HealthView(rejections, back_in_seconds, self._observed)

    def succeeded(self, deployment_id: str, first_token_seconds: float | None) -> None:
        """An attempt gave its answer."""
        health = self._by_id.get(deployment_id)
        if health is not None:
            health.breaker.close()
        now = self._clock.monotonic()
        self._observations_of(deployment_id, now).answered(first_token_seconds, now)

    def failed(self, deployment_id: str, fault: ProviderFault) -> None:
        """An attempt failed with this fault."""
        health = self._by_id.setdefault(deployment_id, _DeploymentHealth(deployment_id))
        now = self._clock.monotonic()
        if fault.rule.cools_down:
            seconds = fault.retry_after_seconds
            if seconds is None:
                seconds = COOLDOWN_SECONDS.get(fault.kind, 0.0)
            # Extended, never shortened: an earlier and longer wish of the provider stays in force.
            health.cooldown_until = max(health.cooldown_until, now + min(seconds, MAX_COOLDOWN_SECONDS))
        if fault.rule.counts_for_breaker:
            self._count_failure(health, fault, now)
        if fault.rule.counts_for_breaker or fault.rule.cools_down:
            self._observations_of(deployment_id, now).failed(now)
        self._unwell.add(deployment_id)

    def _observations_of(self, deployment_id: str, now: float) -> Observations:
        self._touched.add(deployment_id)
        return self._observations.setdefault(deployment_id, Observations(now))

    def _observe(self, now: float) -> None:
        # Views that were given out hold still, so that this makes a new mapping each time.
        if now >= self._observed_until:
            self._observed = {name: one.view(now) for name, one in self._observations.items()}
            self._observed_until = now + VIEW_SECONDS
        else:
            renewed = {name: self._observations[name].view(now) for name in self._touched}
            self._observed = {**self._observed, **renewed}
        self._touched.clear()

    def _count_failure(self, health: _DeploymentHealth, fault: ProviderFault, now: float) -> None:
        try:
            with health.breaker.calling():
                raise fault
        except (ProviderFault, pybreaker.CircuitBreakerError):
            if health.breaker.current_state == pybreaker.STATE_OPEN:
                health.opened_at = now

    def _judge(self, deployment_id: str, now: float) -> tuple[Rejection, float] | None:
        health = self._by_id[deployment_id]
        if health.breaker.current_state == pybreaker.STATE_OPEN:
            left = health.opened_at + OPEN_SECONDS - now
            if left > 0:
                detail = f"its breaker is open after {FAILURES_TO_OPEN} failures in a row; next try in {left:.0f} s"
                return Rejection(deployment_id, ExclusionReason.BREAKER_OPEN, detail), left
            health.breaker.half_open()
        left = health.cooldown_until - now
        if left > 0:
            detail = f"its provider wants to be left alone for another {left:.0f} s"
            return Rejection(deployment_id, ExclusionReason.COOLDOWN, detail), left
        if health.breaker.current_state == pybreaker.STATE_CLOSED:
            self._unwell.discard(deployment_id)
        return None
