"""The guards, with what they look with."""

from __future__ import annotations

from functools import cache

from pointsman_server.adapters.guards.injection import shipped_detector
from pointsman_server.adapters.guards.sensitive import PatternScanner
from pointsman_server.domain.ports import Telemetry
from pointsman_server.execution.guarding import Guards


def build_guards(telemetry: Telemetry) -> Guards:
    """Guards that report to this telemetry."""
    return Guards(shipped_scanner(), shipped_detector(), telemetry)


@cache
def shipped_scanner() -> PatternScanner:
    """What finds sensitive data; one for the process."""
    return PatternScanner()
