from __future__ import annotations

import pytest

from pointsman_server.rpc.deadline import seconds_to_use


class Context:
    """A call with so much time left."""

    def __init__(self, left_seconds: float | None) -> None:
        self._left_seconds = left_seconds

    def time_remaining(self) -> float | None:
        return self._left_seconds


@pytest.mark.parametrize(
    ("left", "used"), [(None, None), (0.0, 0.0), (1.0, 0.95), (2.0, 1.9), (10.0, 9.8), (1_000.0, 989.9)]
)
def test_a_little_is_kept_for_the_error(left: float | None, used: float | None) -> None:
    assert seconds_to_use(Context(left)) == (used if used is None else pytest.approx(used))
