"""Decisions that `Route` gave and `Complete` may name, for as long as they are fresh."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace

from pointsman_server.domain.call import Call, Decision
from pointsman_server.domain.errors import DecisionExpired
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.stopping import nobody_left

FRESH_SECONDS = 300.0
MOST_DECISIONS = 4_096


@dataclass(frozen=True, slots=True)
class _Kept:
    decision: Decision
    request_digest: bytes
    tenant: str
    kept_at: float


class DecisionBook:
    """The latest decisions by id; forgets the oldest when it is full."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def keep(self, decision: Decision, call: Call) -> None:
        """Remembers a decision for the request it was made for."""
        self._kept[decision.id] = _Kept(decision, call.request_digest, call.tenant, self._clock.monotonic())
        if len(self._kept) > MOST_DECISIONS:
            self._kept.popitem(last=False)

    def policy_version_of(self, decision_id: str) -> str:
        """The policy that a decision was made under, "" if it is not known."""
        kept = self._kept.get(decision_id)
        return "" if kept is None else kept.decision.plan.policy_version

    def redeem(self, call: Call, health: HealthView) -> Decision:
        """The decision that the call names, without the deployments that cannot be called now.

        Raises `DecisionExpired` when it is unknown, too old, or of another policy or request, `NobodyHealthy` when none
        of its candidates can be called, and `NoEligibleDeployment` when operators stopped all their providers.
        """
        kept = self._kept.get(call.decision_id)
        is_fresh = kept is not None and self._clock.monotonic() - kept.kept_at <= FRESH_SECONDS
        if kept is None or not is_fresh or kept.tenant != call.tenant:  # another tenant's is as good as unknown
            raise DecisionExpired(f"is unknown here or older than {FRESH_SECONDS:.0f} s")
        plan = kept.decision.plan
        if plan.policy_version != call.snapshot.version:
            raise DecisionExpired("was made under another policy")
        if kept.request_digest != call.request_digest:
            raise DecisionExpired("was made for another request")
        ill = [health.unavailable(one.deployment.id) for one in plan.candidates]
        out = tuple(rejection for rejection in ill if rejection is not None)
        well = tuple(one for one, rejection in zip(plan.candidates, ill, strict=True) if rejection is None)
        if not well:
            raise nobody_left(out, health)
        return replace(kept.decision, plan=replace(plan, candidates=well, rejections=(*plan.rejections, *out)))
