from __future__ import annotations

from typing import Any

import pytest

from kit.accounts import attempt, completion, decision
from kit.catalog import call, deployment, snapshot
from pointsman_server.adapters.telemetry.safe import SafeTelemetry
from pointsman_server.domain.call import AttemptPurpose
from pointsman_server.domain.health import BreakerState
from pointsman_server.domain.ports import Operation

A = deployment("a")
CALL = call(snapshot(A), headers={"traceparent": "the caller's"})


class Part:
    """Notes what it is told; `breaks` names what it cannot bear to hear."""

    def __init__(self, headers: dict[str, str] | None = None, breaks: str = "") -> None:
        self.heard: list[str] = []
        self._headers = headers or {}
        self._breaks = breaks

    def __getattr__(self, name: str) -> Any:
        def hear(*_: Any, **__: Any) -> Part:
            self._hear(name)
            return self

        return hear

    @property
    def headers(self) -> dict[str, str]:
        self._hear("headers")
        return self._headers

    def _hear(self, name: str) -> None:
        if name == self._breaks:
            raise RuntimeError("a fault in telemetry")
        self.heard.append(name)


EVERYTHING = [
    "breaker_changed",
    "retried",
    "hedged",
    "shed",
    "guard_hit",
    "call",
    "prepared",
    "decided",
    "attempt",
    "first_content",
    "headers",
    "ended",
    "completed",
    "failed",
]


def tell_all(telemetry: SafeTelemetry) -> dict[str, str]:
    telemetry.breaker_changed("a", BreakerState.CLOSED, BreakerState.OPEN)
    telemetry.retried(Operation.COMPLETE, 1)
    telemetry.hedged(won=True)
    telemetry.shed("calls")
    telemetry.guard_hit("sensitive", "EMAIL", "mask")
    watch = telemetry.call(CALL, Operation.COMPLETE)
    watch.prepared(CALL)
    watch.decided(decision(A))
    running = watch.attempt(A, AttemptPurpose.FIRST)
    watch.first_content()
    headers = dict(running.headers)
    running.ended(attempt(A))
    watch.completed(completion(attempt(A)))
    watch.failed(GeneratorExit())
    return headers


def test_every_part_hears_everything_and_the_last_gives_the_headers() -> None:
    first, last = Part({"traceparent": "first"}), Part({"traceparent": "last"})
    telemetry = SafeTelemetry(first, last)
    assert tell_all(telemetry) == {"traceparent": "last"}
    assert last.heard == EVERYTHING
    assert first.heard == [name for name in EVERYTHING if name != "headers"]
    assert telemetry.failures == 0


@pytest.mark.parametrize("broken", EVERYTHING)
def test_a_part_that_fails_fails_nothing_else(broken: str) -> None:
    well, ill = Part(), Part({"traceparent": "ill"}, breaks=broken)
    telemetry = SafeTelemetry(well, ill)
    headers = tell_all(telemetry)
    assert [name for name in well.heard if name != "headers"] == [name for name in EVERYTHING if name != "headers"]
    assert telemetry.failures == 1
    lost = {"headers": {"traceparent": "the caller's"}, "call": {}, "attempt": {}}
    assert headers == lost.get(broken, {"traceparent": "ill"})


@pytest.mark.parametrize("broken", ["call", "attempt"])
def test_without_any_part_the_callers_own_headers_go_on(broken: str) -> None:
    assert tell_all(SafeTelemetry(Part(breaks=broken))) == {"traceparent": "the caller's"}
