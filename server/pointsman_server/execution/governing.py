"""What operators and the policy's limits have to say of a call before it is decided, and while it runs."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from pointsman_server.domain.call import Attempt, Call, Decision
from pointsman_server.domain.control import Control
from pointsman_server.domain.facts import RequestFacts
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.plan import Rejection
from pointsman_server.execution.flags import HEDGING, RECORD_DECISIONS, require_answering, with_flags
from pointsman_server.execution.limits import Limits, TokenCharge
from pointsman_server.execution.stopping import (
    Heeded,
    StreamStops,
    is_stopped,
    kept_providers,
    require_running,
    stopped_deployments,
)

T = TypeVar("T")


class Governing:
    """Kill switches, flags and rate limits. One for the process.

    `control` is what operators set, as it is now; `changed` is to be told when it changes.
    """

    def __init__(self, control: Callable[[], Control], limits: Limits, now: Callable[[], float] = time.time) -> None:
        self._control = control
        self._limits = limits
        self._stops = StreamStops(now)

    def changed(self, before: Control, after: Control) -> None:
        """Ends the streams of keys that were revoked and, where their policy wants that, those that a new kill switch
        stops."""
        self._stops.changed(before, after)

    def watched(
        self, events: AsyncGenerator[T, None], call: Call, asking: Callable[[], Collection[str]]
    ) -> AsyncGenerator[T, None]:
        """The events of a call, until its key or a kill switch ends it; `asking` are the providers that are asked."""
        control, ends_by_switch = self._control(), call.snapshot.governance.kill_switch_ends_streams
        key = self._stops.key_of(call.caller, control)
        if key is None and not ends_by_switch:
            return events
        heeded = Heeded(call.tenant, asking, kept_providers(call.snapshot)) if ends_by_switch else None
        return self._stops.until_stopped(events, control, heeded, key)

    async def admit(self, call: Call, *, answers: bool) -> None:
        """Lets a call in; `answers` says whether it wants more than a decision.

        Raises `KillSwitchEngaged`, `RouteOnly`, `RateLimited` or `CountersUnavailable`.
        """
        control = self._control()
        require_running(control, call.tenant, call.snapshot)
        if answers:
            require_answering(control, call.tenant)
        await self._limits.admit(call.tenant, call.request.end_user, call.peer, call.snapshot.governance)

    async def charge(self, call: Call, decision: Decision) -> TokenCharge:
        """Counts the tokens that the call needs at most; raises as `admit` does."""
        plan = decision.plan
        most_output_tokens = max(candidate.max_output_tokens for candidate in plan.candidates)
        tokens = plan.input_tokens.tokens + most_output_tokens
        governance = call.snapshot.governance
        return await self._limits.charge(call.tenant, call.request.end_user, call.peer, governance, tokens)

    def facts(self, facts: RequestFacts, call: Call) -> RequestFacts:
        """The request as the decision is to see it."""
        return with_flags(facts, call.snapshot, self._control(), call.tenant)

    def view(self, health: HealthView, call: Call) -> HealthView:
        """Health, without what operators stopped."""
        stopped = stopped_deployments(self._control(), call.snapshot)
        # Goes before what the deployments' health says: that passes, this does not.
        return replace(health, rejections={**health.rejections, **stopped}) if stopped else health

    def is_recorded(self, call: Call) -> bool:
        """Whether the call's decision is kept."""
        return RECORD_DECISIONS.of(self._control(), call.tenant)

    def may_hedge(self, tenant: str) -> bool:
        """Whether this tenant's silent streams may get company."""
        return HEDGING.of(self._control(), tenant)

    def is_stopped(self, provider_id: str) -> bool:
        """Whether an operator has stopped this provider."""
        return is_stopped(self._control(), provider_id)


def with_rejections(health: HealthView, rejections: Mapping[str, Rejection]) -> HealthView:
    """The same view with more deployments that cannot be called; what it says itself goes before."""
    if not rejections:
        return health
    return replace(health, rejections={**rejections, **health.rejections})


def used_tokens(attempts: Sequence[Attempt], input_tokens: int) -> int:
    """Tokens of these attempts; where a provider did not count, something was sent all the same (`input_tokens`)."""
    counted = sum((one.usage.input_tokens or 0) + (one.usage.output_tokens or 0) for one in attempts)
    return counted or (input_tokens if attempts else 0)
