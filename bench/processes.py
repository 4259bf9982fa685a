"""The processes of a run: the upstream, the floors, and pointsman itself as its users start it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any
from urllib.request import urlopen

import orjson

from bench.jobs import Job, Outcome
from bench.machine import cores, on_core
from bench.policy import litellm as litellm_configuration

ROOT = Path(__file__).resolve().parent.parent

_START_SECONDS = 90.0
_END_SECONDS = 60.0
_LIVENESS = "/health/liveliness"
"""Where LiteLLM's proxy says that it is there; it is spelt so."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running process: where it listens and how long it took until it did."""

    pid: int
    address: str
    start_seconds: float


@contextmanager
def upstream() -> Iterator[Server]:
    """The upstream, on the load's core."""
    with _started([sys.executable, "-m", "bench.upstream"], _load_core(), {}, _first_line(_port)) as server:
        yield server


@contextmanager
def floors(upstream_address: str) -> Iterator[Server]:
    """The floors, on the servers' core."""
    command = [sys.executable, "-m", "bench.floors", f"http://{upstream_address}"]
    with _started(command, _server_core(), {}, _first_line(_port)) as server:
        yield server


@contextmanager
def pointsman(
    policy: Mapping[str, Any], directory: Path, changes: Mapping[str, str] | None = None, *, on_all_cores: bool = False
) -> Iterator[Server]:
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
    core = None if on_all_cores else _server_core()
    with _started(command, core, environ, _first_line(lambda line: line.split()[3].rstrip(";"))) as server:
        yield server


@contextmanager
def litellm(python: Path, upstream_address: str, directory: Path) -> Iterator[Server]:
    """LiteLLM's proxy, on the servers' core; `python` is that of an environment in which `litellm[proxy]` is installed.

    Raises `RuntimeError` when it does not answer.
    """
    file = directory / "litellm.yaml"
    file.write_bytes(orjson.dumps(litellm_configuration(upstream_address)))  # JSON is YAML
    port = _free_port()
    program = python.with_name("litellm")
    command = [str(program), "--config", str(file), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    environ = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    with _started(command, _server_core(), environ, _once_alive(port), says_address=False) as server:
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


_Process = subprocess.Popen[str]


@contextmanager
def _started(
    command: Sequence[str],
    core: int | None,
    environ: Mapping[str, str],
    find: Callable[[_Process], str],
    *,
    says_address: bool = True,
) -> Iterator[Server]:
    """`find` waits for its address, "" when it ended instead; what it says on standard output is kept for that."""
    started_at = time.monotonic()
    with TemporaryFile("w+") as log:
        with on_core(core):
            process = subprocess.Popen(  # noqa: S603 - our own modules, or what the caller named
                command, stdout=subprocess.PIPE if says_address else log, stderr=log, text=True, cwd=ROOT,
                env=_environment(environ),
            )  # fmt: skip
        try:
            address = find(process)
            if not address:
                log.seek(0)
                raise RuntimeError(f"{' '.join(command[1:3])} did not start:\n{log.read()}")
            yield Server(process.pid, address, time.monotonic() - started_at)
        finally:
            process.terminate()
            process.wait(_END_SECONDS)


def _first_line(read: Callable[[str], str]) -> Callable[[_Process], str]:
    def find(process: _Process) -> str:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        line = process.stdout.readline()
        return read(line) if line else ""

    return find


def _once_alive(port: int) -> Callable[[_Process], str]:
    address = f"http://127.0.0.1:{port}"

    def find(process: _Process) -> str:
        gives_up_at = time.monotonic() + _START_SECONDS
        while process.poll() is None and time.monotonic() < gives_up_at:
            try:
                with urlopen(f"{address}{_LIVENESS}", timeout=1.0):  # noqa: S310 - on loopback
                    return address
            except OSError:
                time.sleep(0.1)
        return ""

    return find


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")}
    return {**kept, **changes}


def _server_core() -> int | None:
    pair = cores()
    return pair[0] if pair else None


def _load_core() -> int | None:
    pair = cores()
    return pair[1] if pair else None
