"""Decides every call once more under the policy that is tried as a shadow: nothing is asked, nothing is spent."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress

import structlog

from pointsman_server.decision.replay import Comparison, decide_again
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.ports import DecisionLog
from pointsman_server.domain.record import DecisionRecord
from pointsman_server.execution.policies import PolicyKeeper

MOST_WAITING = 1_000
"""Decisions that wait to be made again; more are left out and counted, so that no call pays for a shadow."""

PAUSE_SECONDS = 0.01
TELL_SECONDS = 60.0
_AT_ONCE = 5
_MOST_MOVES = 10

_LOG = structlog.stdlib.get_logger("pointsman.rollouts")


class ShadowLog:
    """A log of decisions that passes all on to `log`, and compares those under the policy in force with the shadow's.

    start → close. `comparison` is about the shadow that runs, or ran last; `left_out` counts what was not compared
    since the process started.
    """

    def __init__(self, log: DecisionLog, keeper: PolicyKeeper) -> None:
        self._log = log
        self._keeper = keeper
        self._waiting: deque[DecisionRecord] = deque()
        self._shadow: Snapshot | None = None
        self._told = 0
        self._task: asyncio.Task[None] | None = None
        self.comparison = Comparison()
        self.left_out = 0

    def append(self, record: DecisionRecord) -> None:
        """See `DecisionLog.append`."""
        self._log.append(record)
        if self._keeper.shadow is None or record.policy_version != self._keeper.current.version:
            return
        if len(self._waiting) >= MOST_WAITING:
            self.left_out += 1
        else:
            self._waiting.append(record)

    def start(self) -> None:
        """Compares from now on, in the background."""
        self._task = asyncio.create_task(self._keep_comparing(), name="shadow")

    async def close(self) -> None:
        """Compares no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        self.tell()

    def compare(self, most: int = MOST_WAITING) -> None:
        """Decides so many of those that wait once more."""
        shadow = self._keeper.shadow
        if shadow is not self._shadow:
            self.tell()
            self._shadow, self._told = shadow, 0
            if shadow is not None:
                self.comparison = Comparison()
        if shadow is None:
            self._waiting.clear()
            return
        for _ in range(min(most, len(self._waiting))):
            record = self._waiting.popleft()
            self.comparison.add(record.outcome, decide_again(record, shadow))

    def tell(self) -> None:
        """Puts into the log what would be different, unless that was told already."""
        if self._shadow is None or self.comparison.decisions == self._told:
            return
        seen = self.comparison
        self._told = seen.decisions
        moves = sorted(seen.moves.items(), key=lambda move: (-move[1], move[0]))[:_MOST_MOVES]
        _LOG.info(
            "shadow_compared",
            policy_version=self._shadow.version,
            decisions=seen.decisions,
            same=seen.same,
            newly_refused=seen.newly_refused,
            newly_answered=seen.newly_answered,
            expected_cost_micro_usd=seen.cost_before_micro_usd,
            shadow_cost_micro_usd=seen.cost_after_micro_usd,
            moves=[{"from": before, "to": after, "count": count} for (before, after), count in moves],
            left_out=self.left_out,
        )

    async def _keep_comparing(self) -> None:
        loop = asyncio.get_running_loop()
        tell_at = loop.time() + TELL_SECONDS
        while True:
            # A few at a time: calls that come meanwhile must not wait for many.
            await asyncio.sleep(PAUSE_SECONDS if self._waiting else 10 * PAUSE_SECONDS)
            self.compare(_AT_ONCE)
            if loop.time() >= tell_at:
                self.tell()
                tell_at = loop.time() + TELL_SECONDS
