"""Grafana's dashboards are what their short form says, and every panel asks for what there is."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit.metric_table import VALUES, series
from kit.programs import ROOT, load_program
from kit.promql import labels_of

dashboards: Any = load_program("tools/dashboards.py")
GRAFANA = ROOT / "deploy" / "grafana"
PAGES: dict[str, dict[str, Any]] = dashboards.dashboards(GRAFANA / "panels.yml")
ALERT_SERIES = {"ALERTS": frozenset(("alertname", "alertstate", "severity", "job", "instance"))}


def queries() -> list[Any]:
    """Every query with its legend, and the annotations'; named by page and panel."""
    panels = [(name, panel) for name, page in PAGES.items() for panel in page["panels"]]
    asked = [
        pytest.param(target["expr"], target["legendFormat"], id=f"{name}: {panel['title']} {target['refId']}")
        for name, panel in panels
        for target in panel["targets"]
    ]
    noted = [(name, note) for name, page in PAGES.items() for note in page["annotations"]["list"]]
    return asked + [
        pytest.param(note["target"]["expr"], note["titleFormat"], id=f"{name}: alerts") for name, note in noted
    ]


def known() -> dict[str, frozenset[str]]:
    """What Prometheus has: what pointsman shows, what the rules record, and alerts."""
    found = series() | ALERT_SERIES
    rules = yaml.safe_load((ROOT / "deploy/prometheus/rules/recording.yml").read_text(encoding="utf-8"))
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        found[rule["record"]] = labels_of(rule["expr"], found)
    return found


KNOWN = known()


def filled_in(query: str) -> str:
    """As Grafana asks it."""
    return re.sub(r'"\$\w+"', '".*"', query).replace("$__rate_interval", "1m").replace("$__range", "6h")


@pytest.mark.parametrize(("query", "legend"), queries())
def test_a_panel_asks_for_what_there_is(query: str, legend: str) -> None:
    narrowed = re.findall(r'(\w+)=~"\$(\w+)"', query)
    assert all(label == variable for label, variable in narrowed)
    labels = labels_of(filled_in(query), KNOWN, VALUES)
    told = set(re.findall(r"{{(\w+)}}", legend))
    assert told <= labels | {"le"}
    if "ALERTS" not in query:
        # Lines of the same name could not be told apart; no two processes have the same instance.
        assert labels <= told | ({"job"} if "instance" in told else set()), "a label is missing in the legend"


@pytest.mark.parametrize("name", PAGES)
class TestPage:
    def test_what_grafana_reads_is_up_to_date(self, name: str) -> None:
        written = (GRAFANA / "dashboards" / f"{name}.json").read_text(encoding="utf-8")
        assert json.loads(written) == PAGES[name], "run `make dashboards`"

    def test_every_variable_that_is_asked_for_can_be_chosen(self, name: str) -> None:
        page = PAGES[name]
        offered = {variable["name"] for variable in page["templating"]["list"]}
        assert set(re.findall(r"\$(?!__)\{?(\w+)", json.dumps(page))) <= offered

    def test_variables_are_labels_of_the_metric_they_are_read_from(self, name: str) -> None:
        asked = [one["query"]["query"] for one in PAGES[name]["templating"]["list"] if one["type"] == "query"]
        for metric, label in (re.fullmatch(r"label_values\((\w+), (\w+)\)", query).groups() for query in asked):  # type: ignore[union-attr]
            assert label in KNOWN[metric]

    def test_panels_lie_side_by_side(self, name: str) -> None:
        places = [panel["gridPos"] for panel in PAGES[name]["panels"]]
        taken = [
            (x, y)
            for at in places
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        ]
        assert len(taken) == len(set(taken))
        assert max(x for x, _ in taken) < 24
        assert all(one["y"] <= other["y"] for one, other in pairwise(places))

    def test_panels_say_what_they_show(self, name: str) -> None:
        panels = PAGES[name]["panels"]
        assert len({panel["title"] for panel in panels}) == len(panels)
        assert all(panel["description"].endswith(".") for panel in panels)


def test_there_is_no_dashboard_without_a_short_form() -> None:
    assert {path.stem for path in (GRAFANA / "dashboards").glob("*.json")} == set(PAGES)


def test_pages_go_to_the_folder_that_is_named(tmp_path: Path) -> None:
    dashboards.main(GRAFANA / "panels.yml", tmp_path / "new")
    for path in (GRAFANA / "dashboards").glob("*.json"):
        assert (tmp_path / "new" / path.name).read_text() == path.read_text(), "run `make dashboards`"


def test_grafana_is_told_of_one_prometheus_and_one_folder() -> None:
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text(encoding="utf-8"))
    scrape = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))["global"]
    assert [one["jsonData"]["timeInterval"] for one in sources["datasources"]] == [scrape["scrape_interval"]]
    folders = yaml.safe_load((GRAFANA / "provisioning/dashboards/pointsman.yml").read_text(encoding="utf-8"))
    assert [one["type"] for one in folders["providers"]] == ["file"]
