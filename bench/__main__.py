"""`python -m bench [--quick] [--output FILE]`: one run, from the floors to the verdicts."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from bench import measures, policy, processes
from bench.capacity import measure_upstream
from bench.deciding import measure_decision
from bench.machine import memory_mb, require_linux
from bench.measures import FULL, QUICK, Case, Plan, Rate, at_half_load, in_rounds, one_at_a_time
from bench.processes import Server, run_job
from bench.report import Figure, Report

_SETTLING_SECONDS = 0.5
_HALF_LOADED = ("floor: relay", "Complete, OpenAI chat", "Complete, Anthropic")
_ALONE = ("floor: echo", "Route", "floor: relay", "Complete, OpenAI chat", "Complete, Anthropic")


def main() -> None:
    """Runs it all, prints the tables and writes the JSON. What is missed is told; the exit code stays 0."""
    options = _options()
    require_linux()
    started_at = time.monotonic()
    console = Console(highlight=False, width=160)
    plan = QUICK if options.quick else FULL
    with TemporaryDirectory() as name, processes.upstream() as upstream:
        directory = Path(name)
        rates, figures = _run(plan, upstream, directory)
    report = Report(list(rates.values()), figures, options.quick, time.monotonic() - started_at)
    report.show(console)
    report.write(options.output)
    console.print(f"written to {options.output}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run, to see that it works")
    parser.add_argument("--output", type=Path, default=Path("var/bench.json"), help="the JSON file to write")
    return parser.parse_args()


def _run(plan: Plan, upstream: Server, directory: Path) -> tuple[dict[str, Rate], list[Figure]]:
    figures = [*_upstream_figures(upstream, plan), *_start_figures(upstream, directory, plan)]
    with (
        processes.floors(upstream.address) as floors,
        processes.pointsman(policy.whole(upstream.address), directory) as pointsman,
    ):
        decision = measure_decision(directory / "policy.yaml", plan.single_seconds)
        figures.append(Figure("decision alone, p50", decision.p50 * 1e6, "µs", note="eight deployments, no gRPC"))
        figures.append(Figure("decision alone, p99", decision.p99 * 1e6, "µs"))
        cases = measures.saturating_cases(floors, pointsman, plan)
        rates = in_rounds(cases, plan.rounds)
        figures += _ratios(cases, rates)
        figures += _stream_costs(rates)
        figures += _paced_figures(measures.paced_cases(floors, pointsman, plan))
        figures += _half_load_figures(cases, rates, plan)
        figures += _alone_figures(cases, plan)
        peak = memory_mb(pointsman.pid, peak=True)
        figures.append(Figure("memory at its peak", peak, "MB", note="after all of this"))
    return rates, figures


def _upstream_figures(upstream: Server, plan: Plan) -> Iterator[Figure]:
    capacity = measure_upstream(upstream, plan.single_seconds)
    note = "what the upstream could do with a core of its own"
    yield Figure("upstream, whole answers", capacity.whole_per_second, "/s", note=note)
    yield Figure("upstream, streams", capacity.streams_per_second, "/s")


def _start_figures(upstream: Server, directory: Path, plan: Plan) -> Iterator[Figure]:
    for name, made in (("OpenAI-compatible only", policy.chat_only), ("with Anthropic's SDK", policy.whole)):
        seconds, memory = [], []
        for _ in range(plan.starts):
            with processes.pointsman(made(upstream.address), directory) as server:
                time.sleep(_SETTLING_SECONDS)
                seconds.append(server.start_seconds)
                memory.append(memory_mb(server.pid))
        yield Figure(f"start-up, {name}", sorted(seconds)[len(seconds) // 2], "s")
        yield Figure(f"idle memory, {name}", sorted(memory)[len(memory) // 2], "MB")


def _ratios(cases: list[Case], rates: dict[str, Rate]) -> Iterator[Figure]:
    limits = {"Route": 0.60, "Complete, OpenAI chat": 0.5, "Complete, Anthropic": 0.5}
    for case in cases:
        if case.floor:
            share = rates[case.floor].cpu_micros_per_call / rates[case.name].cpu_micros_per_call
            limit = limits.get(case.name)
            yield Figure(f"{case.name}, per core", share, "of it", limit, at_least=True, note=case.floor)


def _stream_costs(rates: dict[str, Rate]) -> Iterator[Figure]:
    for name, rate in rates.items():
        if "tream" in name:
            limit = 25.0 if name.startswith("StreamComplete") else None
            yield Figure(f"{name}, CPU per event", rate.cpu_micros_per_event, "µs", limit, note="52 events in a burst")


def _paced_figures(cases: list[Case]) -> Iterator[Figure]:
    for case in cases:
        outcome = run_job(case.job)
        limit = None if case.name.startswith("floor") else 5.0
        name = f"first token added, {case.name}"
        yield Figure(f"{name}, p50", outcome.first_token_added.p50 * 1e3, "ms", note="64 paced streams")
        yield Figure(f"{name}, p95", outcome.first_token_added.p95 * 1e3, "ms", limit)
        per_event = outcome.cpu_micros_each(outcome.messages)
        yield Figure(f"CPU per paced message, {case.name}", per_event, "µs", note=f"{outcome.failures} calls failed")


def _half_load_figures(cases: list[Case], rates: dict[str, Rate], plan: Plan) -> Iterator[Figure]:
    for case in cases:
        if case.name in _HALF_LOADED:
            found = at_half_load(case, rates[case.name], plan.seconds)
            p50, p95 = (None, None) if case.name.startswith("floor") else (2.0, 5.0)
            name = f"latency at half load, {case.name}"
            note = f"{found.calls_per_second:,.0f} calls/s; the upstream answers at once"
            yield Figure(f"{name}, p50", found.latency.p50 * 1e3, "ms", p50, note=note)
            yield Figure(f"{name}, p95", found.latency.p95 * 1e3, "ms", p95)


def _alone_figures(cases: list[Case], plan: Plan) -> Iterator[Figure]:
    for rate in one_at_a_time([case for case in cases if case.name in _ALONE], plan.single_seconds):
        yield Figure(f"one call at a time, {rate.name}, p50", rate.latency.p50 * 1e3, "ms")


if __name__ == "__main__":
    main()
