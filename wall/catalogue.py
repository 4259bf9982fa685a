"""All scenarios in the order of their ids."""

from __future__ import annotations

from collections.abc import Mapping

from wall.scenario import Scenario
from wall.scenarios import callers, cuts, limits, outages, replies, streams

_ALL = (
    *outages.SCENARIOS,
    *limits.SCENARIOS,
    *cuts.SCENARIOS,
    *streams.SCENARIOS,
    *callers.SCENARIOS,
    *replies.SCENARIOS,
)

SCENARIOS: Mapping[str, Scenario] = {scenario.id: scenario for scenario in sorted(_ALL, key=lambda one: one.id)}
