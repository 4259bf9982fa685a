"""Every panel, filled from a real Prometheus that watches a real pointsman to which everything happens.

Grafana itself is not part of it: what its panels ask, which unit and which legend they put to the answer, and its own
types of dashboards are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from kit.busy_house import HABITS, busy_house
from kit.grafana_types import misfits
from kit.observers import Prometheus, running_prometheus, until
from kit.panels import Line, Panel, all_panels
from kit.programs import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(120)]

PANELS = list(all_panels())
PATIENCE_SECONDS = 45.0
MOST_LINES = 24
"""More cannot be told apart."""

MAY_BE_NOTHING = {"overview: Alerts", "load: Starts", "load: Telemetry given up"}
"""Zero is what they show when all is well, and nothing is done here against it."""

HIGHEST = {"percentunit": 1.1, "s": 60.0, "currencyUSD": 1e4, "reqps": 1_000.0, "cps": 1e6, "none": 1e4}
"""Of these units nothing here is larger, so what is was divided wrongly; rates are extrapolated by a little."""


def faults(panel: Panel, lines: list[Line]) -> Iterable[str]:
    """What is wrong with what the panel shows."""
    if not lines:
        yield "shows nothing"
    values = [value for line in lines for value in line.values]
    if panel.name not in MAY_BE_NOTHING and not any(values):
        yield "shows nothing but zero"
    if any(value < 0 or value > HIGHEST.get(panel.unit, 1e12) for value in values):
        yield f"{min(values)} to {max(values)} {panel.unit}"
    legends = [line.legend for line in lines]
    if any(not legend.strip() or "{{" in legend for legend in legends):
        yield f"a line without a name: {legends}"
    if len(set(legends)) < len(legends):
        yield f"lines of the same name: {legends}"
    if len(lines) > MOST_LINES and panel.kind != "heatmap":
        yield f"{len(lines)} lines"


async def all_faults(prometheus: Prometheus) -> dict[str, list[str]]:
    found = {panel.name: list(faults(panel, await panel.lines(prometheus))) for panel in PANELS}
    return {name: wrong for name, wrong in found.items() if wrong}


async def test_every_panel_shows_what_it_says(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        service = await stack.enter_async_context(busy_house())
        targets = [f"127.0.0.1:{service.http_port}"]
        prometheus = await stack.enter_async_context(running_prometheus(tmp_path, targets))
        wrong: dict[str, list[str]] = {}

        async def all_is_well() -> bool:
            wrong.clear()
            wrong.update(await all_faults(prometheus))
            return not wrong

        with suppress(TimeoutError):
            await until(all_is_well, PATIENCE_SECONDS)
        assert not wrong, json.dumps(wrong, indent=1)
        await variables_can_be_chosen(prometheus)
        await units_are_right(prometheus)


def pages() -> dict[str, Any]:
    """All dashboards as Grafana reads them."""
    files = sorted((ROOT / "deploy/grafana/dashboards").glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}


def test_grafana_knows_everything_that_dashboards_say(tmp_path: Path) -> None:
    assert misfits(pages(), tmp_path) == []


def test_grafana_would_tell_what_it_does_not_know(tmp_path: Path) -> None:
    wrong = pages()
    stat = next(panel for panel in wrong["overview"]["panels"] if panel["type"] == "stat")
    stat["options"]["colourMode"] = "none"
    stat["gridPos"]["width"] = 3
    found = misfits(wrong, tmp_path)
    assert len(found) == 2
    assert "colourMode" in found[0]
    assert "width" in found[1]


async def variables_can_be_chosen(prometheus: Prometheus) -> None:
    """Each value that a page offers is one of what there is, and choosing one narrows the page down to it."""
    for file in (ROOT / "deploy/grafana/dashboards").glob("*.json"):
        variables = json.loads(file.read_text(encoding="utf-8"))["templating"]["list"]
        for variable in (one for one in variables if one["type"] == "query"):
            metric, label = variable["query"]["query"].removeprefix("label_values(").rstrip(")").split(", ")
            offered = await prometheus.ask(f"label/{label}/values", **{"match[]": metric})
            assert offered, f"{file.stem} offers no {label}"
            assert set(offered) <= {"pointsman", *HABITS, *(f"{name}-model" for name in HABITS)}
    attempts = next(panel for panel in PANELS if panel.name == "providers: Attempts")
    assert {line.legend for line in await attempts.lines(prometheus, {"provider": "sound"})} == {"sound"}
    assert await attempts.lines(prometheus, {"job": "another"}) == []


async def units_are_right(prometheus: Prometheus) -> None:
    """Magnitudes that are known: what a process holds, what it uses, what a call costs."""
    shown = {panel.name: await panel.lines(prometheus) for panel in PANELS}

    def last(name: str) -> float:
        return shown[name][0].values[-1]

    assert 50e6 < last("load: Memory") < 2e9
    assert 0.01 < last("load: CPU") < 4
    assert 0.0001 < last("decision: Latency") < 1
    # 1 to 5 USD for a million input tokens and 2 for output: 900 and 300 of them cost 0.0015 to 0.0051 USD a call.
    assert 0.01 < last("cost: Cost of a thousand calls") < 8
    assert {line.legend for line in shown["providers: Breakers"]} == set(HABITS)
    assert {value for line in shown["providers: Breakers"] for value in line.values} <= {0, 1, 2}
