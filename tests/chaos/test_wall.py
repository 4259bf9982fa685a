"""Every scenario of the fault wall, in its quick form, against a whole server over real sockets."""

from __future__ import annotations

import pytest
from wall.catalogue import SCENARIOS
from wall.scenario import QUICK, Verdict

from kit.walls import run_on_wall

SLOW = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(120)]
"""What keeps real time: a server's keepalive and the window in which a stream's pace is measured."""

PARAMETERS = [pytest.param(id, marks=SLOW if one.slow else [], id=id) for id, one in SCENARIOS.items()]


@pytest.mark.parametrize("scenario", PARAMETERS)
async def test_scenario(scenario: str) -> None:
    result = await run_on_wall(SCENARIOS[scenario], QUICK)
    broken = [
        f"{finding.name}: {finding.measured}, expected {finding.expected}"
        for finding, verdict in result.findings
        if verdict is not Verdict.KEPT
    ]
    assert not broken, "\n".join([SCENARIOS[scenario].title, *broken])
