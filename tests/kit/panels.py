"""Panels as Grafana fills them: their queries asked of a Prometheus over a range, their legends made of the labels."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kit.observers import Prometheus
from kit.programs import ROOT

RANGE_SECONDS = 20
_VALUES: Mapping[str, str] = {
    "$__rate_interval": "3s",  # four times the hurried scrapes, and a little
    "$__range": f"{RANGE_SECONDS}s",
}


@dataclass(frozen=True)
class Line:
    """One series of a panel: what its legend says, and its values that are numbers."""

    legend: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """A panel of a page, with its unit and its queries by legend."""

    page: str
    title: str
    kind: str
    unit: str
    targets: tuple[Mapping[str, Any], ...]

    @property
    def name(self) -> str:
        """Page and title."""
        return f"{self.page}: {self.title}"

    async def lines(self, prometheus: Prometheus, chosen: Mapping[str, str] | None = None) -> list[Line]:
        """What it shows of the last seconds; `chosen` are the page's variables, which otherwise say All."""
        found = []
        for target in self.targets:
            for labels, values in await _asked(prometheus, _filled_in(target["expr"], chosen or {}), target):
                numbers = tuple(value for value in values if math.isfinite(value))
                if numbers:
                    found.append(Line(_legend(target["legendFormat"], labels), numbers))
        return found


def all_panels() -> Iterator[Panel]:
    """Those of all pages, as Grafana reads them."""
    for file in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json")):
        page = json.loads(file.read_text(encoding="utf-8"))
        for panel in page["panels"]:
            unit = panel["fieldConfig"]["defaults"]["unit"]
            yield Panel(file.stem, panel["title"], panel["type"], unit, tuple(panel["targets"]))


async def _asked(
    prometheus: Prometheus, promql: str, target: Mapping[str, Any]
) -> list[tuple[dict[str, str], list[float]]]:
    if target.get("instant"):
        found = (await prometheus.ask("query", query=promql))["result"]
        return [(one["metric"], [float(one["value"][1])]) for one in found]
    now = time.time()
    found = (await prometheus.ask("query_range", query=promql, start=str(now - RANGE_SECONDS), end=str(now), step="1"))[
        "result"
    ]
    return [(one["metric"], [float(value) for _, value in one["values"]]) for one in found]


def _filled_in(promql: str, chosen: Mapping[str, str]) -> str:
    for name, value in _VALUES.items():
        promql = promql.replace(name, value)
    return re.sub(r"\$(\w+)", lambda found: chosen.get(found[1], ".*"), promql)


def _legend(form: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: labels.get(found[1], ""), form)
