"""`python -m bench [--quick] [--output FILE] [--litellm PYTHON]`: one run, from the floors to the verdicts."""

from __future__ import annotations

import argparse
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
from rich.console import Console

from bench import measures, policy, processes
from bench.capacity import measure_upstream
from bench.deciding import measure_decision
from bench.healthy import measure_healthy_path
from bench.machine import memory_mb, require_linux
from bench.measures import FULL, QUICK, Case, Plan, Rate, in_rounds
from bench.processes import Server
from bench.report import Figure, Report
from bench.team import measure_team

_HALF_LOADED = ("floor: relay", "Complete, OpenAI chat", "Complete, Anthropic")
_ALONE = ("floor: echo", "Route", "floor: relay", "Complete, OpenAI chat", "Complete, Anthropic")

_DECISION_LIMITS_MICROS: Mapping[str, tuple[float | None, float | None]] = {
    "judge alone": (100.0, 300.0),
    "whole decision, 1 kB": (None, 1_000.0),
    "whole decision, 8 kB": (None, 1_000.0),
    "whole decision, 400 kB": (None, 5_000.0),
    "whole decision, 400 kB and windows twice as large": (None, 5_000.0),
}


def main() -> None:
    """Runs it all, prints the tables and writes the JSON. What is missed is told; the exit code stays 0."""
    options = _options()
    require_linux()
    started_at = time.monotonic()
    console = Console(highlight=False, width=160)
    plan = QUICK if options.quick else FULL
    with TemporaryDirectory() as name, processes.upstream() as upstream:
        directory = Path(name)
        rates, figures, failures = _run(plan, upstream, directory, options.litellm)
    report = Report(rates, figures, failures, options.quick, time.monotonic() - started_at)
    report.show(console)
    report.write(options.output)
    console.print(f"written to {options.output}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a short run, to see that it works")
    parser.add_argument("--output", type=Path, default=Path("var/bench.json"), help="the JSON file to write")
    parser.add_argument(
        "--litellm",
        type=_with_litellm,
        metavar="PYTHON",
        help="measure LiteLLM's proxy as well: the python of an environment in which litellm[proxy] is installed",
    )
    return parser.parse_args()


def _with_litellm(text: str) -> Path:
    python = Path(text).absolute()
    if not python.with_name("litellm").exists():
        raise argparse.ArgumentTypeError(f"there is no program `litellm` beside {text}; install litellm[proxy] there")
    return python


def _run(plan: Plan, upstream: Server, directory: Path, litellm: Path | None) -> tuple[list[Rate], list[Figure], int]:
    figures = [*_upstream_figures(upstream, plan), *_start_figures(upstream, directory, plan)]
    figures += _healthy_figures(upstream, directory / "watched.yaml", plan)
    figures += measure_team(upstream, plan)
    with ExitStack() as stack:
        floors = stack.enter_context(processes.floors(upstream.address))
        pointsman = stack.enter_context(processes.pointsman(policy.whole(upstream.address), directory))
        figures += _decision_figures(directory / "policy.yaml", plan)
        cases = measures.saturating_cases(floors, pointsman, plan)
        if litellm is not None:
            proxy = stack.enter_context(processes.litellm(litellm, upstream.address, directory))
            cases += measures.litellm_cases(proxy, plan)
        rates = in_rounds(cases, plan.rounds)
        paced = in_rounds(measures.paced_cases(floors, pointsman, plan), plan.rounds)
        half = in_rounds(measures.half_loaded_cases(_named(cases, _HALF_LOADED), rates, plan), plan.rounds)
        single = in_rounds(measures.single_cases(_named(cases, _ALONE), plan), 1)
        crowd = in_rounds(measures.crowded_cases(pointsman, plan), 1)
        peak = Figure("memory at its peak", memory_mb(pointsman.pid, peak=True), "MB", 700.0, note="after all of this")
    figures += [*_ratios(cases, rates), *_against_litellm(rates), *_stream_costs(rates)]
    figures += _paced_figures(paced.values())
    figures += [*_half_load_figures(half.values()), *_single_figures(single.values()), *_crowd_figures(crowd.values())]
    figures.append(peak)
    failures = sum(rate.failures for found in (rates, paced, half, single, crowd) for rate in found.values())
    return list(rates.values()), figures, failures


def _named(cases: Iterable[Case], names: Collection[str]) -> list[Case]:
    return [case for case in cases if case.name in names]


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
                time.sleep(plan.settling_seconds)
                seconds.append(server.start_seconds)
                memory.append(memory_mb(server.pid))
        yield Figure(f"start-up, {name}", sorted(seconds)[len(seconds) // 2], "s")
        yield Figure(f"idle memory, {name}", sorted(memory)[len(memory) // 2], "MB")


def _decision_figures(policy_file: Path, plan: Plan) -> Iterator[Figure]:
    for of, seconds in measure_decision(policy_file, plan.single_seconds):
        p50, p99 = _DECISION_LIMITS_MICROS.get(of, (None, None))
        yield Figure(f"{of}, p50", seconds.p50 * 1e6, "µs", p50, note="eight deployments, no gRPC")
        yield Figure(f"{of}, p99", seconds.p99 * 1e6, "µs", p99)


def _healthy_figures(upstream: Server, policy_file: Path, plan: Plan) -> Iterator[Figure]:
    policy_file.write_bytes(orjson.dumps(policy.watched(upstream.address)))  # JSON is YAML
    for added in measure_healthy_path(policy_file, plan.paced_seconds):
        limit = None if added.of == "last event of a stream" else 0.3
        note = f"{added.dispatched.p50 * 1e3:.2f} ms with it, {added.direct.p50 * 1e3:.2f} ms without"
        yield Figure(f"healthy path, {added.of}, p50 added", added.p50_seconds * 1e3, "ms", limit, note=note)


def _ratios(cases: list[Case], rates: dict[str, Rate]) -> Iterator[Figure]:
    limits = {"Route": 0.60, "Complete, OpenAI chat": 0.35, "Complete, Anthropic": 0.35}
    for case in cases:
        if case.floor:
            share = rates[case.floor].cpu_micros_per_call / rates[case.name].cpu_micros_per_call
            limit = limits.get(case.name)
            yield Figure(f"{case.name}, per core", share, "of it", limit, at_least=True, note=case.floor)


def _against_litellm(rates: Mapping[str, Rate]) -> Iterator[Figure]:
    pairs = (
        ("Complete, OpenAI chat", measures.LITELLM, 7.0),
        ("StreamComplete, OpenAI chat", measures.LITELLM_STREAM, None),
    )
    for ours, theirs, limit in pairs:
        if theirs in rates:
            factor = rates[theirs].cpu_micros_per_call / rates[ours].cpu_micros_per_call
            note = f"{rates[theirs].calls_per_second:,.0f} calls/s of its own"
            yield Figure(f"{ours}, per core against {theirs}", factor, "times", limit, at_least=True, note=note)


def _stream_costs(rates: dict[str, Rate]) -> Iterator[Figure]:
    for name, rate in rates.items():
        if "tream" in name:
            limit = 25.0 if name.startswith("StreamComplete") else None
            yield Figure(f"{name}, CPU per event", rate.cpu_micros_per_event, "µs", limit, note="52 events in a burst")


def _paced_figures(rates: Iterable[Rate]) -> Iterator[Figure]:
    for rate in rates:
        limit = None if rate.name.startswith("floor") else 5.0
        name = f"first token added, {rate.name}"
        yield Figure(f"{name}, p50", rate.first_token_added.p50 * 1e3, "ms", note="64 paced streams")
        yield Figure(f"{name}, p95", rate.first_token_added.p95 * 1e3, "ms", limit)
        yield Figure(f"CPU per paced message, {rate.name}", rate.cpu_micros_per_message, "µs")


def _crowd_figures(rates: Iterable[Rate]) -> Iterator[Figure]:
    for rate in rates:
        note = f"{rate.calls_per_second:,.0f} streams/s, {rate.server_busy:.0%} of a core"
        yield Figure(f"first token added, {rate.name}, p50", rate.first_token_added.p50 * 1e3, "ms", note=note)
        yield Figure(f"first token added, {rate.name}, p95", rate.first_token_added.p95 * 1e3, "ms")


def _half_load_figures(rates: Iterable[Rate]) -> Iterator[Figure]:
    for rate in rates:
        p50, p95 = (None, None) if rate.name.startswith("floor") else (2.0, 5.0)
        name = f"latency at half load, {rate.name}"
        note = f"{rate.calls_per_second:,.0f} calls/s; the upstream answers at once"
        yield Figure(f"{name}, p50", rate.latency.p50 * 1e3, "ms", p50, note=note)
        yield Figure(f"{name}, p95", rate.latency.p95 * 1e3, "ms", p95)


def _single_figures(rates: Iterable[Rate]) -> Iterator[Figure]:
    for rate in rates:
        yield Figure(f"one call at a time, {rate.name}, p50", rate.latency.p50 * 1e3, "ms")


if __name__ == "__main__":
    main()
