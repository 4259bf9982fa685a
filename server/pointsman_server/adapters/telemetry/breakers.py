"""What the metrics tell of breakers: state now, changes, and how long each was open."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from pointsman_server.adapters.telemetry.tally import Tally
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.ports import Clock

_NUMBER_OF = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}

_USUAL_CHANGES = (
    (BreakerState.CLOSED, BreakerState.OPEN),
    (BreakerState.OPEN, BreakerState.HALF_OPEN),
    (BreakerState.HALF_OPEN, BreakerState.OPEN),
    (BreakerState.HALF_OPEN, BreakerState.CLOSED),
)


class _Course(NamedTuple):
    """A breaker's state and its open time until `open_since`; a tuple, so that a scrape never sees half a change."""

    state: BreakerState = BreakerState.CLOSED
    open_seconds: float = 0.0
    open_since: float | None = None


class BreakerMetrics:
    """Knows of every deployment of the policy; those never heard of are closed."""

    def __init__(self, meter: Meter, deployment_ids: Callable[[], Iterable[str]], clock: Clock) -> None:
        self._deployment_ids = deployment_ids
        self._clock = clock
        self._courses: dict[str, _Course] = {}
        self._changes = Tally(
            meter,
            "pointsman_breaker_transitions",
            "Changes of a deployment's breaker.",
            ("deployment", "from_state", "to_state"),
            [(one, before.value, after.value) for one in deployment_ids() for before, after in _USUAL_CHANGES],
        )
        meter.create_observable_gauge(
            "pointsman_breaker_state",
            [self._observe_states],
            description="State of a deployment's breaker: 0 closed, 1 half-open, 2 open.",
        )
        meter.create_observable_counter(
            "pointsman_breaker_open_seconds",
            [self._observe_open_seconds],
            description="Seconds for which a deployment's breaker was open, half-open not counted.",
        )

    def changed(self, deployment_id: str, before: BreakerState, after: BreakerState) -> None:
        """See `Telemetry.breaker_changed`."""
        self._changes.add((deployment_id, before.value, after.value))
        now = self._clock.monotonic()
        open_seconds = self._open_seconds(deployment_id, now)
        open_since = now if after is BreakerState.OPEN else None
        self._courses[deployment_id] = _Course(after, open_seconds, open_since)

    def _open_seconds(self, deployment_id: str, now: float) -> float:
        course = self._courses.get(deployment_id, _Course())
        running = 0.0 if course.open_since is None else max(0.0, now - course.open_since)
        return course.open_seconds + running

    def _observe_states(self, _: CallbackOptions) -> list[Observation]:
        return [
            Observation(_NUMBER_OF[self._courses.get(one, _Course()).state], {"deployment": one})
            for one in self._deployment_ids()
        ]

    def _observe_open_seconds(self, _: CallbackOptions) -> list[Observation]:
        now = self._clock.monotonic()
        return [Observation(self._open_seconds(one, now), {"deployment": one}) for one in self._deployment_ids()]
