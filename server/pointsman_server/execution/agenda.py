"""Who is asked next: candidates not asked yet in the plan's order, then, after a pause, those worth a second try."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from random import Random

from pointsman_server.decision.engine import BUSY_RETRY_SECONDS
from pointsman_server.domain.call import Attempt, AttemptPurpose, Call
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.errors import DeadlineExceeded, Overloaded, RouterError, Step
from pointsman_server.domain.faults import ProviderFault
from pointsman_server.domain.plan import Candidate, ExclusionReason, Rejection, RoutePlan
from pointsman_server.domain.ports import Clock, Operation, Telemetry
from pointsman_server.execution.admission import DeploymentPlaces, Place
from pointsman_server.execution.attempt import LEAST_ATTEMPT_SECONDS
from pointsman_server.execution.health import Admission, HealthBoard
from pointsman_server.execution.retrying import ShareBudget, pause_seconds
from pointsman_server.execution.stopping import nobody_left, stopped_rejection


@dataclass(frozen=True, slots=True)
class Turn:
    """A candidate that may be asked now. Who holds a turn ends it with `admission` and gives `place` back."""

    candidate: Candidate
    purpose: AttemptPurpose
    admission: Admission
    place: Place


@dataclass(frozen=True, slots=True)
class Doorkeepers:
    """What stands between a plan and an attempt, for the whole process."""

    health: HealthBoard
    places: DeploymentPlaces
    retries: ShareBudget
    hedges: ShareBudget
    telemetry: Telemetry
    random: Random
    is_stopped: Callable[[str], bool] = lambda provider_id: False
    may_hedge: Callable[[str], bool] = lambda tenant: True


class Agenda:
    """The order of one call's attempts. `attempts` is the dispatch's own list, which grows."""

    def __init__(
        self,
        call: Call,
        plan: RoutePlan,
        attempts: list[Attempt],
        keepers: Doorkeepers,
        clock: Clock,
        operation: Operation,
    ) -> None:
        self._call = call
        self._plan = plan
        self._attempts = attempts
        self._keepers = keepers
        self._clock = clock
        self._operation = operation
        self._policy = call.snapshot.resilience.retries
        self._asked: set[str] = set()
        self._refused: dict[str, Rejection] = {}
        self._back_at: dict[str, float] = {}
        self._retries = 0

    async def next(self, purpose: AttemptPurpose | None = None) -> Turn | None:
        """The next turn, after the pause it may need; None when nobody can be asked any more.

        `purpose` overrides what the turn would be for. Raises `DeadlineExceeded` when there is no time for another.
        """
        turn = None
        if not self._used_up:
            turn = self.untried(purpose) or await self._again(purpose)
        if turn is None and purpose is None:
            turn = self._last_resort()
        if turn is not None and self._left_seconds < LEAST_ATTEMPT_SECONDS:
            self.give_up(turn)
            raise DeadlineExceeded(Step.DISPATCH)
        return turn

    def untried(self, purpose: AttemptPurpose | None = None) -> Turn | None:
        """A candidate that was not asked yet and can be asked at once."""
        for candidate in self._plan.candidates:
            if self._waits_for_others(candidate):
                continue
            if candidate.deployment.id not in self._asked and self._fits(candidate):
                usual = AttemptPurpose.FALLBACK if self._asked else AttemptPurpose.FIRST
                turn = self._enter(candidate, purpose or usual)
                if turn is not None:
                    return turn
        return None

    def hedge(self) -> Turn | None:
        """Another candidate, to be asked beside the one that is silent, as far as hedges are within their share."""
        share = self._call.snapshot.resilience.hedging.most_share
        if len(self._attempts) + 2 > self._policy.attempts_per_call or self._left_seconds < LEAST_ATTEMPT_SECONDS:
            return None
        turn = self.untried(AttemptPurpose.HEDGE)
        if turn is not None and not self._keepers.hedges.spend(0, share):
            self.give_up(turn)
            self._asked.discard(turn.candidate.deployment.id)
            return None
        return turn

    def same(self, candidate: Candidate, purpose: AttemptPurpose) -> Turn | None:
        """The same candidate once more, at once; None when it cannot be asked.

        A policy that retries nothing leaves room for this one nevertheless.
        """
        asked = sum(attempt.deployment.id == candidate.deployment.id for attempt in self._attempts)
        if self._used_up or asked >= max(self._policy.attempts_per_deployment, 2):
            return None
        if self._left_seconds < LEAST_ATTEMPT_SECONDS:
            return None
        return self._enter(candidate, purpose)

    def failed(self, deployment: Deployment, fault: ProviderFault) -> None:
        """An attempt failed; its provider may have said when to come back."""
        self._back_at[deployment.id] = self._clock.monotonic() + (fault.retry_after_seconds or 0.0)

    @property
    def others_wait(self) -> bool:
        """Whether somebody who was not asked yet could be asked after this attempt."""
        is_last = len(self._attempts) + 1 >= self._policy.attempts_per_call
        return any(
            one.deployment.id not in self._asked
            and one.deployment.id not in self._refused
            and self._fits(one)
            and (not is_last or self._waits_for_others(one))
            for one in self._plan.candidates
        )

    def give_up(self, turn: Turn) -> None:
        """A turn that was not used."""
        turn.admission.released()
        turn.place.give_back()

    def nobody(self, *, sheds: bool = True) -> RouterError:
        """Why not even one attempt could be made; `sheds` says whether a call is lost by that."""
        refusals = tuple(self._refused.values())
        if any(one.reason is ExclusionReason.BUSY for one in refusals):
            if sheds:
                self._keepers.telemetry.shed("deployment")
            return Overloaded(BUSY_RETRY_SECONDS)
        return nobody_left(refusals, self._keepers.health.view())

    @property
    def _used_up(self) -> bool:
        return len(self._attempts) >= self._policy.attempts_per_call

    @property
    def _left_seconds(self) -> float:
        return self._call.deadline - self._clock.monotonic()

    def _enter(self, candidate: Candidate, purpose: AttemptPurpose) -> Turn | None:
        deployment = candidate.deployment
        if self._keepers.is_stopped(deployment.provider.id):
            self._refused[deployment.id] = stopped_rejection(deployment.id)
            return None
        place = self._keepers.places.take(deployment)
        if place is None:
            self._refused[deployment.id] = busy_rejection(deployment.id)
            return None
        admission = self._keepers.health.admit(deployment, self._call.snapshot)
        if isinstance(admission, Rejection):
            place.give_back()
            self._refused[deployment.id] = admission
            return None
        self._refused.pop(deployment.id, None)
        self._asked.add(deployment.id)
        return Turn(candidate, purpose, admission, place)

    def _waits_for_others(self, candidate: Candidate) -> bool:
        """Whether this one, which answers without a model, comes when all others were tried as often as they may."""
        return candidate.deployment.is_last_resort and candidate is not self._plan.candidates[0]

    def _last_resort(self) -> Turn | None:
        """One that answers without a model; it costs nobody anything, so it needs no attempt that is left."""
        for candidate in self._plan.candidates:
            if self._waits_for_others(candidate) and candidate.deployment.id not in self._asked:
                purpose = AttemptPurpose.FALLBACK if self._asked else AttemptPurpose.FIRST
                turn = self._enter(candidate, purpose)
                if turn is not None:
                    return turn
        return None

    async def _again(self, purpose: AttemptPurpose | None) -> Turn | None:
        """A second try, after its pause; who cannot be asked then after all leaves it to the others."""
        passed_over: set[str] = set()
        granted = False
        while (best := min(self._second_tries(passed_over), key=lambda one: one[0], default=None)) is not None:
            wait_seconds, candidate = best
            if wait_seconds + LEAST_ATTEMPT_SECONDS > self._left_seconds or not (granted or self._grant_retry()):
                return None
            granted = True
            await asyncio.sleep(wait_seconds)
            turn = self.untried(purpose) or self._enter(candidate, purpose or AttemptPurpose.RETRY)
            if turn is not None:
                return turn
            # A cooldown may have grown meanwhile, and timers may fire early: that is waited for once more.
            if self._refused[candidate.deployment.id].reason is not ExclusionReason.COOLDOWN:
                passed_over.add(candidate.deployment.id)
        return None

    def _grant_retry(self) -> bool:
        if not self._keepers.retries.spend(self._policy.budget_floor, self._policy.budget_share):
            return False
        self._retries += 1
        self._keepers.telemetry.retried(self._operation, self._retries)
        return True

    def _second_tries(self, passed_over: Collection[str]) -> list[tuple[float, Candidate]]:
        """Candidates that may be asked once more, each with the time to wait before."""
        asked = Counter(attempt.deployment.id for attempt in self._attempts)
        last_fault = {attempt.deployment.id: attempt.fault for attempt in self._attempts}
        now, view = self._clock.monotonic(), self._keepers.health.view()
        tries: list[tuple[float, Candidate]] = []
        for candidate in self._plan.candidates:
            name = candidate.deployment.id
            fault, unwell = last_fault.get(name), view.unavailable(name)
            if fault is None or not fault.rule.retry_here or asked[name] >= self._policy.attempts_per_deployment:
                continue
            if name in passed_over or not self._fits(candidate):
                continue
            if unwell is not None and unwell.reason is not ExclusionReason.COOLDOWN:
                continue
            pause = pause_seconds(self._policy, asked[name], self._keepers.random)
            asked_for = self._back_at.get(name, 0.0) - now
            tries.append((max(pause, asked_for, view.back_in_seconds.get(name, 0.0)), candidate))
        return tries

    def _fits(self, candidate: Candidate) -> bool:
        """Whether this candidate's window is larger than that of every deployment that found the input too long.

        One that does not take all of it is sent less, as much as its window can hold.
        """
        if not candidate.takes_all:
            return True
        window = candidate.deployment.model.context_window_tokens
        return all(
            window > attempt.deployment.model.context_window_tokens
            for attempt in self._attempts
            if attempt.fault is not None and attempt.fault.rule.larger_window_only
        )


def busy_rejection(deployment_id: str) -> Rejection:
    """Why a deployment without a free place is left out."""
    detail = "it serves as many calls at once as its max_concurrent_calls allows"
    return Rejection(deployment_id, ExclusionReason.BUSY, detail)
