"""The way of recorded calls into the database, which no call ever waits for and none fails on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from pointsman_server.domain.call import Attempt, Decision
from pointsman_server.domain.ports import Clock
from pointsman_server.domain.trace import EndedCall, Trace, TraceStore
from pointsman_server.execution.background import Background, succeeds
from pointsman_server.execution.trace_text import Shown, TraceMasker

MOST_WAITING = 1_024
"""Calls that may wait for being written; more are dropped."""

MOST_WAITING_TOKENS = 2_000_000
"""Of calls whose texts wait with them."""

GATHERING_SECONDS = 0.5
"""So long a call waits for others to be written with it: a transaction costs as much as thirty rows."""

MOST_AT_ONCE = 32
"""Calls of one transaction: other writers, some of them on the way of a call, wait meanwhile."""

CHUNK = 16
"""Calls that are made ready before others than this writer have their turn."""

REST_SECONDS = 1.0
"""For so long nothing is asked of a store that failed."""

CLEANING_SECONDS = 60.0

MOST_TRACES_OF_TENANT = 20_000
MOST_TRACES = 100_000
"""In the database. The oldest give way."""

_DAY_SECONDS = 86_400

_LOG = structlog.stdlib.get_logger("pointsman.traces")

Encode = Callable[[Decision | None, Sequence[Attempt]], bytes]
"""Turns decision and attempts into what is stored of them."""


class TraceWriter:
    """See `TraceLog`. start → close; what finds no room, or cannot be written, is dropped and counted."""

    def __init__(self, store: TraceStore, encode: Encode, masker: TraceMasker, clock: Clock) -> None:
        self._store = store
        self._encode = encode
        self._masker = masker
        self._clock = clock
        self._waiting: list[EndedCall] = []
        self._waiting_tokens = 0
        self._seen_tenants: set[str] = set()
        self._background = Background("write-traces", self._work)
        self._cleans_at = float("-inf")
        self.dropped = 0

    def start(self) -> None:
        """Begins to write."""
        self._background.start()

    async def close(self) -> None:
        """Writes what waits, if the store answers soon, and ends."""
        if await self._background.close():
            self.dropped += len(self._waiting)
            self._waiting = []

    def record(self, ended: EndedCall) -> None:
        """See `TraceLog.record`."""
        tokens = _tokens_of(ended)
        if len(self._waiting) >= MOST_WAITING or self._waiting_tokens + tokens > MOST_WAITING_TOKENS:
            self.dropped += 1
            return
        self._waiting.append(ended)
        self._waiting_tokens += tokens
        self._background.wake()

    async def _work(self) -> None:
        while not (self._background.is_ending and not self._waiting):
            await self._background.woken(CLEANING_SECONDS)
            if not self._background.is_ending:
                await asyncio.sleep(GATHERING_SECONDS)
            self._background.slept()
            if not await succeeds(self._write_and_clean(), _not_written):
                if self._background.is_ending:
                    return
                await asyncio.sleep(REST_SECONDS)

    async def _write_and_clean(self) -> None:
        # Not those who come meanwhile: they gather for the next time.
        for _ in range(0, len(self._waiting), MOST_AT_ONCE):
            calls, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            self._waiting_tokens -= sum(map(_tokens_of, calls))
            try:
                await self._store.write(await self._traces(calls))
            except BaseException:
                self.dropped += len(calls)
                raise
            self._seen_tenants.update(call.line.tenant for call in calls)
        if self._clock.monotonic() >= self._cleans_at and not self._background.is_ending:
            self._cleans_at = self._clock.monotonic() + CLEANING_SECONDS
            await self._clean()

    async def _clean(self) -> None:
        tenants, self._seen_tenants = sorted(self._seen_tenants), set()
        limits = {"most_of_tenant": MOST_TRACES_OF_TENANT, "most": MOST_TRACES}
        while not self._background.is_ending and await self._store.clean(self._clock.now(), tenants, **limits):
            pass

    async def _traces(self, calls: Sequence[EndedCall]) -> list[Trace]:
        traces: list[Trace] = []
        for place, call in enumerate(calls, start=1):
            traces.append(await self._trace(call))
            if place % CHUNK == 0:
                await asyncio.sleep(0)
        return traces

    async def _trace(self, call: EndedCall) -> Trace:
        shown = await self._shown(call)
        return Trace(
            line=call.line,
            expires_at=call.line.started_at + call.policy.retention_days * _DAY_SECONDS,
            account=self._encode(call.decision, call.attempts),
            labels=call.labels,
            prompt=shown.prompt,
            answer=shown.answer,
        )

    async def _shown(self, call: EndedCall) -> Shown:
        """The masked texts; none where they cannot be masked."""
        if call.shown is None:
            return Shown()
        try:
            return await self._masker.shown(call.shown, call.reply, call.policy.most_text_characters)
        except Exception as error:
            # Its type alone: what an exception says may quote the text.
            _LOG.warning("trace_without_text", request_id=call.line.request_id, error=type(error).__name__)
            return Shown()


def _not_written(error: str) -> None:
    _LOG.warning("traces_not_written", error=error, remedy="see that the database answers")


def _tokens_of(ended: EndedCall) -> int:
    if ended.shown is None or ended.decision is None:
        return 0
    return ended.decision.plan.input_tokens.tokens
