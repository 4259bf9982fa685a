"""The account of one call's attempts: each is begun once and ended once, whatever happens in between."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from pointsman_server.decision.tokens import tokens_for
from pointsman_server.domain.call import Attempt, AttemptOutcome, Call
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.plan import RoutePlan
from pointsman_server.domain.ports import AnswerChecker, AttemptWatch, CallWatch, Clock, ProviderAdapter, TokenCounter
from pointsman_server.execution.agenda import Doorkeepers, Turn
from pointsman_server.execution.allowance import Allowance, limit_of
from pointsman_server.execution.attempt import Assignment, RunningAttempt
from pointsman_server.execution.dispatch_record import DispatchRecord
from pointsman_server.execution.prepare import cost_cap_micro_usd
from pointsman_server.execution.settle import estimate_cancelled


@dataclass(frozen=True, slots=True)
class Equipment:
    """What every dispatch needs."""

    adapters: Mapping[str, ProviderAdapter]
    keepers: Doorkeepers
    checker: AnswerChecker
    counter: TokenCounter
    clock: Clock


class Journal:
    """Begins and ends the attempts of one call."""

    def __init__(
        self, call: Call, plan: RoutePlan, record: DispatchRecord, watch: CallWatch, equipment: Equipment
    ) -> None:
        self._call = call
        self._plan = plan
        self._record = record
        self._watch = watch
        self._equipment = equipment
        self._running: dict[RunningAttempt, tuple[Turn, AttemptWatch]] = {}

    def watch(self, turn: Turn) -> AttemptWatch:
        """Telemetry's eye on an attempt that is about to start."""
        return self._watch.attempt(turn.candidate.deployment, turn.purpose)

    def start(self, turn: Turn, watch: AttemptWatch, assignment: Assignment) -> RunningAttempt:
        """Starts an attempt."""
        adapter = self._equipment.adapters[assignment.deployment.provider.id]
        attempt = RunningAttempt(assignment, adapter, self._equipment.clock, self._allowance(assignment))
        self._running[attempt] = turn, watch
        self._record.asking.append(attempt.deployment.provider.id)
        return attempt

    @property
    def worst_cost_micro_usd(self) -> int:
        """What the attempts that run may cost together."""
        return sum(turn.candidate.worst_cost_micro_usd for turn, _ in self._running.values())

    def turn_of(self, attempt: RunningAttempt) -> Turn:
        """The turn of an attempt that still runs."""
        return self._running[attempt][0]

    async def end(self, attempt: RunningAttempt, outcome: AttemptOutcome, fault: ProviderFault | None = None) -> None:
        """Ends an attempt: connection, account, health, place and telemetry, in this order."""
        turn, watch = self._running.pop(attempt)
        self._record.asking.remove(attempt.deployment.provider.id)
        try:
            await attempt.close()
        finally:
            account = attempt.account(outcome, fault)
            if outcome is AttemptOutcome.CANCELLED:
                account = self._with_tokens_seen(account, attempt)
            self._record.end(account)
            _tell_health(turn, account)
            turn.place.give_back()
            watch.ended(account)

    async def end_all(self, but: RunningAttempt | None = None) -> None:
        """Hangs up on whatever still runs, except for one; on all of it, even if that is interrupted."""
        async with AsyncExitStack() as stack:
            for attempt in reversed(self._running):
                if attempt is not but:
                    stack.push_async_callback(self.end, attempt, AttemptOutcome.CANCELLED)

    def _allowance(self, assignment: Assignment) -> Allowance | None:
        """What a stream may bring; a whole answer is paid for when it comes, and what has no model costs nothing."""
        deployment = assignment.deployment
        if not assignment.stream or deployment.is_last_resort:
            return None
        cap = cost_cap_micro_usd(self._call)
        left = None if cap is None else cap - sum(attempt.cost_micro_usd for attempt in self._record.of_call)
        sent = tokens_for(deployment, self._record.input_of(deployment.id, self._plan.input_tokens))
        limit = limit_of(deployment, assignment.max_output_tokens, sent.tokens, left)
        return Allowance(limit, deployment, self._equipment.counter)

    def _with_tokens_seen(self, account: Attempt, attempt: RunningAttempt) -> Attempt:
        # The provider bills what it sent before we hung up, and does not say any more how much that was.
        if not attempt.builder.has_content:
            return account
        sent = self._record.input_of(attempt.deployment.id, self._plan.input_tokens)
        return estimate_cancelled(account, attempt.builder.build(), sent, self._equipment.counter)


def _tell_health(turn: Turn, account: Attempt) -> None:
    if account.fault is not None and account.fault.kind is not FaultKind.ANSWER_INVALID:
        turn.admission.failed(account.fault)
    elif account.outcome is AttemptOutcome.CANCELLED:
        turn.admission.released()
    else:
        turn.admission.succeeded(account.first_token_seconds)
