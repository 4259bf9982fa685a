"""Two workers against one, and 1,000 streams at a time: servers that may use all cores.

The load and the upstream stay on the second core, which the second worker then shares with them: on two cores twice the
calls of one worker are out of reach, however well the workers get along.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import policy, processes
from bench.machine import memory_mb
from bench.measures import ONE_WORKER, TWO_WORKERS, Plan, Rate, in_rounds, team_cases, thousand_streams
from bench.processes import Server
from bench.report import Figure

_ENVIRONMENT = {"POINTSMAN_MAX_CONCURRENT_CALLS": "2000"}


def measure_team(upstream: Server, plan: Plan) -> Iterator[Figure]:
    """The figures; what failed is one of them."""
    with ExitStack() as stack:
        one, two = (_server(stack, upstream, workers) for workers in (1, 2))
        rates = in_rounds(team_cases(one, two, plan), plan.rounds)
        yield from _compared(rates[ONE_WORKER], rates[TWO_WORKERS])
        case = thousand_streams(two, plan)
        crowd = in_rounds([case], 1)[case.name]
        yield from _crowded(crowd, memory_mb(two.pid, peak=True))


def _server(stack: ExitStack, upstream: Server, workers: int) -> Server:
    directory = Path(stack.enter_context(TemporaryDirectory()))
    changes = {**_ENVIRONMENT, "POINTSMAN_WORKERS": str(workers)}
    return stack.enter_context(
        processes.pointsman(policy.chat_only(upstream.address), directory, changes, on_all_cores=True)
    )


def _compared(one: Rate, two: Rate) -> Iterator[Figure]:
    factor = two.calls_per_second / one.calls_per_second
    note = f"{two.calls_per_second:,.0f} and {one.calls_per_second:,.0f} calls/s; load and upstream share the cores"
    yield Figure("two workers against one", factor, "times", 1.7, at_least=True, note=note)
    growth = two.cpu_micros_per_call / one.cpu_micros_per_call
    yield Figure("two workers against one, CPU per call", growth, "times", note=f"{two.server_busy:.0%} of a core")


def _crowded(crowd: Rate, peak_mb: float) -> Iterator[Figure]:
    yield Figure(
        "1,000 streams at a time, lost", float(crowd.failures), "streams", 0.0,
        note=f"{crowd.calls_per_second:,.0f} streams/s on two workers",
    )  # fmt: skip
    yield Figure("1,000 streams at a time, memory of all processes", peak_mb, "MB", 700.0, note="at their peaks")
    yield Figure("first token added, 1,000 streams, p50", crowd.first_token_added.p50 * 1e3, "ms")
    yield Figure("first token added, 1,000 streams, p95", crowd.first_token_added.p95 * 1e3, "ms")
