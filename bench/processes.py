"""The processes of a run: the upstream, the floors, and pointsman itself as its users start it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import orjson

from bench.jobs import Job, Outcome
from bench.machine import cores, on_core

ROOT = Path(__file__).resolve().parent.parent

_END_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """A running process: where it listens and how long it took until it did."""

    pid: int
    address: str
    start_seconds: float


@contextmanager
def upstream() -> Iterator[Server]:
    """The upstream, on the load's core."""
    with _started([sys.executable, "-m", "bench.upstream"], _load_core(), {}, _port) as server:
        yield server


@contextmanager
def floors(upstream_address: str) -> Iterator[Server]:
    """The floors, on the servers' core."""
    command = [sys.executable, "-m", "bench.floors", f"http://{upstream_address}"]
    with _started(command, _server_core(), {}, _port) as server:
        yield server


@contextmanager
def pointsman(policy: Mapping[str, Any], directory: Path, changes: Mapping[str, str] | None = None) -> Iterator[Server]:
    """`pointsman serve` with this policy, on the servers' core; it keeps its records in the directory.

    `changes` are of its environment.
    """
    file = directory / "policy.yaml"
    file.write_bytes(orjson.dumps(policy))  # JSON is YAML
    command = [sys.executable, "-m", "pointsman_server.cli", "serve", "--policy", str(file)]
    command += ["--grpc-address", "127.0.0.1:0"]
    environ = {
        "BENCH_KEY": "bench",
        "POINTSMAN_STATE_DIR": str(directory / "state"),
        "POINTSMAN_DATABASE_URL": f"sqlite:///{directory / 'pointsman.db'}",
        "POINTSMAN_HTTP_ADDRESS": "127.0.0.1:0",
        "POINTSMAN_MAX_CONCURRENT_CALLS": "1000",
        **(changes or {}),
    }
    with _started(command, _server_core(), environ, lambda line: line.split()[3].rstrip(";")) as server:
        yield server


def run_job(job: Job) -> Outcome:
    """Runs the load generator, on the load's core."""
    with on_core(_load_core()):
        done = subprocess.run(
            [sys.executable, "-m", "bench.load"], input=job.to_json(), stdout=subprocess.PIPE, text=True, check=True,
            cwd=ROOT, env=_environment({}),
        )  # fmt: skip
    return Outcome.from_json(done.stdout)


def _port(line: str) -> str:
    return f"127.0.0.1:{int(line)}"


@contextmanager
def _started(command: Sequence[str], core: int | None, environ: Mapping[str, str], read: Any) -> Iterator[Server]:
    started_at = time.monotonic()
    with TemporaryFile("w+") as log:
        with on_core(core):
            process = subprocess.Popen(  # noqa: S603 - our own modules
                command, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT, env=_environment(environ)
            )
        try:
            assert process.stdout is not None  # noqa: S101 - it is a pipe
            line = process.stdout.readline()
            if not line:
                log.seek(0)
                raise RuntimeError(f"{' '.join(command[1:3])} did not start:\n{log.read()}")
            yield Server(process.pid, read(line), time.monotonic() - started_at)
        finally:
            process.terminate()
            process.wait(_END_SECONDS)


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")}
    return {**kept, **changes}


def _server_core() -> int | None:
    pair = cores()
    return pair[0] if pair else None


def _load_core() -> int | None:
    pair = cores()
    return pair[1] if pair else None
