from __future__ import annotations

import pytest

from pointsman.v1.answer_pb2 import Warning
from pointsman.v1.completion_pb2 import TIER_LIGHT
from pointsman.v1.decision_pb2 import ChosenDeployment, Complexity, Factor, RankedDeployment, RouteDecision
from pointsman.v1.router_service_pb2 import RouteResponse
from pointsman_server.cli.console import open_console
from pointsman_server.cli.decision_view import show_route


def shown(capsys: pytest.CaptureFixture[str], *factors: Factor, warnings: tuple[Warning, ...] = ()) -> list[str]:
    """The lines for a decision of a real provider."""
    decision = RouteDecision(
        decision_id="dec_1",
        chosen=ChosenDeployment(deployment="fast", provider="vendor", model="m", tier=TIER_LIGHT),
        ranked=[RankedDeployment(deployment="fast", tier=TIER_LIGHT, expected_cost_micro_usd=1_500_000)],
        complexity=Complexity(score=0.1, tier=TIER_LIGHT, factors=factors),
        input_tokens=12_345,
        exact=True,
    )
    show_route(open_console(), RouteResponse(decision=decision, request_id="req_1", warnings=warnings))
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_a_real_provider_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys)
    assert lines[0] == "chosen      fast  m, light tier (vendor)"
    assert lines[1] == "input       12,345 tokens, counted"
    assert "$1.500000" in lines[-1]


def test_without_factors_there_are_no_bars(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys)
    assert lines[lines.index("Complexity 0.10: light") + 1] == "nothing in the request raises it"


def test_bars_are_as_long_as_their_share(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, Factor(name="a", value=2.0), Factor(name="b", value=-1.0), Factor(name="c", value=0.001))
    bars = {line.split()[0]: line.split()[-1].count("█") for line in lines if "█" in line}
    assert bars == {"a": 24, "b": 12, "c": 1}


def test_warnings_come_last_and_steer_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, warnings=(Warning(code="odd", message="look\x1b[31m"),))
    assert lines[-1] == "warning: look\\x1b[31m (odd)"
