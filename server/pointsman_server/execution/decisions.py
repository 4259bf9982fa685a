"""Decisions that `Route` gave and `Complete` may name, for as long as they are fresh."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from functools import partial

import structlog

from pointsman_server.domain.call import Call, Decision
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.errors import DecisionExpired
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.decision_note import NotedDecision, digest_of, read_decision, write_decision
from pointsman_server.execution.shared_memory import Alone, NoteKind, NoteName, Notes
from pointsman_server.execution.stopping import nobody_left

FRESH_SECONDS = 300.0
MOST_DECISIONS = 4_096

_LOG = structlog.stdlib.get_logger("pointsman.decisions")


@dataclass(frozen=True, slots=True)
class _Made:
    """By this process."""

    decision: Decision
    request_digest: bytes

    @property
    def policy_version(self) -> str:
        return self.decision.plan.policy_version

    def is_for(self, request_digest: bytes) -> bool:
        return self.request_digest == request_digest

    def under(self, snapshot: Snapshot) -> Decision:
        return self.decision


@dataclass(frozen=True, slots=True)
class _Noted:
    """By another one."""

    note: NotedDecision

    @property
    def policy_version(self) -> str:
        return self.note.policy_version

    def is_for(self, request_digest: bytes) -> bool:
        return self.note.digest == digest_of(request_digest)

    def under(self, snapshot: Snapshot) -> Decision:
        return self.note.under(snapshot.deployments)


@dataclass(frozen=True, slots=True)
class _Kept:
    what: _Made | _Noted
    tenant: str
    kept_at: float


class DecisionBook:
    """The latest decisions by id; forgets the oldest when it is full. `notes` are those of the other processes."""

    def __init__(self, clock: Clock, notes: Notes | None = None) -> None:
        self._clock = clock
        self._notes = notes or Alone()
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    def keep(self, decision: Decision, call: Call) -> None:
        """Remembers a decision for the request it was made for."""
        self._keep(decision.id, _Kept(_Made(decision, call.request_digest), call.tenant, self._clock.monotonic()))
        name = NoteName(NoteKind.DECISION, call.tenant, decision.id)
        self._notes.keep(name, partial(_note, decision, call.request_digest), FRESH_SECONDS)

    async def look_up(self, decision_id: str, tenant: str) -> None:
        """Learns the decision if another process made it for this tenant. Raises `StoreUnavailableError`."""
        if decision_id in self._kept:
            return
        found = await self._notes.find(NoteName(NoteKind.DECISION, tenant, decision_id))
        if found is None:
            return
        try:
            noted = _Noted(read_decision(found.value))
        except ValueError as error:
            _LOG.warning("decision_not_read", reason=str(error))
            return
        age_seconds = max(0.0, FRESH_SECONDS - found.left_seconds)
        self._keep(decision_id, _Kept(noted, tenant, self._clock.monotonic() - age_seconds))

    def policy_version_of(self, decision_id: str) -> str:
        """The policy that a decision was made under, "" if it is not known."""
        kept = self._kept.get(decision_id)
        return "" if kept is None else kept.what.policy_version

    def redeem(self, call: Call, health: HealthView) -> Decision:
        """The decision that the call names, without the deployments that cannot be called now.

        Raises `DecisionExpired` when it is unknown, too old, or of another policy or request, `NobodyHealthy` when none
        of its candidates can be called, and `NoEligibleDeployment` when operators stopped all their providers.
        """
        decision = self._named_by(call)
        plan = decision.plan
        ill = [health.unavailable(one.deployment.id) for one in plan.candidates]
        out = tuple(rejection for rejection in ill if rejection is not None)
        well = tuple(one for one, rejection in zip(plan.candidates, ill, strict=True) if rejection is None)
        if not well:
            raise nobody_left(out, health)
        return replace(decision, plan=replace(plan, candidates=well, rejections=(*plan.rejections, *out)))

    def _named_by(self, call: Call) -> Decision:
        kept = self._kept.get(call.decision_id)
        is_fresh = kept is not None and self._clock.monotonic() - kept.kept_at <= FRESH_SECONDS
        if kept is None or not is_fresh or kept.tenant != call.tenant:  # another tenant's is as good as unknown
            raise DecisionExpired(f"is unknown here or older than {FRESH_SECONDS:.0f} s")
        if kept.what.policy_version != call.snapshot.version:
            raise DecisionExpired("was made under another policy")
        if not kept.what.is_for(call.request_digest):
            raise DecisionExpired("was made for another request")
        try:
            return kept.what.under(call.snapshot)
        except ValueError:
            raise DecisionExpired("was made under another policy") from None

    def _keep(self, decision_id: str, kept: _Kept) -> None:
        self._kept[decision_id] = kept
        if len(self._kept) > MOST_DECISIONS:
            self._kept.popitem(last=False)


def _note(decision: Decision, request_digest: bytes) -> bytes:
    return write_decision(decision, digest_of(request_digest))
