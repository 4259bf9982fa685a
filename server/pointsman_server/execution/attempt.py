"""One call to one deployment, watched by its timers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace

from pointsman_server.domain.call import Attempt, AttemptOutcome, AttemptPurpose, FailoverMode
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.errors import DeadlineExceeded, Step
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.message import Message
from pointsman_server.domain.ports import Clock, ProviderAdapter, ProviderCall
from pointsman_server.domain.reply import (
    CONTENT_DELTAS,
    Finished,
    FinishReason,
    ReasoningDelta,
    ReplyBuilder,
    ReplyEvent,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from pointsman_server.domain.request import Document, EmbeddingInput, GenerationConfig, TemplateRef
from pointsman_server.execution.allowance import Allowance, Limit
from pointsman_server.execution.patience import Patience

LEAST_ATTEMPT_SECONDS = 0.05
"""An attempt with less time than this cannot succeed and is not started."""

BACKSTOP_SECONDS = 0.25
"""How much later than our own timer the adapter gives up, so that one place decides what a timeout means."""

_TIMER_SLACK_SECONDS = 0.005
"""The event loop's timers may fire this much early."""

AFTER_END_SECONDS = 1.0
"""How long a provider that gave its whole answer may keep the connection open; the last counts come in this time."""

RATE_WINDOW_SECONDS = 10.0
"""The pace of a stream is measured over this long."""

_CHARACTERS_PER_TOKEN = 4
"""Roughly; the pace that is too slow is a matter of magnitude."""

_PROGRESS = (*CONTENT_DELTAS, Finished)
_MAY_BE_EMPTY = frozenset({FinishReason.LENGTH, FinishReason.CONTENT_FILTER, FinishReason.REFUSAL, FinishReason.PAUSE})


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one attempt is to do, and the time it has.

    `allowed_seconds` is for all of it; `patience_seconds` until the first content of a stream. `deadline` is the
    call's own, on the monotonic clock. With `may_be_slow` a stream may creep as long as it does not stand still; with
    `may_be_empty` an answer may end without a word, because there may be nothing to add.
    """

    deployment: Deployment
    purpose: AttemptPurpose
    messages: tuple[Message, ...]
    generation: GenerationConfig
    max_output_tokens: int
    stream: bool
    allowed_seconds: float
    patience_seconds: float
    deadline: float
    headers: Mapping[str, str]
    may_be_slow: bool = True
    may_be_empty: bool = False
    embedding: EmbeddingInput | None = None
    documents: tuple[Document, ...] = ()
    template: TemplateRef | None = None


class RunningAttempt:
    """Runs one attempt and keeps its account: `begin`, then `next` until None, and `close` in any case.

    Timers: headers and first content within `patience_seconds` and every next content within `idle_seconds` when
    streaming; all of it within `allowed_seconds`. What is not content (a ping) does not reset a timer. With an
    `allowance` the answer ends, as one that was cut at its limit, where that is used up: `cut_at` says which limit.
    """

    __slots__ = (
        "_adapter_batches",
        "_allowance",
        "_assignment",
        "_clock",
        "_ends_at",
        "_estimated",
        "_first_token_seconds",
        "_pace",
        "_patience",
        "_progress_at",
        "_returned_at",
        "_started_at",
        "builder",
        "cut_at",
        "deployment",
        "stream",
    )

    def __init__(
        self, assignment: Assignment, adapter: ProviderAdapter, clock: Clock, allowance: Allowance | None = None
    ) -> None:
        self.builder = ReplyBuilder()
        self.deployment = assignment.deployment
        self.stream = assignment.stream
        self.cut_at: Limit | None = None
        self._allowance = allowance
        self._assignment = assignment
        self._clock = clock
        self._estimated = False
        self._started_at = self._progress_at = self._returned_at = clock.monotonic()
        self._ends_at = self._started_at + assignment.allowed_seconds
        self._first_token_seconds: float | None = None
        self._pace = _Pace(self.deployment.timeouts.least_tokens_per_second if not assignment.may_be_slow else 0.0)
        self._patience = Patience(clock)
        self._adapter_batches: AsyncGenerator[Sequence[ReplyEvent], None] = adapter.exchange(self._provider_call())

    async def begin(self) -> Sequence[ReplyEvent]:
        """Waits for the first content when streaming, otherwise for the whole answer; gives what came so far.

        Raises `ProviderFault` or `DeadlineExceeded`, as `next` does.
        """
        came: list[ReplyEvent] = []
        while not (self.stream and self.builder.has_content):
            batch = await self.next()
            if batch is None:
                break
            came.extend(batch)
        return came

    async def next(self) -> Sequence[ReplyEvent] | None:
        """The next events, None after the provider's own end, or after the end that was put to it."""
        if self.cut_at is not None:
            return None
        self._pace.require()
        self._leave_out(self._clock.monotonic() - self._returned_at)
        try:
            batch = await self._patience.wait(anext(self._adapter_batches, None), self._patience_ends_at())
        except TimeoutError as error:
            if self.builder.finished is None:
                raise self._timed_out() from error
            batch = None
        self._returned_at = self._clock.monotonic()
        if batch is None:
            self._require_answer()
            return None
        if self._allowance is not None:
            batch = await self._let_through(batch, self._allowance)
        if self._take(batch):
            self._progress_at = self._returned_at
            if self.builder.finished is None:
                self._pace.check(self._progress_at)
        return batch

    async def close(self) -> None:
        """Closes the connection, whatever state it is in."""
        self._patience.stop()
        await self._adapter_batches.aclose()

    @property
    def first_token_seconds(self) -> float | None:
        """From the start to the first content; None before it, and without streaming."""
        return self._first_token_seconds

    def account(self, outcome: AttemptOutcome, fault: ProviderFault | None = None) -> Attempt:
        """What this attempt came to; the cost is what the provider reported, 0 if it reported nothing."""
        usage = self.builder.usage
        reported = usage.input_tokens is not None or usage.output_tokens is not None
        return Attempt(
            deployment=self.deployment,
            latency_seconds=self._clock.monotonic() - self._started_at,
            first_token_seconds=self._first_token_seconds,
            outcome=outcome,
            usage=usage,
            cost_micro_usd=self.deployment.model.price.cost_micro_usd(usage) if reported else 0,
            fault=fault,
            purpose=self._assignment.purpose,
            estimated=self._estimated,
        )

    def _provider_call(self) -> ProviderCall:
        work = self._assignment
        return ProviderCall(
            deployment=work.deployment,
            messages=work.messages,
            generation=work.generation,
            max_output_tokens=work.max_output_tokens,
            stream=work.stream,
            timeout_seconds=work.allowed_seconds + BACKSTOP_SECONDS,
            headers=work.headers,
            embedding=work.embedding,
            documents=work.documents,
            task=work.template.name if work.template else "",
            task_variables=work.template.variables if work.template else {},
        )

    async def _let_through(self, batch: Sequence[ReplyEvent], allowance: Allowance) -> Sequence[ReplyEvent]:
        """What of the batch is allowed; where that is not all of it, the end of the answer comes with it."""
        within = await allowance.take(batch)
        if not allowance.is_used_up:
            return batch
        self.cut_at = allowance.limit
        await self._adapter_batches.aclose()
        usage = self.builder.usage
        for event in within:
            usage = event.usage if isinstance(event, UsageReport) else usage
        # A provider that came to its own end has told what it bills; what others tell on the way may be old.
        if usage.output_tokens is None or not any(isinstance(event, Finished) for event in batch):
            self._estimated = True
            seen_tokens = max(usage.output_tokens or 0, allowance.seen_tokens)
            usage = replace(usage, output_tokens=seen_tokens, billed_output_tokens=None)
        return (*within, UsageReport(usage), Finished(FinishReason.LENGTH))

    def _patience_ends_at(self) -> float:
        if self.builder.finished is not None:
            return min(self._ends_at, self._progress_at + AFTER_END_SECONDS)
        if not self.stream:
            return self._ends_at
        if self.builder.has_content:
            return min(self._ends_at, self._progress_at + self.deployment.timeouts.idle_seconds)
        return min(self._ends_at, self._started_at + self._assignment.patience_seconds)

    def _leave_out(self, seconds: float) -> None:
        """Time in which nobody asked for more, because the caller was slow to read, is not the provider's."""
        self._progress_at += seconds
        self._pace.leave_out(seconds)

    def _timed_out(self) -> ProviderFault | DeadlineExceeded:
        now = self._clock.monotonic()
        if now >= self._assignment.deadline - _TIMER_SLACK_SECONDS:
            return DeadlineExceeded(Step.DISPATCH)
        if not self.builder.has_content:
            return ProviderFault(FaultKind.TIMEOUT, "no content within the time allowed")
        if now >= self._ends_at - _TIMER_SLACK_SECONDS:
            return ProviderFault(FaultKind.STREAM_CUT, "the answer was not whole within the time allowed")
        return ProviderFault(FaultKind.STREAM_CUT, "the stream stood still for longer than idle_seconds")

    def _take(self, batch: Sequence[ReplyEvent]) -> bool:
        progressed = False
        for event in batch:
            self.builder.add(event)
            progressed = progressed or isinstance(event, _PROGRESS)
        if progressed and self.stream:
            self._pace.came(batch)
            # Without streaming the first content is the whole answer, which says nothing of the first token.
            if self._first_token_seconds is None and self.builder.has_content:
                self._first_token_seconds = self._clock.monotonic() - self._started_at
        return progressed

    def _require_answer(self) -> None:
        finished = self.builder.finished
        if finished is None:
            raise ProviderFault(FaultKind.STREAM_CUT, "the answer ended without the provider's end marker")
        if self.builder.has_content or self._assignment.may_be_empty:
            return
        if finished.reason not in _MAY_BE_EMPTY:
            raise ProviderFault(FaultKind.EMPTY_REPLY, "the provider gave an empty answer")


class _Pace:
    """Whether a stream brings enough in every window; 0 tokens per second is always enough."""

    __slots__ = ("_characters", "_is_too_slow", "_least_per_second", "_since")

    def __init__(self, least_tokens_per_second: float) -> None:
        self._is_too_slow = False
        self._least_per_second = least_tokens_per_second * _CHARACTERS_PER_TOKEN
        self._characters = 0
        self._since: float | None = None

    def leave_out(self, seconds: float) -> None:
        if self._since is not None:
            self._since += seconds

    def came(self, batch: Sequence[ReplyEvent]) -> None:
        if self._least_per_second:
            self._characters += sum(map(_length, batch))

    def check(self, now: float) -> None:
        if not self._least_per_second:
            return
        if self._since is None:
            self._since, self._characters = now, 0
        elif now - self._since >= RATE_WINDOW_SECONDS:
            self._is_too_slow = self._characters < self._least_per_second * (now - self._since)
            self._since, self._characters = now, 0

    def require(self) -> None:
        # Only before the next piece is waited for: what came is relayed, and what goes on counts on that.
        if self._is_too_slow:
            raise ProviderFault(FaultKind.TOO_SLOW, "the stream brings less than least_tokens_per_second")


def _length(event: ReplyEvent) -> int:
    if isinstance(event, (TextDelta, ReasoningDelta)):
        return len(event.text)
    return len(event.arguments_json) if isinstance(event, ToolCallDelta) else 0


def may_be_slow(deployment: Deployment, failover: FailoverMode) -> bool:
    """Whether a creeping stream is left alone: always where nobody could take over from it."""
    return failover is FailoverMode.TERMINATE or not deployment.timeouts.least_tokens_per_second
