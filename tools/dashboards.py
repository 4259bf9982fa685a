"""Writes Grafana's dashboards of pointsman from the short form in deploy/grafana/panels.yml.

Run as `make dashboards`, or as `python tools/dashboards.py deploy/grafana/panels.yml OUT`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

GRID_WIDTH = 24
USUAL_WIDTH = 8
HEIGHTS = {"stat": 4}
USUAL_HEIGHT = 8
"""In Grafana's rows."""

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
VARIABLES = {"job": "pointsman_build_info", "provider": "pointsman_attempts_total", "model": "pointsman_attempts_total"}
"""By what a page can be narrowed down, and the metric that has the label."""

_BREAKER_STATES = {
    "0": {"text": "closed", "color": "green"},
    "1": {"text": "half-open", "color": "orange"},
    "2": {"text": "open", "color": "red"},
}
_CELL_UNIT = "cps"
"""A heatmap's cells count; its unit is that of the axis."""

_LEGEND = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "timeseries": {
        "legend": {**_LEGEND, "displayMode": "table", "calcs": ["lastNotNull", "max"]},
        "tooltip": {"mode": "multi", "sort": "desc"},
    },
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"], "values": False}, "colorMode": "none", "graphMode": "area"},
    "state-timeline": {"showValue": "never", "mergeValues": True, "legend": _LEGEND},
    "heatmap": {
        "calculate": False,
        "yAxis": {"unit": "s"},
        "cellValues": {"unit": _CELL_UNIT},
        "color": {"mode": "scheme", "scheme": "Blues"},
    },
}


def dashboards(short_form: Path) -> dict[str, dict[str, Any]]:
    """What Grafana reads, by the dashboard's name."""
    pages = yaml.safe_load(short_form.read_text(encoding="utf-8"))
    return {name: _dashboard(name, page) for name, page in pages.items()}


def _dashboard(name: str, page: Mapping[str, Any]) -> dict[str, Any]:
    narrowed_by = ["job", *page.get("narrowed_by", ())]
    return {
        "uid": f"pointsman-{name}",
        "title": f"pointsman: {page['title']}",
        "tags": ["pointsman"],
        "schemaVersion": 39,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "links": [{"type": "dashboards", "title": "pointsman", "tags": ["pointsman"], "asDropdown": True}],
        "annotations": {"list": [_alerts()]},
        "templating": {"list": [_data_source(), *map(_variable, narrowed_by)]},
        "panels": list(_placed(page["panels"], ", ".join(f'{label}=~"${label}"' for label in narrowed_by))),
    }


def _alerts() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": SOURCE,
        "enable": True,
        "iconColor": "red",
        "target": {"refId": "Anno", "expr": 'ALERTS{alertname=~"Pointsman.*", alertstate="firing"}'},
        "titleFormat": "{{alertname}}",
    }


def _data_source() -> dict[str, Any]:
    return {"name": "datasource", "label": "data source", "type": "datasource", "query": "prometheus"}


def _variable(label: str) -> dict[str, Any]:
    return {
        "name": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": f"label_values({VARIABLES[label]}, {label})", "refId": label},
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": ["All"], "value": ["$__all"]},
        "refresh": 2,
        "sort": 1,
    }


def _placed(panels: Sequence[Mapping[str, Any]], scope: str) -> Iterator[dict[str, Any]]:
    """From left to right; a row is as high as its highest panel."""
    left = top = row_height = 0
    for number, panel in enumerate(panels, start=1):
        look = panel["look"]
        width, height = look.get("width", USUAL_WIDTH), HEIGHTS.get(look.get("kind"), USUAL_HEIGHT)
        if left + width > GRID_WIDTH:
            left, top, row_height = 0, top + row_height, 0
        yield {"id": number, "gridPos": {"x": left, "y": top, "w": width, "h": height}, **_drawn(panel, scope)}
        left, row_height = left + width, max(row_height, height)


def _drawn(panel: Mapping[str, Any], scope: str) -> dict[str, Any]:
    look = panel["look"]
    kind = look.get("kind", "timeseries")
    queries = enumerate(panel["queries"].items())
    return {
        "type": kind,
        "title": panel["title"],
        "description": panel["about"],
        "datasource": SOURCE,
        "fieldConfig": {"defaults": _field(kind, look), "overrides": []},
        "options": _OPTIONS[kind],
        "targets": [_target(look, place, legend, query.replace("$scope", scope)) for place, (legend, query) in queries],
    }


def _field(kind: str, look: Mapping[str, Any]) -> dict[str, Any]:
    field: dict[str, Any] = {"unit": _CELL_UNIT if kind == "heatmap" else look["unit"], "min": 0}
    if kind == "timeseries":
        stacked = look.get("stacked", False)
        stacking = {"mode": "normal" if stacked else "none", "group": "A"}
        field["custom"] = {"fillOpacity": 30 if stacked else 0, "showPoints": "never", "stacking": stacking}
    if kind == "state-timeline":
        field["mappings"] = [{"type": "value", "options": _BREAKER_STATES}]
    return field


def _target(look: Mapping[str, Any], place: int, legend: str, query: str) -> dict[str, Any]:
    instant = look.get("instant", False)
    return {
        "refId": "ABCDEFGH"[place],
        "datasource": SOURCE,
        "expr": query,
        "legendFormat": legend,
        "range": not instant,
        "instant": instant,
        "format": "heatmap" if look.get("kind") == "heatmap" else "time_series",
    }


def main(short_form: Path, out: Path) -> None:
    """Writes all of them into this folder, each with its name."""
    out.mkdir(parents=True, exist_ok=True)
    for name, dashboard in dashboards(short_form).items():
        (out / f"{name}.json").write_text(json.dumps(dashboard, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
