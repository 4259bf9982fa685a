"""What came of a run: a table for people, JSON lines for everything else."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from wall.scenario import Result, Setting, Verdict


def begin(file: Path, setting: Setting, target: str) -> None:
    """Begins the report anew."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"kind": "run", "target": target, **asdict(setting)}) + "\n", encoding="utf-8")


def add(file: Path, result: Result, *, with_log: bool) -> None:
    """Adds a scenario to the report, as soon as it is over: a run that is ended early has told what it knew."""
    with file.open("a", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row) + "\n" for row in _rows(result, with_log=with_log))


def show(results: list[Result], setting: Setting, target: str, console: Console) -> None:
    """Prints the table, and what was broken below it."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("", "scenario", "promise", "verdict", "findings", "seconds"):
        table.add_column(heading)
    for result in results:
        scenario = result.scenario
        told = "; ".join(part for part in (result.note, _counts(result)) if part)
        table.add_row(
            scenario.id, scenario.title, scenario.promise, result.verdict.value, told, f"{result.seconds:.1f}"
        )
    console.print(table)
    _show_broken(results, console)
    totals = Counter(result.verdict.value for result in results)
    told = ", ".join(f"{count} {verdict}" for verdict, count in totals.items())
    pace = "" if setting.scale == 1 else f"; durations are {setting.scale:g} of the full run's"
    console.print(f"\n{target}, seed {setting.seed}, {setting.many} random calls each{pace}: {told}")


def _rows(result: Result, *, with_log: bool) -> Iterator[dict[str, object]]:
    """One row for the scenario and, if wanted, one for each entry of its wall log."""
    yield _scenario_row(result)
    if with_log and result.log is not None:
        for row in result.log.rows():
            yield {**row, "scenario": result.scenario.id}


def _show_broken(results: Iterable[Result], console: Console) -> None:
    for result in results:
        for finding, verdict in result.findings:
            if verdict is Verdict.BROKEN:
                place = f"{result.scenario.id} {finding.name}"
                console.print(f"\n{place}\n    measured {finding.measured}\n    expected {finding.expected}")


def _counts(result: Result) -> str:
    counts = Counter(verdict for _, verdict in result.findings)
    return ", ".join(f"{counts[verdict]} {verdict.value}" for verdict in Verdict if counts[verdict])


def _scenario_row(result: Result) -> dict[str, object]:
    return {
        "kind": "scenario",
        "id": result.scenario.id,
        "title": result.scenario.title,
        "promise": result.scenario.promise,
        "verdict": result.verdict.value,
        "note": result.note,
        "seconds": round(result.seconds, 2),
        "findings": [
            {
                "name": finding.name,
                "measured": finding.measured,
                "expected": finding.expected,
                "verdict": verdict.value,
            }
            for finding, verdict in result.findings
        ],
    }
