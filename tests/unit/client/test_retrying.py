"""Which failures are repeated, and how long that takes."""

from __future__ import annotations

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_client import RetryPolicy
from pointsman_client._retrying import Attempts, Method, was_not_started
from pointsman_client.errors import PointsmanError, RateLimited, Unavailable
from pointsman_client.testing._script import rpc_error

BUSY = Unavailable("busy", reason="OVERLOADED", retry_delay_seconds=0.0)


class FakeClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def attempts(
    policy: RetryPolicy, timeout_seconds: float = 60.0, *, draw: float = 1.0, clock: FakeClock | None = None
) -> Attempts:
    return Attempts(Method.COMPLETE, policy, timeout_seconds, "r1", clock=clock or FakeClock(), draw=lambda: draw)


def delays(running: Attempts, error: PointsmanError, count: int) -> list[float]:
    found = []
    for _ in range(count):
        running.begin()
        found.append(running.delay_after(rpc_error(error, "r1")))
    return found


def test_delays_double_up_to_the_longest() -> None:
    policy = RetryPolicy(max_attempts=9, first_delay_seconds=0.5, longest_delay_seconds=3.0)
    assert delays(attempts(policy), BUSY, 5) == [0.5, 1.0, 2.0, 3.0, 3.0]


@given(draw=st.floats(0, 1, exclude_max=True), asked=st.floats(0, 10), made=st.integers(1, 8))
def test_jitter_is_full_and_comes_on_top_of_what_the_server_asks(draw: float, asked: float, made: int) -> None:
    policy = RetryPolicy(max_attempts=100)
    running = attempts(policy, 1e6, draw=draw)
    error = Unavailable("busy", reason="OVERLOADED", retry_delay_seconds=asked)
    last = delays(running, error, made)[-1]
    asked_as_sent = int(asked * 1e9) / 1e9
    assert last == pytest.approx(asked_as_sent + draw * min(5.0, 0.2 * 2 ** (made - 1)), abs=1e-6)


def test_the_last_attempt_raises_what_happened() -> None:
    running = attempts(RetryPolicy(max_attempts=2))
    delays(running, BUSY, 1)
    running.begin()
    with pytest.raises(Unavailable) as raised:
        running.delay_after(rpc_error(BUSY, "r1"))
    assert isinstance(raised.value.__cause__, grpc.RpcError)


def test_time_left_shrinks_and_an_attempt_without_time_is_not_begun() -> None:
    clock = FakeClock()
    running = attempts(RetryPolicy(max_attempts=9), 10.0, draw=0.0, clock=clock)
    assert running.begin() == pytest.approx(10.0)
    clock.now += 9.9
    assert running.delay_after(rpc_error(BUSY, "r1")) == 0
    assert running.begin() == pytest.approx(0.1)
    clock.now += 0.06
    with pytest.raises(Unavailable):
        running.delay_after(rpc_error(BUSY, "r1"))


def test_an_attempt_begun_too_late_still_has_a_deadline() -> None:
    clock = FakeClock()
    running = attempts(RetryPolicy(), 1.0, clock=clock)
    clock.now += 5
    assert 0 < running.begin() < 0.01


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (BUSY, True),
        (Unavailable("x", reason="DRAINING", retry_delay_seconds=1.0), True),
        (Unavailable("x", reason="OVERLOADED", retry_delay_seconds=1, code=grpc.StatusCode.RESOURCE_EXHAUSTED), True),
        (Unavailable("x", reason="OVERLOADED", retry_delay_seconds=1, code=grpc.StatusCode.INTERNAL), False),
        (Unavailable("x", reason="OVERLOADED"), False),
        (Unavailable("x", retry_delay_seconds=1.0), False),
        (RateLimited("x", retry_delay_seconds=1.0), False),
        (Unavailable("failed to connect to all addresses; last error: x", reason=""), True),
        (Unavailable("DNS resolution failed for nowhere:1: x", reason=""), True),
        (Unavailable("errors resolving nowhere:1: [x]", reason=""), True),
        (Unavailable("Received RST_STREAM with error code 7", reason=""), True),
        (Unavailable("Stream removed (RST_STREAM (Received RST_STREAM with error code 7))", reason=""), True),
        (Unavailable("Stream removed (RST_STREAM (Received RST_STREAM with error code 2))", reason=""), False),
        (Unavailable("Stream removed (GOAWAY received; Error code: 0; Debug Text: )", reason=""), False),
        (Unavailable("failed to connect to all addresses", reason="ALL_ATTEMPTS_FAILED"), False),
        (Unavailable("it said: failed to connect to all addresses", reason=""), False),
        (Unavailable("Socket closed", reason=""), False),
        (PointsmanError("failed to connect to all addresses", code=grpc.StatusCode.INTERNAL, reason=""), False),
    ],
)
def test_what_counts_as_not_started(error: PointsmanError, expected: bool) -> None:
    assert was_not_started(error) is expected


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"max_attempts": 0}, "max_attempts"),
        ({"first_delay_seconds": -1.0}, "first_delay_seconds"),
        ({"first_delay_seconds": 9.0, "longest_delay_seconds": 1.0}, "first_delay_seconds"),
    ],
)
def test_nonsense_is_refused(fields: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RetryPolicy(**fields)  # type: ignore[arg-type]
