from __future__ import annotations

import grpc
import pytest

from pointsman_client import (
    BudgetExceeded,
    DeadlineExceeded,
    FieldViolation,
    InternalError,
    InvalidRequest,
    PointsmanError,
    QuotaViolation,
    RateLimited,
    Unavailable,
)
from pointsman_server.cli.calling import CallFailedError, connected, explain
from pointsman_server.cli.server_option import Server


def test_an_unreachable_server_is_no_refusal() -> None:
    assert "`make run`" in explain(Unavailable("failed to connect", reason=""), "127.0.0.1:1")


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (
            InvalidRequest("bad", field_violations=[FieldViolation("completion.tier", "is wrong")], request_id="req_1"),
            ["bad", "  reason: INVALID_FIELD (INVALID_ARGUMENT)", "  completion.tier: is wrong",
             "  request id: req_1", "  remedy: correct what is named above"],
        ),
        (
            RateLimited("slow down", retry_delay_seconds=2.5),
            ["slow down", "  reason: RATE_LIMITED (RESOURCE_EXHAUSTED)", "  remedy: try again in 2.5 s"],
        ),
        (
            BudgetExceeded("spent", quota_violations=[QuotaViolation("day", "10 of 10 USD")]),
            ["spent", "  reason: BUDGET_EXCEEDED (RESOURCE_EXHAUSTED)", "  day: 10 of 10 USD"],
        ),
        (
            DeadlineExceeded("the deadline passed (request req_1)", request_id="req_1"),
            ["the deadline passed (request req_1)", "  reason: DEADLINE_EXCEEDED (DEADLINE_EXCEEDED)",
             "  remedy: ask again, or pin a faster deployment: --deployment"],
        ),
        (
            InternalError("", reason=""),
            ["the call failed", "  reason: not given (INTERNAL)"],
        ),
    ],
)  # fmt: skip
def test_errors_are_told_with_their_remedy(error: PointsmanError, lines: list[str]) -> None:
    assert explain(error, "127.0.0.1:1").splitlines() == lines


def test_errors_steer_no_terminal() -> None:
    with pytest.raises(CallFailedError) as caught, connected(Server("127.0.0.1:1")):
        raise InternalError("red\x1b[31m", code=grpc.StatusCode.INTERNAL)
    assert "\x1b" not in caught.value.message
    assert caught.value.exit_code == 1
