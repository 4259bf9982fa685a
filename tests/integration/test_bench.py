"""The benchmark runs from end to end and says everything; what it says is judged by people."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from bench import processes
from bench.machine import cpu_seconds, memory_mb
from bench.measures import LITELLM, LITELLM_STREAM, QUICK, in_rounds, litellm_cases

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
    "healthy path, whole answer, p50 added",
    "healthy path, first text of a stream, p50 added",
    "two workers against one",
    "1,000 streams at a time, lost",
    "1,000 streams at a time, memory of all processes",
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
    "healthy path, last event of a stream, p50 added",
    "two workers against one, CPU per call",
    "first token added, 1,000 streams, p95",
}

NOTHING_IS_BEST = {"1,000 streams at a time, lost"}


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
    assert all(figure["value"] > 0 for name, figure in figures.items() if name not in NOTHING_IS_BEST), figures
    assert all(figures[name]["value"] == 0 for name in NOTHING_IS_BEST)
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


PROXY = """#!{python}
import argparse, json
import aiohttp
from aiohttp import web

parser = argparse.ArgumentParser()
for name in ("--config", "--host", "--port", "--num_workers"):
    parser.add_argument(name)
options = parser.parse_args()
(model,) = json.load(open(options.config))["model_list"]
url = model["litellm_params"]["api_base"] + "/chat/completions"


async def relay(request):
    async with aiohttp.ClientSession() as session, session.post(url, data=await request.read()) as answer:
        response = web.StreamResponse(headers={{"content-type": answer.content_type}})
        await response.prepare(request)
        async for data in answer.content.iter_any():
            await response.write(data)
        return response


async def alive(request):
    return web.Response()


app = web.Application()
app.router.add_get("/health/liveliness", alive)
app.router.add_post("/v1/chat/completions", relay)
web.run_app(app, host=options.host, port=int(options.port), print=None)
"""


def put_litellm(folder: Path, script: str) -> Path:
    """The path of a python beside which a program `litellm` is."""
    program = folder / "litellm"
    program.write_text(script)
    program.chmod(0o755)
    return folder / "python"


class TestAnotherGateway:
    """What is started and measured as LiteLLM's proxy is; a small relay stands in for it."""

    @pytest.mark.slow
    def test_it_is_asked_over_http(self, tmp_path: Path) -> None:
        python = put_litellm(tmp_path, PROXY.format(python=sys.executable))
        with (
            processes.upstream() as upstream,
            processes.litellm(python, upstream.address, tmp_path) as proxy,
        ):
            rates = in_rounds(litellm_cases(proxy, QUICK), 1)
        assert set(rates) == {LITELLM, LITELLM_STREAM}
        assert all(rate.calls_per_second > 0 for rate in rates.values())
        assert [rate.failures for rate in rates.values()] == [0, 0]

    @pytest.mark.slow
    def test_why_it_did_not_start_is_told(self, tmp_path: Path) -> None:
        python = put_litellm(tmp_path, "#!/bin/sh\necho a module is missing >&2\nexit 1\n")
        with (
            pytest.raises(RuntimeError, match="did not start:\na module is missing"),
            processes.litellm(python, "127.0.0.1:1", tmp_path),
        ):
            pass

    def test_where_it_is_not_installed_nothing_is_begun(self, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "bench", "--litellm", str(tmp_path / "python")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "install litellm[proxy] there" in " ".join(done.stderr.split())


def test_what_the_children_of_a_process_use_is_counted() -> None:
    child = "sum(range(20_000_000)); print('done', flush=True); import time; time.sleep(60)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    try:
        assert process.stdout.readline() == b"done\n"
        assert cpu_seconds(process.pid) > 0.1
        (child_pid,) = map(int, children.read_text().split())
        assert memory_mb(process.pid) > memory_mb(child_pid) > 1
        assert memory_mb(process.pid, peak=True) >= memory_mb(process.pid)
    finally:
        for pid in map(int, children.read_text().split()):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()
        process.stdout.close()
