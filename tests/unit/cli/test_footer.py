from __future__ import annotations

from typing import Any

from pointsman.v1.answer_pb2 import Attempt, Citation, CompleteResponse, FinishReason, Usage, Warning
from pointsman_server.cli.footer import footer


def response(**fields: Any) -> CompleteResponse:
    attempts = [Attempt(deployment="first", provider="a"), Attempt(deployment="second", provider="vendor")]
    usage = Usage(input_tokens=1_000, cached_input_tokens=400, output_tokens=1, cost_micro_usd=1_234_567)
    return CompleteResponse(attempts=attempts, usage=usage, finish_reason=FinishReason.FINISH_REASON_STOP, **fields)


def test_all_on_one_line() -> None:
    line = footer(response(), 1.25)
    assert line == "[second, vendor | 1,000 (400 cached) + 1 token | $1.234567 | 2 attempts | 1.2 s]"


def test_what_the_caller_should_know_comes_last() -> None:
    told = response(
        citations=[Citation(url="https://example.com")],
        warnings=[Warning(code="a", message="look\x1b[31m"), Warning(code="b", message="again")],
    )
    told.finish_reason = FinishReason.FINISH_REASON_REFUSAL
    told.usage.estimated = True
    parts = footer(told, 0.01).strip("[]").split(" | ")
    assert parts[1].startswith("about 1,000")
    assert parts[5:] == ["finish: refusal", "1 source (--json shows them)", "warning: look\\x1b[31m", "warning: again"]
