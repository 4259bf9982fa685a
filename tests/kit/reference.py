"""The rules of health, limits and budgets in the plainest words, to hold the real ones against at every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from kit.witness import WitnessedAttempt, WitnessedCall
from pointsman_server.domain.call import AttemptOutcome, AttemptPurpose
from pointsman_server.domain.catalog import Deployment, Snapshot
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.plan import ExclusionReason
from pointsman_server.domain.ports import Clock
from pointsman_server.domain.resilience import BreakerPolicy
from pointsman_server.execution.health import HealthBoard

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN

LEAST_SECONDS = 0.05
"""What an attempt must have left of its call's time."""

ROUNDING_SECONDS = 1e-6

_LEGAL = {(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, OPEN), (HALF_OPEN, CLOSED)}
_OF_THE_CALLER = {
    FaultKind.CONTEXT_WINDOW,
    FaultKind.REQUEST_TOO_LARGE,
    FaultKind.INVALID_REQUEST,
    FaultKind.UNSUPPORTED,
    FaultKind.ANSWER_INVALID,
}
_OF_THE_ACCOUNT = {FaultKind.AUTH, FaultKind.QUOTA}


@dataclass
class Pause:
    """How long something is left alone, and how many refusals there were in a row."""

    first_seconds: float
    longest_seconds: float
    until: float = 0.0
    in_a_row: int = 0

    def refused(self, now: float, began_at: float, wish_seconds: float | None, *, at_least: bool) -> None:
        """A provider refused an attempt that began then; `at_least` makes its wish a floor, not the answer."""
        if began_at >= self.until:
            self.in_a_row += 1
        seconds = min(self.first_seconds * 2 ** max(0, self.in_a_row - 1), self.longest_seconds)
        if wish_seconds is not None:
            seconds = max(seconds, wish_seconds) if at_least else wish_seconds
        self.until = max(self.until, now + min(seconds, 3_600.0))

    def served(self, began_at: float) -> None:
        """An attempt that began then was served."""
        if began_at >= self.until:
            self.in_a_row = 0


@dataclass
class Place:
    """One deployment. An attempt counts only as long as the breaker has not moved since it began (`moves`)."""

    deployment: Deployment
    account: Pause
    rest: Pause = field(default_factory=lambda: Pause(1.0, 60.0))
    state: BreakerState = CLOSED
    moves: int = 0
    open_until: float = 0.0
    failed_probes: int = 0
    by_rate: bool = False
    probe: WitnessedAttempt | None = None
    in_a_row: int = 0
    lately: list[tuple[int, bool]] = field(default_factory=list)
    running: dict[int, tuple[WitnessedAttempt, int]] = field(default_factory=dict)

    def why_not(self, now: float) -> ExclusionReason | None:
        """Why nobody may begin here now."""
        if (self.state is OPEN and now < self.open_until) or (self.state is HALF_OPEN and self.probe is not None):
            return ExclusionReason.BREAKER_OPEN
        return ExclusionReason.COOLDOWN if now < max(self.rest.until, self.account.until) else None

    @property
    def is_full(self) -> bool:
        """Whether all places are taken."""
        return 0 < self.deployment.max_concurrent_calls <= len(self.running)

    def move(self, state: BreakerState, now: float, policy: BreakerPolicy) -> None:
        """The breaker moves."""
        self.state, self.probe = state, None
        self.moves += 1
        if state is OPEN:
            seconds = policy.open_seconds * 2 ** max(0, self.failed_probes - 1)
            self.open_until = now + min(seconds, policy.longest_open_seconds)
        if state is CLOSED:
            self.failed_probes, self.in_a_row, self.lately, self.by_rate = 0, 0, [], False


class PlainWords:
    """Follows what happens and says what must be; a difference is an `AssertionError` at the very step."""

    def __init__(self, policy: Snapshot, board: HealthBoard, clock: Clock) -> None:
        self.policy = policy
        self._resilience = policy.resilience
        self._board = board
        self.clock = clock
        accounts = {one.provider.id: Pause(30.0, 600.0) for one in policy.deployments.values()}
        self.places: Mapping[str, Place] = {
            name: Place(one, accounts[one.provider.id]) for name, one in policy.deployments.items()
        }
        self._told: tuple[str, BreakerState] | None = None
        self._calls: list[int] = []
        self._retries: list[int] = []
        self._hedges: list[int] = []
        self.openings = 0
        self.openings_by_rate = 0
        self.log: list[tuple[float, str, str]] = []
        """What happened: when, what, and to whom."""

    def served_before(self, deployment_id: str) -> None:
        """An attempt that nobody saw was served just now."""
        self._succeeded(self.places[deployment_id], self._now, is_current=True)

    def call_began(self, call: WitnessedCall) -> None:
        """It counts for the budgets, whatever becomes of it."""
        self._write("call", call.call.request_id)
        self._calls.append(int(self._now))

    def call_ended(self, call: WitnessedCall) -> None:
        """Nothing of it goes on."""
        self._write("end", f"{call.call.request_id} {type(call.error).__name__}")
        mine = [name for name, one in self.places.items() if any(a.call is call for a, _ in one.running.values())]
        assert not mine, f"the call is over, and its attempts go on at {mine}"
        self._compare()

    def attempt_began(self, attempt: WitnessedAttempt) -> None:
        """It must be let pass by the breaker, the cooldowns, the places, the deadline and the budget of hedges."""
        now, place = self._now, self.places[attempt.deployment.id]
        self._write(attempt.purpose.value, f"{attempt.call.call.request_id} {attempt.deployment.id}")
        assert attempt.call.ended_at is None, "an attempt of a call that is over"
        assert place.state is not OPEN, "an open breaker admits nobody"
        assert place.why_not(now) is None, place.why_not(now)
        assert not place.is_full, "more at once than max_concurrent_calls"
        left = attempt.call.call.deadline - now
        assert left >= LEAST_SECONDS - ROUNDING_SECONDS, f"begun with {left} s left"
        if attempt.purpose is AttemptPurpose.HEDGE:
            share = self._resilience.hedging.most_share
            assert self._lately(self._hedges) < share * self._lately(self._calls), "hedges beyond their share"
            self._hedges.append(int(now))
        if place.state is HALF_OPEN:
            place.probe = attempt
        place.running[id(attempt)] = attempt, place.moves

    def attempt_ended(self, attempt: WitnessedAttempt) -> None:
        """The breaker must have moved exactly as its end demands."""
        place = self.places[attempt.deployment.id]
        _, moves = place.running.pop(id(attempt))
        account = attempt.account
        assert account is not None
        kind = account.fault.kind.value if account.fault else ""
        self._write(account.outcome.value, f"{attempt.call.call.request_id} {attempt.deployment.id} {kind}")
        before, is_current = place.moves, moves == place.moves
        if account.outcome is AttemptOutcome.SUCCEEDED or _is(account.fault, FaultKind.ANSWER_INVALID):
            self._succeeded(place, attempt.began_at, is_current=is_current)
        elif account.fault is not None:
            self._failed(place, attempt.began_at, account.fault, is_current=is_current)
        elif is_current:
            place.probe = None
        told, self._told = self._told, None
        expected = (place.deployment.id, place.state) if place.moves != before else None
        assert told == expected, f"the breaker moved {told}, not {expected}"
        self._at_most_half_are_out(place.deployment)
        self._compare(place)

    def retry_granted(self, call: WitnessedCall) -> None:
        """The budget must allow it, and nobody may be passed over who was not asked yet."""
        now, retries = self._now, self._resilience.retries
        self._write("again", call.call.request_id)
        allowed = retries.budget_floor + retries.budget_share * self._lately(self._calls)
        assert self._lately(self._retries) < allowed, f"a retry beyond the {allowed} of the last minute"
        self._retries.append(int(now))
        passed_over = [name for name in self.untried(call) if self.may_begin(name)]
        assert not passed_over, f"{passed_over} were not asked yet"

    def breaker_changed(self, deployment_id: str, before: BreakerState, after: BreakerState) -> None:
        """Half open by the time alone, everything else by the end of an attempt that is told next."""
        place = self.places[deployment_id]
        self._write(after.value, deployment_id)
        assert self._told is None, "a breaker moved without an attempt's end"
        assert place.state is before
        assert (before, after) in _LEGAL
        self.openings += after is OPEN
        if after is HALF_OPEN:
            assert self._now >= place.open_until, "half open before its time"
            place.move(HALF_OPEN, self._now, self._resilience.breaker)
        else:
            self._told = deployment_id, after

    def untried(self, call: WitnessedCall) -> list[str]:
        """Who was not asked yet and has a window that is large enough by all that is known."""
        asked = {attempt.deployment.id for attempt in call.attempts}
        return [
            one.deployment.id
            for one in call.plan.candidates
            if one.deployment.id not in asked and not self.too_small(call, one.deployment)
        ]

    def too_small(self, call: WitnessedCall, deployment: Deployment) -> bool:
        """Whether the window of this deployment is known not to be large enough."""
        return deployment.model.context_window_tokens <= largest_window_too_small(call)

    def may_begin(self, name: str) -> bool:
        """Whether an attempt may begin there now."""
        return self.places[name].why_not(self._now) is None and not self.places[name].is_full

    def has_retries_left(self) -> bool:
        """Whether one more retry is within the budget."""
        retries = self._resilience.retries
        return self._lately(self._retries) < retries.budget_floor + retries.budget_share * self._lately(self._calls)

    def quiet(self) -> None:
        """Nobody is under way any more: everything must be back."""
        assert self._told is None
        for name, place in self.places.items():
            assert not place.running, f"attempts at {name} never ended"
            assert place.probe is None, f"the probe's place at {name} is still taken"
        self._compare(*self.places.values())

    @property
    def _now(self) -> float:
        return self.clock.monotonic()

    def _write(self, what: str, whom: str) -> None:
        self.log.append((self._now, what, whom))

    def _lately(self, seconds: list[int]) -> int:
        return sum(int(self._now) - at < 60 for at in seconds)

    def _succeeded(self, place: Place, began_at: float, *, is_current: bool) -> None:
        place.rest.served(began_at)
        place.account.served(began_at)
        if not is_current:
            return
        place.in_a_row = 0
        if place.state is HALF_OPEN:
            place.move(CLOSED, self._now, self._resilience.breaker)
        else:
            self._count(place, failed=False)

    def _failed(self, place: Place, began_at: float, fault: ProviderFault, *, is_current: bool) -> None:
        now, policy = self._now, self._resilience.breaker
        if fault.kind in _OF_THE_ACCOUNT:
            place.account.refused(now, began_at, fault.retry_after_seconds, at_least=True)
        elif fault.kind is FaultKind.RATE_LIMITED:
            place.rest.refused(now, began_at, fault.retry_after_seconds, at_least=False)
        if not is_current:
            return
        if fault.kind in _OF_THE_CALLER or fault.kind is FaultKind.RATE_LIMITED:
            place.probe = None
        elif place.state is HALF_OPEN:
            place.failed_probes += 1
            place.move(OPEN, now, policy)
        else:
            place.in_a_row += 1
            if place.in_a_row >= policy.failures_in_a_row:
                place.move(OPEN, now, policy)
            else:
                self._count(place, failed=True)

    def _count(self, place: Place, *, failed: bool) -> None:
        """Attempts are forgotten by thirtieths of the window."""
        policy = self._resilience.breaker
        cell = int(self._now / (policy.window_seconds / 30))
        place.lately = [(at, bad) for at, bad in place.lately if cell - at < 30] + [(cell, failed)]
        failures = sum(bad for _, bad in place.lately)
        too_many = len(place.lately) >= policy.least_attempts and failures / len(place.lately) >= policy.failure_share
        if failures and too_many and self._may_open_by_rate(place):
            place.by_rate = True
            self.openings_by_rate += 1
            place.move(OPEN, self._now, policy)

    def _may_open_by_rate(self, place: Place) -> bool:
        group = self._group(place.deployment)
        return sum(one.state is not CLOSED for one in group if one is not place) < max(1, len(group) // 2)

    def _at_most_half_are_out(self, deployment: Deployment) -> None:
        group = self._group(deployment)
        out = sum(one.by_rate and one.state is not CLOSED for one in group)
        assert out <= max(1, len(group) // 2), f"{out} of {len(group)} are out by their failure rate"

    def _group(self, deployment: Deployment) -> list[Place]:
        return [one for one in self.places.values() if one.deployment.model.tier is deployment.model.tier]

    def _compare(self, *changed: Place) -> None:
        """The board says of all what these words say, and tells operators the same of those that may have changed."""
        now, view = self._now, self._board.view()
        for name, place in self.places.items():
            rejection, expected = view.unavailable(name), place.why_not(now)
            reason = rejection.reason if rejection is not None else None
            assert reason is expected, f"{name} is out for {reason}, not for {expected}"
        for place in changed:
            report = self._board.report(place.deployment.id)
            assert report.breaker is place.state
            resting = max(0.0, place.rest.until - now, place.account.until - now)
            assert abs(report.cooldown_seconds - resting) < ROUNDING_SECONDS
            opening = max(0.0, place.open_until - now) if place.state is OPEN else 0.0
            assert abs(report.half_open_seconds - opening) < ROUNDING_SECONDS


def largest_window_too_small(call: WitnessedCall) -> int:
    """The largest context window of those that found the input too long so far; 0 when none did."""
    accounts = [attempt.account for attempt in call.attempts if attempt.account is not None]
    return max(
        (
            account.deployment.model.context_window_tokens
            for account in accounts
            if _is(account.fault, FaultKind.CONTEXT_WINDOW) or _is(account.fault, FaultKind.REQUEST_TOO_LARGE)
        ),
        default=0,
    )


def _is(fault: ProviderFault | None, kind: FaultKind) -> bool:
    return fault is not None and fault.kind is kind
