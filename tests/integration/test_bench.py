"""The benchmark runs from end to end and says everything; what it says is judged by people."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

RATES = {
    "floor: echo",
    "floor: relay",
    "floor: relay, stream by events",
    "floor: relay, stream by reads",
    "Route",
    "Route, new texts",
    "Complete, OpenAI chat",
    "Complete, Anthropic",
    "StreamComplete, OpenAI chat",
    "StreamComplete, Anthropic",
}

JUDGED = {
    "Route, per core",
    "Complete, OpenAI chat, per core",
    "Complete, Anthropic, per core",
    "StreamComplete, OpenAI chat, CPU per event",
    "StreamComplete, Anthropic, CPU per event",
    "first token added, OpenAI chat, p95",
    "first token added, Anthropic, p95",
    "latency at half load, Complete, OpenAI chat, p50",
    "latency at half load, Complete, OpenAI chat, p95",
    "latency at half load, Complete, Anthropic, p50",
    "latency at half load, Complete, Anthropic, p95",
    "judge alone, p50",
    "judge alone, p99",
    "whole decision, 1 kB, p99",
    "whole decision, 8 kB, p99",
    "whole decision, 400 kB, p99",
    "whole decision, 400 kB and windows twice as large, p99",
    "memory at its peak",
}

TOLD = {
    "upstream, whole answers",
    "upstream, streams",
    "start-up, OpenAI-compatible only",
    "idle memory, OpenAI-compatible only",
    "start-up, with Anthropic's SDK",
    "idle memory, with Anthropic's SDK",
    "decide alone, p50",
    "decide alone, p99",
    "whole decision, 1 kB, p50",
    "whole decision, 8 kB, p50",
    "whole decision, 400 kB, p50",
    "first token added, floor: relay, p95",
    "one call at a time, Route, p50",
    "first token added, 500 streams, p95",
}


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(240)
def test_a_quick_run_has_all_rows(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    command = [sys.executable, "-m", "bench", "--quick", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(output.read_text())
    rates = {rate["name"]: rate for rate in report["rates"]}
    figures = {figure["name"]: figure for figure in report["figures"]}
    assert set(rates) == RATES
    assert all(rate["calls_per_second"] > 0 for rate in rates.values()), rates
    assert report["failures"] == 0
    assert {name for name, figure in figures.items() if figure["met"] is not None} == JUDGED
    assert set(figures) > TOLD
    assert all(figure["value"] > 0 for figure in figures.values()), figures
    assert all(f"{name} " in done.stdout for name in {*rates, *figures})


@pytest.mark.slow
@pytest.mark.long
def test_what_governance_costs_is_measured_with_every_store() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.governance", "--quick"], cwd=ROOT, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stderr
    for name in ("floor: relay", "all of it off", "on, SQLite", "on, PostgreSQL and Redis"):
        (line,) = (line for line in done.stdout.splitlines() if name in line)
        assert line.rstrip("│ ").endswith(" 0"), line
