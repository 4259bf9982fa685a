"""Watches a canary beside the rest of the calls, and ends it by itself when it does far worse."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import structlog

from pointsman_server.domain.call import AttemptPurpose, Call, Completion, Decision
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.control import Rollout, RolloutKind
from pointsman_server.domain.errors import (
    ContextOverflow,
    DecisionExpired,
    Draining,
    InvalidRequest,
    Overloaded,
    PermissionDenied,
    ReaderTooSlow,
    RequestIdReused,
    RequestNotFound,
    SwitchedOff,
    Unauthenticated,
    UnsupportedContent,
)
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.ports import (
    AttemptWatch,
    CallWatch,
    Clock,
    ControlKeeper,
    Operation,
    StoreUnavailableError,
    Telemetry,
)
from pointsman_server.execution.canary_samples import Samples, Tallies, TallyExchange, Together, verdict_on
from pointsman_server.execution.control import ControlBook
from pointsman_server.execution.policies import PolicyKeeper

JUDGE_SECONDS = 1.0

SHARE_SECONDS = 2.0
"""So often the processes tell each other how their calls went, while a canary runs."""

LOOK_SECONDS = 1.0
"""After this the store counts as unavailable, and a process judges by its own calls."""

AUTOMATIC = "automatic rollback"
"""Who ended a trial when nobody did."""

_NOT_THE_POLICYS = (
    Unauthenticated,
    PermissionDenied,
    InvalidRequest,
    SwitchedOff,
    RequestIdReused,
    RequestNotFound,
    DecisionExpired,
    ReaderTooSlow,
    Overloaded,
    Draining,
)
_THE_POLICYS_ALL_THE_SAME = (ContextOverflow, UnsupportedContent)
"""The request is wrong for the deployments that this policy has."""

_LOG = structlog.stdlib.get_logger("pointsman.rollouts")


class CanaryWatch:
    """Telemetry that also counts how calls went while a canary runs; all it is told it passes on to `telemetry`.

    start → close. Each process judges by its own calls and, with `tallies`, by those of the others; whichever finds the
    canary worse ends it for all.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        keeper: PolicyKeeper,
        clock: Clock,
        store: ControlKeeper,
        book: ControlBook,
        tallies: TallyExchange | None = None,
    ) -> None:
        self._telemetry = telemetry
        self._keeper = keeper
        self._clock = clock
        self._store = store
        self._book = book
        self._tallies = tallies
        self._others: Sequence[Tallies] = ()
        self._shares_at = float("-inf")
        self._is_told = False
        self._is_shared = True
        self._task: asyncio.Task[None] | None = None
        self._versions = ("", "")
        self.canary, self.control = Samples(), Samples()

    def start(self) -> None:
        """Judges from now on."""
        self._task = asyncio.create_task(self._keep_judging(), name="canary-watch")

    async def close(self) -> None:
        """Judges no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def call(self, call: Call, operation: Operation) -> CallWatch:
        """See `Telemetry.call`."""
        watch = self._telemetry.call(call, operation)
        if operation is Operation.ROUTE or self._keeper.canary is None:
            return watch
        samples = self._samples_of(call.snapshot.version)
        return watch if samples is None else _CountedCall(watch, samples, self._clock)

    def breaker_changed(self, deployment_id: str, before: BreakerState, after: BreakerState) -> None:
        """See `Telemetry.breaker_changed`."""
        self._telemetry.breaker_changed(deployment_id, before, after)

    def retried(self, operation: Operation, number: int) -> None:
        """See `Telemetry.retried`."""
        self._telemetry.retried(operation, number)

    def hedged(self, *, won: bool) -> None:
        """See `Telemetry.hedged`."""
        self._telemetry.hedged(won=won)

    def shed(self, reason: str) -> None:
        """See `Telemetry.shed`."""
        self._telemetry.shed(reason)

    def guard_hit(self, guard: str, kind: str, action: str, count: int = 1) -> None:
        """See `Telemetry.guard_hit`."""
        self._telemetry.guard_hit(guard, kind, action, count)

    async def judge(self) -> None:
        """Ends the canary if it does far worse. Never fails."""
        rollout = self._keeper.rollout
        self._begin_anew()
        if rollout is None or rollout.kind is not RolloutKind.CANARY:
            await self._withdraw()
            return
        versions = self._versions
        await self._share()
        canary = Together(self.canary, [one.canary for one in self._others])
        why = verdict_on(canary, Together(self.control, [one.control for one in self._others]))
        if why and self._versions == versions and versions[0] == self._canary_version:
            await self._end(rollout, why)

    async def _share(self) -> None:
        if self._tallies is None or self._clock.monotonic() < self._shares_at:
            return
        self._shares_at = self._clock.monotonic() + SHARE_SECONDS
        versions, own = self._versions, Tallies(self.canary.tally(), self.control.tally())
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                others = await self._tallies.exchange("|".join(versions), own)
        except (StoreUnavailableError, TimeoutError) as error:
            self._others = ()
            if self._is_shared:
                _LOG.warning("canary_judged_alone", error=type(error).__name__, remedy="see that the database answers")
            self._is_shared = False
        else:
            self._is_told = self._is_shared = True
            self._others = others if versions == self._versions else ()

    async def _withdraw(self) -> None:
        """Nobody is to judge the next trial by the calls of this one."""
        if self._tallies is None or not self._is_told:
            return
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._tallies.withdraw()
        except (StoreUnavailableError, TimeoutError):
            return
        self._is_told = False

    def _samples_of(self, version: str) -> Samples | None:
        self._begin_anew()
        if version == self._versions[0]:
            return self.canary
        return self.control if version == self._versions[1] else None

    def _begin_anew(self) -> None:
        """Other policies have done nothing yet."""
        versions = (self._canary_version, self._keeper.current.version)
        if versions != self._versions:
            self._versions = versions
            self.canary, self.control = Samples(), Samples()
            self._others, self._shares_at = (), float("-inf")

    @property
    def _canary_version(self) -> str:
        canary = self._keeper.canary
        return "" if canary is None else canary.version

    async def _keep_judging(self) -> None:
        while True:
            await asyncio.sleep(JUDGE_SECONDS)
            await self.judge()

    async def _end(self, rollout: Rollout, why: str) -> None:
        async with self._keeper.changing:
            if self._keeper.rollout != rollout:
                return
            # Here at once, whether or not the others can be told.
            await self._keeper.end_trial()
            _LOG.error("rollout_rolled_back", policy_version=rollout.version, percent=rollout.percent, reason=why)
            try:
                if self._book.current.rollout == rollout:
                    await self._store.set_rollout(None, AUTOMATIC, why)
                    await self._book.refresh()
            except StoreUnavailableError as error:
                _LOG.error("rollback_not_shared", policy_version=rollout.version, error=str(error))


class _CountedCall:
    """One call. A stream counts until its first content: what comes after it is the reader's pace too."""

    def __init__(self, watch: CallWatch, samples: Samples, clock: Clock) -> None:
        self._watch = watch
        self._samples = samples
        self._clock = clock
        self._began_at = clock.monotonic()
        self._seconds: float | None = None
        self._is_over = False

    def prepared(self, call: Call) -> None:
        self._watch.prepared(call)

    def decided(self, decision: Decision) -> None:
        self._watch.decided(decision)

    def attempt(self, deployment: Deployment, purpose: AttemptPurpose) -> AttemptWatch:
        return self._watch.attempt(deployment, purpose)

    def first_content(self) -> None:
        self._seconds = self._clock.monotonic() - self._began_at
        self._watch.first_content()

    def completed(self, completion: Completion) -> None:
        self._watch.completed(completion)
        if not self._is_over:
            self._is_over = True
            self._samples.failed.append(False)
            self._samples.seconds.append(
                self._clock.monotonic() - self._began_at if self._seconds is None else self._seconds
            )

    def failed(self, error: BaseException) -> None:
        self._watch.failed(error)
        if not self._is_over and _is_the_policys(error):
            self._samples.failed.append(True)
        self._is_over = True


def _is_the_policys(error: BaseException) -> bool:
    """Whether another policy could have made the call succeed."""
    if not isinstance(error, Exception):
        return False  # the caller went away
    return not isinstance(error, _NOT_THE_POLICYS) or isinstance(error, _THE_POLICYS_ALL_THE_SAME)
