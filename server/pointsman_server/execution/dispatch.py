"""The only loop over candidates: one attempt each, in the plan's order, until one answers or nobody is left."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from pointsman_server.domain.call import Attempt, AttemptOutcome, Call, FailedOver, FailoverMode, Relay
from pointsman_server.domain.errors import AttemptsFailed, DeadlineExceeded, FailedAttempt, Step, StreamInterrupted
from pointsman_server.domain.faults import ProviderFault
from pointsman_server.domain.plan import Candidate, RoutePlan
from pointsman_server.domain.ports import Clock, ProviderAdapter, TokenCounter
from pointsman_server.domain.reply import (
    CONTENT_DELTAS,
    ContentDelta,
    Reply,
    ReplyBuilder,
    ReplyEvent,
    merge_deltas,
)
from pointsman_server.domain.request import Capability
from pointsman_server.execution.attempt import LEAST_ATTEMPT_SECONDS, RunningAttempt
from pointsman_server.execution.health import HealthBoard
from pointsman_server.execution.prepare import get_ready
from pointsman_server.execution.settle import count_output_tokens

MAX_ATTEMPTS = 6
"""Most attempts of one call, whatever the length of the chain."""

SHARE_OF_TIME_WITH_FALLBACK = 0.6
"""Part of the time left that an attempt without stream timers may use while another candidate waits."""


@dataclass(slots=True)
class DispatchRecord:
    """What happened so far; `answered_by` and `reply` are set when an attempt succeeded."""

    attempts: list[Attempt] = field(default_factory=list)
    answered_by: Candidate | None = None
    reply: Reply | None = None

    @property
    def cost_micro_usd(self) -> int:
        """Cost of all attempts so far."""
        return sum(attempt.cost_micro_usd for attempt in self.attempts)

    @property
    def failures(self) -> tuple[FailedAttempt, ...]:
        """The attempts that failed, as callers are told."""
        return tuple(
            FailedAttempt(attempt.deployment.id, attempt.fault.kind, attempt.fault.detail)
            for attempt in self.attempts
            if attempt.fault is not None
        )


class Dispatcher:
    """Asks the candidates of a plan. One for the process; `record` belongs to one call."""

    def __init__(
        self, adapters: Mapping[str, ProviderAdapter], health: HealthBoard, counter: TokenCounter, clock: Clock
    ) -> None:
        self._adapters = adapters
        self._counter = counter
        self._health = health
        self._clock = clock

    async def run(
        self, call: Call, plan: RoutePlan, record: DispatchRecord, *, stream: bool
    ) -> AsyncGenerator[Relay | FailedOver, None]:
        """The answer as it comes (nothing but its end when not streaming); `record` tells the rest.

        Raises `AttemptsFailed`, `StreamInterrupted` or `DeadlineExceeded`.
        """
        relayed = False
        for candidate in self._in_turn(plan, record):
            if relayed:
                yield FailedOver(record.attempts[-1].deployment.id, candidate.deployment.id, FailoverMode.RESTART, 0)
                relayed = False
            attempt = self._start(call, plan, candidate, record, stream=stream)
            fault: ProviderFault | None = None
            outcome = AttemptOutcome.CANCELLED
            try:
                if not stream:
                    await attempt.run_whole()
                else:
                    async with aclosing(attempt.run()) as batches:
                        async for batch in batches:
                            deltas = _relay(batch, attempt.builder)
                            if deltas:
                                relayed = True
                                yield Relay(deltas)
                outcome = AttemptOutcome.SUCCEEDED
            except ProviderFault as error:
                fault, outcome = error, AttemptOutcome.FAILED
            except DeadlineExceeded as error:
                error.attempts = record.failures
                raise
            finally:
                self._close(attempt, outcome, fault, record)
            if fault is None:
                record.answered_by, record.reply = candidate, attempt.builder.build()
                return
            if not fault.rule.try_next or (relayed and call.failover is FailoverMode.TERMINATE):
                break
        end = await self._interrupted(attempt, record) if relayed else _all_failed(record)
        raise end from record.attempts[-1].fault

    def _in_turn(self, plan: RoutePlan, record: DispatchRecord) -> Iterator[Candidate]:
        for candidate in plan.candidates:
            if len(record.attempts) >= MAX_ATTEMPTS:
                return
            if _fits_after(candidate, record.attempts):
                yield candidate

    def _start(
        self, call: Call, plan: RoutePlan, candidate: Candidate, record: DispatchRecord, *, stream: bool
    ) -> RunningAttempt:
        left_seconds = call.deadline - self._clock.monotonic()
        if left_seconds < LEAST_ATTEMPT_SECONDS:
            raise DeadlineExceeded(Step.DISPATCH, record.failures)
        allowed_seconds = min(left_seconds, candidate.deployment.timeouts.total_seconds)
        # A model that cannot stream gives its whole answer as one piece.
        stream = stream and Capability.STREAMING in candidate.deployment.model.capabilities
        if not stream and candidate is not plan.candidates[-1]:
            allowed_seconds = min(allowed_seconds, left_seconds * SHARE_OF_TIME_WITH_FALLBACK)
        return RunningAttempt(
            call,
            candidate,
            self._adapters[candidate.deployment.provider.id],
            self._clock,
            stream=stream,
            allowed_seconds=allowed_seconds,
        )

    def _close(
        self, attempt: RunningAttempt, outcome: AttemptOutcome, fault: ProviderFault | None, record: DispatchRecord
    ) -> None:
        account = attempt.account(outcome, fault)
        record.attempts.append(account)
        if fault is not None:
            self._health.failed(attempt.deployment.id, fault)
        elif outcome is AttemptOutcome.SUCCEEDED:
            self._health.succeeded(attempt.deployment.id, account.first_token_seconds)

    async def _interrupted(self, attempt: RunningAttempt, record: DispatchRecord) -> StreamInterrupted:
        await get_ready(self._counter)
        emitted_tokens = count_output_tokens(attempt.builder.build(), self._counter)
        return StreamInterrupted(record.failures, emitted_tokens, record.cost_micro_usd)


def _all_failed(record: DispatchRecord) -> AttemptsFailed:
    waits = [
        attempt.fault.retry_after_seconds
        for attempt in record.attempts
        if attempt.fault is not None and attempt.fault.retry_after_seconds is not None
    ]
    return AttemptsFailed(record.failures, min(waits, default=None))


def _fits_after(candidate: Candidate, attempts: Sequence[Attempt]) -> bool:
    """Whether this candidate's window is larger than that of every deployment that found the input too long."""
    window = candidate.deployment.model.context_window_tokens
    return all(
        window > attempt.deployment.model.context_window_tokens
        for attempt in attempts
        if attempt.fault is not None and attempt.fault.rule.larger_window_only
    )


def _relay(batch: Sequence[ReplyEvent], builder: ReplyBuilder) -> tuple[tuple[int, ContentDelta], ...]:
    events = merge_deltas(batch) if len(batch) > 1 else batch
    return tuple((builder.index_of(event.key), event) for event in events if isinstance(event, CONTENT_DELTAS))
