"""One deployment's circuit breaker: pybreaker's states, on the monotonic clock, with one probe at a time.

pybreaker half-opens by the wall clock, which may jump, and lets everybody pass who comes while it is half open. So its
own timer never ends here: who admits a call half-opens the breaker, and takes the one place there is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

import pybreaker

from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.resilience import BreakerPolicy
from pointsman_server.execution.attempt_window import AttemptWindow

PROBE_SECONDS = 1.0
"""When to ask again while a probe is under way: nobody knows how long it takes."""

_NEVER_BY_ITSELF = 10**9
_MOST_DOUBLINGS = 60
_STATES: Mapping[str, BreakerState] = {
    pybreaker.STATE_CLOSED: BreakerState.CLOSED,
    pybreaker.STATE_OPEN: BreakerState.OPEN,
    pybreaker.STATE_HALF_OPEN: BreakerState.HALF_OPEN,
}

Moved = Callable[[BreakerState, BreakerState, str], None]
"""Hears of a transition: the state before, the state after, and why."""


class Breaker:
    """Counts failures in a row and failures lately; opens, half-opens and closes.

    `generation` changes with every transition. An attempt belongs to the generation it was admitted in, and its end
    has no say in a later one: it tells of a time that is over. Times are seconds on the monotonic clock.
    """

    __slots__ = (
        "_circuit",
        "_moved",
        "_window",
        "failed_probes",
        "generation",
        "is_probed",
        "moved_at",
        "open_until",
        "opened_by_rate",
        "reason",
        "state",
    )

    def __init__(self, name: str, moved: Moved) -> None:
        self._circuit = pybreaker.CircuitBreaker(
            reset_timeout=_NEVER_BY_ITSELF, name=name, listeners=[_Listener(self._on_move)]
        )
        self._moved = moved
        self._window = AttemptWindow(BreakerPolicy().window_seconds)
        self.state = BreakerState.CLOSED
        self.generation = 0
        self.moved_at = float("-inf")
        self.open_until = 0.0
        self.failed_probes = 0
        self.is_probed = False
        self.opened_by_rate = False
        self.reason = ""

    def refusal(self, now: float) -> tuple[str, float] | None:
        """Why no call may pass now and in how many seconds one may, None when one may; changes nothing."""
        if self.state is BreakerState.OPEN and now < self.open_until:
            left = self.open_until - now
            return f"its breaker is open after {self.reason}; next try in {left:.0f} s", left
        if self.state is BreakerState.HALF_OPEN and self.is_probed:
            return "its breaker is half open: one call is under way to try it", PROBE_SECONDS
        return None

    def let_pass(self, now: float) -> None:
        """A call passes, which `refusal` did not forbid; unless the breaker is closed it is the probe."""
        if self.state is BreakerState.OPEN:
            self._prepare("its time is over", now)
            self._circuit.half_open()
        self.is_probed = self.state is BreakerState.HALF_OPEN

    def succeed(self, generation: int, policy: BreakerPolicy, now: float, may_open_by_rate: Callable[[], bool]) -> None:
        """An attempt of this generation gave its answer."""
        if generation != self.generation:
            return
        if self.state is BreakerState.HALF_OPEN:
            self._prepare("a successful probe", now)
            self._tell_circuit(failed=False)
            return
        if self._circuit.fail_counter:
            self._tell_circuit(failed=False)
        self._count(policy, now, may_open_by_rate, failed=False)

    def fail(self, generation: int, policy: BreakerPolicy, now: float, may_open_by_rate: Callable[[], bool]) -> None:
        """An attempt of this generation failed through the deployment's fault."""
        if generation != self.generation:
            return
        if self.state is BreakerState.HALF_OPEN:
            self.failed_probes += 1
            self._prepare_opening("a failed probe", policy, now)
            self._tell_circuit(failed=True)
            return
        in_a_row = self._circuit.fail_counter + 1
        self._circuit.fail_max = policy.failures_in_a_row
        if in_a_row >= policy.failures_in_a_row:
            self.opened_by_rate = False
            self._prepare_opening(f"{in_a_row} failures in a row" if in_a_row > 1 else "a failure", policy, now)
            self._tell_circuit(failed=True)
        else:
            self._tell_circuit(failed=True)
            self._count(policy, now, may_open_by_rate, failed=True)

    def release(self, generation: int) -> None:
        """An attempt of this generation ended without a verdict: another may take the probe's place."""
        if generation == self.generation:
            self.is_probed = False

    def reset(self, reason: str, now: float) -> None:
        """Closes it and forgets all failures, those of attempts still under way included."""
        self._prepare(reason, now)
        if self.state is BreakerState.CLOSED:
            self._tell_circuit(failed=False)
            self._begin_anew()
        else:
            self._circuit.close()

    def open_for(self, seconds: float, failed_probes: int, now: float, *, by_rate: bool) -> None:
        """Opens because somebody else found the deployment broken; extends the time of a breaker that is open.

        While a probe of our own is under way, that one decides.
        """
        if self.is_probed:
            return
        self.failed_probes = max(self.failed_probes, failed_probes)
        self.open_until = max(self.open_until, now + seconds)
        if self.state is BreakerState.CLOSED:
            self.opened_by_rate = by_rate
        if self.state is not BreakerState.OPEN:
            self._prepare("failures that another replica met", now)
            self._circuit.open()

    def _count(self, policy: BreakerPolicy, now: float, may_open: Callable[[], bool], *, failed: bool) -> None:
        if self._window.seconds != policy.window_seconds:
            self._window = AttemptWindow(policy.window_seconds)
        window = self._window
        window.add(now, failed=failed)
        if not window.failures or window.attempts < policy.least_attempts:
            return
        if window.failures / window.attempts >= policy.failure_share and may_open():
            self.opened_by_rate = True
            lately = f"{window.failures} of {window.attempts} attempts failed in {policy.window_seconds:g} s"
            self._prepare_opening(lately, policy, now)
            self._circuit.open()

    def _prepare_opening(self, reason: str, policy: BreakerPolicy, now: float) -> None:
        doublings = max(0, min(self.failed_probes - 1, _MOST_DOUBLINGS))
        self.open_until = now + min(policy.open_seconds * 2**doublings, policy.longest_open_seconds)
        self._prepare(reason, now)

    def _prepare(self, reason: str, now: float) -> None:
        self.reason, self.moved_at = reason, now

    def _tell_circuit(self, *, failed: bool) -> None:
        with suppress(_FailedError, pybreaker.CircuitBreakerError), self._circuit.calling():
            if failed:
                raise _FailedError

    def _begin_anew(self) -> None:
        self.generation += 1
        self.is_probed = False
        if self.state is BreakerState.CLOSED:
            self.failed_probes = 0
            self.opened_by_rate = False
            self._window.clear()

    def _on_move(self, before: BreakerState, after: BreakerState) -> None:
        self.state = after
        self._begin_anew()
        self._moved(before, after, self.reason)


class _FailedError(Exception):
    """Stands for a fault before pybreaker, which only counts."""


class _Listener(pybreaker.CircuitBreakerListener):
    def __init__(self, on_move: Callable[[BreakerState, BreakerState], None]) -> None:
        self._on_move = on_move

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        """See pybreaker."""
        before = _STATES[old_state.name] if old_state is not None else BreakerState.CLOSED
        self._on_move(before, _STATES[new_state.name])
