"""One call to one deployment, watched by its timers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from pointsman_server.domain.call import Attempt, AttemptOutcome, Call
from pointsman_server.domain.errors import DeadlineExceeded, Step
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.plan import Candidate
from pointsman_server.domain.ports import Clock, ProviderAdapter, ProviderCall
from pointsman_server.domain.reply import (
    CONTENT_DELTAS,
    Finished,
    FinishReason,
    ReplyBuilder,
    ReplyEvent,
)

LEAST_ATTEMPT_SECONDS = 0.05
"""An attempt with less time than this cannot succeed and is not started."""

BACKSTOP_SECONDS = 0.25
"""How much later than our own timer the adapter gives up, so that one place decides what a timeout means."""

_TIMER_SLACK_SECONDS = 0.005
"""The event loop's timers may fire this much early."""

AFTER_END_SECONDS = 1.0
"""How long a provider that gave its whole answer may keep the connection open; the last counts come in this time."""

_PROGRESS = (*CONTENT_DELTAS, Finished)
_MAY_BE_EMPTY = frozenset({FinishReason.LENGTH, FinishReason.CONTENT_FILTER, FinishReason.REFUSAL, FinishReason.PAUSE})


class RunningAttempt:
    """Runs one attempt and keeps its account.

    Timers: headers and first content within `first_token_seconds` and every next content within `idle_seconds` when
    streaming; all of it within `allowed_seconds`. What is not content (a ping) does not reset a timer.
    """

    def __init__(
        self,
        call: Call,
        candidate: Candidate,
        adapter: ProviderAdapter,
        clock: Clock,
        *,
        stream: bool,
        allowed_seconds: float,
    ) -> None:
        self.builder = ReplyBuilder()
        self.deployment = candidate.deployment
        self._call = call
        self._candidate = candidate
        self._adapter = adapter
        self._clock = clock
        self._stream = stream
        self._started_at = clock.monotonic()
        self._ends_at = self._started_at + allowed_seconds
        self._first_token_seconds: float | None = None

    async def run(self) -> AsyncGenerator[Sequence[ReplyEvent], None]:
        """The answer's events in batches, until the provider's own end.

        Raises `ProviderFault` or `DeadlineExceeded`.
        """
        progress_at = self._started_at
        async with aclosing(self._adapter.exchange(self._provider_call())) as batches:
            while True:
                batch = await self._next(batches, progress_at)
                if batch is None:
                    break
                if self._take(batch):
                    progress_at = self._clock.monotonic()
                if batch:
                    yield batch
        self._require_answer()

    async def run_whole(self) -> None:
        """As `run`, for a caller that wants nothing before the end: one timer instead of one for each batch."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + max(0.0, self._ends_at - self._clock.monotonic())
        try:
            async with (
                asyncio.timeout_at(ends_at) as timer,
                aclosing(self._adapter.exchange(self._provider_call())) as batches,
            ):
                async for batch in batches:
                    if self._take(batch) and self.builder.finished is not None:
                        timer.reschedule(min(ends_at, loop.time() + AFTER_END_SECONDS))
        except TimeoutError as error:
            if self.builder.finished is None:
                raise self._timed_out() from error
        self._require_answer()

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
        )

    def _provider_call(self) -> ProviderCall:
        request = self._call.request
        return ProviderCall(
            deployment=self.deployment,
            messages=request.messages,
            generation=request.generation,
            max_output_tokens=self._candidate.max_output_tokens,
            stream=self._stream,
            timeout_seconds=self._ends_at - self._started_at + BACKSTOP_SECONDS,
            headers=self._call.headers,
        )

    async def _next(
        self, batches: AsyncGenerator[Sequence[ReplyEvent], None], progress_at: float
    ) -> Sequence[ReplyEvent] | None:
        ends_at = min(self._ends_at, self._patience_ends_at(progress_at))
        try:
            async with asyncio.timeout(max(0.0, ends_at - self._clock.monotonic())):
                return await anext(batches, None)
        except TimeoutError as error:
            if self.builder.finished is not None:
                return None
            raise self._timed_out() from error

    def _patience_ends_at(self, progress_at: float) -> float:
        timeouts = self.deployment.timeouts
        if self.builder.finished is not None:
            return progress_at + AFTER_END_SECONDS
        if not self._stream:
            return self._ends_at
        return progress_at + (timeouts.idle_seconds if self.builder.has_content else timeouts.first_token_seconds)

    def _timed_out(self) -> ProviderFault | DeadlineExceeded:
        if self._clock.monotonic() >= self._call.deadline - _TIMER_SLACK_SECONDS:
            return DeadlineExceeded(Step.DISPATCH)
        if not self.builder.has_content:
            return ProviderFault(FaultKind.TIMEOUT, "no content within the time allowed")
        if self._clock.monotonic() >= self._ends_at - _TIMER_SLACK_SECONDS:
            return ProviderFault(FaultKind.STREAM_CUT, "the answer was not whole within the time allowed")
        return ProviderFault(FaultKind.STREAM_CUT, "the stream stood still for longer than idle_seconds")

    def _take(self, batch: Sequence[ReplyEvent]) -> bool:
        progressed = False
        for event in batch:
            self.builder.add(event)
            progressed = progressed or isinstance(event, _PROGRESS)
        # Without streaming the first content is the whole answer, which says nothing of the first token.
        if self.builder.has_content and self._stream and self._first_token_seconds is None:
            self._first_token_seconds = self._clock.monotonic() - self._started_at
        return progressed

    def _require_answer(self) -> None:
        finished = self.builder.finished
        if finished is None:
            raise ProviderFault(FaultKind.STREAM_CUT, "the answer ended without the provider's end marker")
        if not self.builder.has_content and finished.reason not in _MAY_BE_EMPTY:
            raise ProviderFault(FaultKind.EMPTY_REPLY, "the provider gave an empty answer")
