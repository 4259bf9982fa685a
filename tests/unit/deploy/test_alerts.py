"""Alert and recording rules ask for what there is, say what to do, and are tested; promtool itself runs elsewhere."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import pytest
import yaml

from kit.metric_table import VALUES, series
from kit.programs import ROOT
from kit.promql import labels_of

PROMETHEUS = ROOT / "deploy" / "prometheus"
RUNBOOK = "docs/alerts.md"


def rules_in(name: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "rules" / name).read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


@cache
def recorded() -> dict[str, frozenset[str]]:
    """All series that rules may rest on: what pointsman shows, and what is recorded of it."""
    known = series()
    for rule in rules_in("recording.yml"):
        known[rule["record"]] = labels_of(rule["expr"], known, VALUES)
    return known


FILES = sorted(path.name for path in (PROMETHEUS / "rules").glob("*.yml"))
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for name in FILES if name != "recording.yml" for rule in rules_in(name)
}


CASES: list[dict[str, Any]] = [
    case
    for path in sorted((PROMETHEUS / "tests").glob("*.yml"))
    for scene in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]
    for case in scene["alert_rule_test"]
]
"""What promtool is told to expect."""


def test_recorded_series_ask_for_what_there_is() -> None:
    assert all(name.startswith("pointsman:") for name in set(recorded()) - set(series()))


def test_the_same_codes_are_failures_over_every_window() -> None:
    ratios = [rule["expr"] for rule in rules_in("recording.yml") if ":request_failures:" in rule["record"]]
    assert len(ratios) == 4
    assert len({re.sub(r"\[\w+\]", "", ratio) for ratio in ratios}) == 1


@pytest.mark.parametrize("name", ALERTS)
class TestAlert:
    def test_it_asks_for_what_there_is_and_tells_of_it(self, name: str) -> None:
        labels = labels_of(ALERTS[name]["expr"], recorded(), VALUES)
        told = set(re.findall(r"\$labels\.(\w+)", ALERTS[name]["annotations"]["summary"]))
        assert told <= labels

    def test_it_says_what_to_do_and_where_to_read_on(self, name: str) -> None:
        alert = ALERTS[name]
        assert set(alert["annotations"]) == {"summary", "action", "runbook"}
        assert all(alert["annotations"].values())
        assert alert["annotations"]["runbook"] == f"{RUNBOOK}#{name.lower()}"
        assert alert["labels"]["severity"] in ("page", "ticket")

    def test_its_section_of_the_runbook_says_the_same_severity(self, name: str) -> None:
        section = (ROOT / RUNBOOK).read_text(encoding="utf-8").split(f"### {name}\n\n")[1].split("\n#")[0]
        assert section.startswith(f"`{ALERTS[name]['labels']['severity']}`. ")
        assert "\n- Look at: " in section
        assert "\n- Do: " in section

    def test_promtool_is_told_when_it_fires_and_when_not(self, name: str) -> None:
        expected = [case.get("exp_alerts", []) for case in CASES if case["alertname"] == name]
        assert any(expected)
        assert not all(expected)


def test_the_runbook_has_no_section_of_an_alert_that_is_gone() -> None:
    sections = re.findall(r"^### (\w+)$", (ROOT / RUNBOOK).read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(sections) == sorted(ALERTS)


def test_the_runbook_speaks_of_panels_that_there_are() -> None:
    panels = yaml.safe_load((ROOT / "deploy/grafana/panels.yml").read_text(encoding="utf-8"))
    titles = {panel["title"] for page in panels.values() for panel in page["panels"]}
    spoken_of = re.findall(r" \*([^* ][^*]*)\*", " ".join((ROOT / RUNBOOK).read_text(encoding="utf-8").split()))
    assert spoken_of
    assert set(spoken_of) <= titles
