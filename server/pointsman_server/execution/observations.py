"""What a deployment's attempts showed lately: latency quantiles and failures, older ones counting less and less."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pointsman_server.domain.health import Observed

HALF_LIFE_SECONDS = 300.0
"""After this time an observation counts half."""

VIEW_SECONDS = 1.0
"""How long observations are shown before they lose weight again; what an attempt adds is shown at once."""

_LOWEST_SECONDS = 0.001
_RATIO = 1.25
_BUCKETS = 54
"""Buckets of a logarithmic histogram from a millisecond to two minutes; a quantile is at most 12 % off."""

_LOG_RATIO = math.log(_RATIO)


class Observations:
    """Decayed histogram of first-token latencies, and decayed counts of attempts and failures."""

    __slots__ = ("_attempts", "_failures", "_latencies", "_updated_at")

    def __init__(self, now_seconds: float) -> None:
        self._latencies = [0.0] * _BUCKETS
        self._attempts = 0.0
        self._failures = 0.0
        self._updated_at = now_seconds

    def answered(self, first_token_seconds: float | None, now_seconds: float) -> None:
        """An attempt gave its answer; the latency is None where nothing was streamed."""
        self._decay(now_seconds)
        self._attempts += 1.0
        if first_token_seconds is not None:
            self._latencies[_bucket(first_token_seconds)] += 1.0

    def failed(self, now_seconds: float) -> None:
        """An attempt failed through the provider's fault."""
        self._decay(now_seconds)
        self._attempts += 1.0
        self._failures += 1.0

    def view(self, now_seconds: float) -> Observed:
        """The state at this moment."""
        weight = _weight(now_seconds - self._updated_at)
        answers = sum(self._latencies)
        return Observed(
            answers=answers * weight,
            first_token_p50_seconds=self._quantile(0.50, answers) or 0.0,
            first_token_p95_seconds=self._quantile(0.95, answers) or 0.0,
            attempts=self._attempts * weight,
            failures=self._failures * weight,
        )

    def answers(self, now_seconds: float) -> float:
        """How many answers with a latency count at this moment."""
        return sum(self._latencies) * _weight(now_seconds - self._updated_at)

    def first_token_quantile_seconds(self, share: float) -> float | None:
        """The latency that this share of the answers kept, None before the first."""
        return self._quantile(share, sum(self._latencies))

    def _decay(self, now_seconds: float) -> None:
        weight = _weight(now_seconds - self._updated_at)
        self._latencies = [count * weight for count in self._latencies]
        self._attempts *= weight
        self._failures *= weight
        self._updated_at = now_seconds

    def _quantile(self, share: float, answers: float) -> float | None:
        wanted, seen = share * answers, 0.0
        if not answers:
            return None
        for place, count in enumerate(self._latencies):
            seen += count
            if seen >= wanted and count:
                return float(_LOWEST_SECONDS * _RATIO ** (place + 0.5))
        return float(_LOWEST_SECONDS * _RATIO**_BUCKETS)


class ObservationBook:
    """The observations of all deployments, and a view of them that is only made anew where something changed."""

    def __init__(self) -> None:
        self._by_id: dict[str, Observations] = {}
        self._touched: set[str] = set()
        self._view: Mapping[str, Observed] = {}
        self._view_until = float("-inf")

    def answered(self, deployment_id: str, first_token_seconds: float | None, now_seconds: float) -> None:
        """See `Observations.answered`."""
        self._touch(deployment_id, now_seconds).answered(first_token_seconds, now_seconds)

    def failed(self, deployment_id: str, now_seconds: float) -> None:
        """See `Observations.failed`."""
        self._touch(deployment_id, now_seconds).failed(now_seconds)

    def of(self, deployment_id: str) -> Observations | None:
        """What was observed of this deployment, None if it was never called."""
        return self._by_id.get(deployment_id)

    def view(self, now_seconds: float) -> Mapping[str, Observed]:
        """The state of all; a mapping that was given out holds still."""
        if now_seconds >= self._view_until and self._by_id:
            self._view = {name: one.view(now_seconds) for name, one in self._by_id.items()}
            self._view_until = now_seconds + VIEW_SECONDS
        elif self._touched:
            self._view = {**self._view, **{name: self._by_id[name].view(now_seconds) for name in self._touched}}
        self._touched.clear()
        return self._view

    def _touch(self, deployment_id: str, now_seconds: float) -> Observations:
        self._touched.add(deployment_id)
        known = self._by_id.get(deployment_id)
        if known is None:
            known = self._by_id[deployment_id] = Observations(now_seconds)
        return known


def _weight(age_seconds: float) -> float:
    return float(0.5 ** (max(0.0, age_seconds) / HALF_LIFE_SECONDS))


def _bucket(seconds: float) -> int:
    if seconds <= _LOWEST_SECONDS:
        return 0
    return min(_BUCKETS - 1, int(math.log(seconds / _LOWEST_SECONDS) / _LOG_RATIO))
