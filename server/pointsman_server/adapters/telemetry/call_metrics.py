"""What one call adds to the metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from pointsman_server.adapters.telemetry.instruments import DeploymentLabels, Instruments
from pointsman_server.domain.call import Attempt, AttemptOutcome, AttemptPurpose, Call, Completion, Decision
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.ports import Clock

FALLBACK_PURPOSES = frozenset({AttemptPurpose.FALLBACK, AttemptPurpose.CONTINUATION})
"""Attempts that are made because another deployment failed."""

CALLER_LEFT = (asyncio.CancelledError, GeneratorExit)
"""What ends a call whose caller went away."""

_TOKEN_KINDS = ("input", "cached_input", "cache_write_input", "output", "reasoning")


class Equipment(Protocol):
    """What a call's metrics need of the process's."""

    @property
    def instruments(self) -> Instruments:
        """Where to count."""
        ...

    @property
    def clock(self) -> Clock:
        """The time."""
        ...

    def labels_of(self, deployment: Deployment) -> DeploymentLabels:
        """The labels that tell of a deployment."""
        ...


class CallMetrics:
    """See `CallWatch`."""

    __slots__ = (
        "_call",
        "_ended",
        "_equipment",
        "_fell_back",
        "_first_content_seconds",
        "_is_over",
        "_running",
        "_started_at",
    )

    def __init__(self, equipment: Equipment, call: Call) -> None:
        self._equipment = equipment
        self._call = call
        self._started_at = equipment.clock.monotonic()
        self._running: list[AttemptMetrics] = []
        self._ended: list[Attempt] = []
        self._first_content_seconds: float | None = None
        self._fell_back = False
        self._is_over = False

    def prepared(self, call: Call) -> None:
        """See `CallWatch.prepared`; nothing of it is counted."""

    def decided(self, decision: Decision) -> None:
        """See `CallWatch.decided`."""
        if not self._call.decision_id:  # one that is followed was measured when it was made
            self._equipment.instruments.decision_seconds.record(decision.latency_seconds)

    def attempt(self, deployment: Deployment, purpose: AttemptPurpose) -> AttemptMetrics:
        """See `CallWatch.attempt`."""
        if purpose in FALLBACK_PURPOSES:
            self._fell_back = True
        attempt = AttemptMetrics(self, self._equipment.labels_of(deployment), purpose, self._call.headers)
        self._running.append(attempt)
        return attempt

    def first_content(self) -> None:
        """See `CallWatch.first_content`."""
        self._first_content_seconds = self._equipment.clock.monotonic() - self._started_at
        over = next((one for one in reversed(self._ended) if one.outcome is not AttemptOutcome.CANCELLED), None)
        if self._running:
            self._credit_only_one_running()
        elif over is not None:  # the answer was whole before its first piece could be passed on
            self._credit_first_content(self._equipment.labels_of(over.deployment))

    def completed(self, completion: Completion) -> None:
        """See `CallWatch.completed`."""
        if self._is_over:
            return
        # Where a provider left a count out, ours stands in the completion.
        for told, counted in _filled_in(completion.attempts, self._ended):
            self._count_usage(told, counted)
        if self._call.embedding is None:
            self._count_cache(completion)
        self._end("succeeded")

    def failed(self, error: BaseException) -> None:
        """See `CallWatch.failed`."""
        if not self._is_over and not isinstance(error, CALLER_LEFT):
            self._end("failed")

    def attempt_ended(self, attempt: AttemptMetrics, account: Attempt) -> None:
        """An attempt of this call is over."""
        self._running.remove(attempt)
        self._ended.append(account)
        self._count_usage(account)
        if account.outcome is AttemptOutcome.CANCELLED:
            self._credit_only_one_running()
        else:
            self._credit_first_content(attempt.labels)

    def count(self, attempt: AttemptMetrics, account: Attempt) -> None:
        """The attempt itself: how it ended and how long it took."""
        instruments, labels = self._equipment.instruments, attempt.labels
        error = "" if account.fault is None else account.fault.kind.value
        instruments.attempts.add((*labels.values, attempt.purpose.value, account.outcome.value, error))
        if account.outcome is not AttemptOutcome.CANCELLED:
            instruments.attempt_seconds.record(account.latency_seconds, labels.attributes)
        if account.first_token_seconds is not None:
            instruments.attempt_first_token_seconds.record(account.first_token_seconds, labels.attributes)

    def _credit_only_one_running(self) -> None:
        # While a hedge and the first attempt both run nobody knows here whose piece it was; one of them ends soon.
        if len(self._running) == 1:
            self._credit_first_content(self._running[0].labels)

    def _credit_first_content(self, labels: DeploymentLabels) -> None:
        if self._first_content_seconds is not None:
            self._equipment.instruments.first_token_seconds.record(self._first_content_seconds, labels.model)
            self._first_content_seconds = None

    def _count_usage(self, account: Attempt, counted: Attempt | None = None) -> None:
        instruments, values = self._equipment.instruments, self._equipment.labels_of(account.deployment).values
        before = (0, 0, 0, 0, 0) if counted is None else _tokens(counted)
        for kind, tokens, known in zip(_TOKEN_KINDS, _tokens(account), before, strict=True):
            if tokens > known:
                instruments.tokens.add((*values, kind), tokens - known)
        self._measure_context(account, known=before[0] > 0)
        cost_micro_usd = account.cost_micro_usd - (0 if counted is None else counted.cost_micro_usd)
        if cost_micro_usd > 0:
            instruments.cost_micro_usd.add(values, cost_micro_usd)

    def _measure_context(self, account: Attempt, *, known: bool) -> None:
        model, input_tokens = account.deployment.model, account.usage.input_tokens
        if input_tokens and not known and model.embedding is None:
            share = input_tokens / model.context_window_tokens
            self._equipment.instruments.context_utilisation.record(
                share, self._equipment.labels_of(account.deployment).attributes
            )

    def _count_cache(self, completion: Completion) -> None:
        instruments = self._equipment.instruments
        instruments.cache_lookups.add((completion.cache.value,))
        if completion.saved_micro_usd:
            values = self._equipment.labels_of(completion.answered_by.deployment).values
            instruments.cache_saved_micro_usd.add(values, completion.saved_micro_usd)

    def _end(self, outcome: str) -> None:
        if self._fell_back:
            self._equipment.instruments.fallbacks.add((outcome,))
        self._is_over = True


class AttemptMetrics:
    """See `AttemptWatch`; its headers are the call's own."""

    __slots__ = ("_call", "headers", "labels", "purpose")

    def __init__(
        self, call: CallMetrics, labels: DeploymentLabels, purpose: AttemptPurpose, headers: Mapping[str, str]
    ) -> None:
        self._call = call
        self.labels = labels
        self.purpose = purpose
        self.headers = headers

    def ended(self, attempt: Attempt) -> None:
        """See `AttemptWatch.ended`."""
        self._call.count(self, attempt)
        self._call.attempt_ended(self, attempt)


def _filled_in(told: Sequence[Attempt], ended: Sequence[Attempt]) -> Iterator[tuple[Attempt, Attempt]]:
    """The accounts that changed since their attempts ended, each with what it was."""
    told_ids, ended_ids = set(map(id, told)), set(map(id, ended))
    changed = [one for one in ended if id(one) not in told_ids]
    for one in told:
        if id(one) in ended_ids:
            continue
        same = (was for was in changed if was.deployment is one.deployment and was.purpose is one.purpose)
        before = next(same, None)
        if before is not None:
            changed.remove(before)
            yield one, before


def _tokens(account: Attempt) -> tuple[int, int, int, int, int]:
    usage = account.usage
    return (
        usage.input_tokens or 0,
        usage.cached_input_tokens,
        usage.cache_write_input_tokens,
        usage.output_tokens or 0,
        usage.reasoning_tokens,
    )
