"""Whether all calls are recorded, so that each can be found by its request id."""

from __future__ import annotations

import pytest

from pointsman_server.domain.trace_policy import TraceMode, TracePolicy


@pytest.mark.parametrize(
    ("policy", "all_of_them"),
    [
        (TracePolicy(), True),
        (TracePolicy(TraceMode.TEXT), True),
        (TracePolicy(TraceMode.OFF), False),
        (TracePolicy(sample=0.99), False),
    ],
)
def test_whether_every_call_is_recorded(policy: TracePolicy, all_of_them: bool) -> None:
    assert policy.records_all is all_of_them
