"""The command `pointsman` as tests run it: in this process, or as processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner, Result

from kit.fresh_database import fresh_database_url
from kit.running import MODEL
from pointsman_server.cli.main import commands

COMMAND = (sys.executable, "-m", "pointsman_server.cli")

_START_SECONDS = 30.0


def _alone() -> dict[str, str]:
    """Keeps no state, takes no known port, has a database of its own."""
    return {
        "POINTSMAN_STATE_DIR": "",
        "POINTSMAN_HTTP_ADDRESS": "127.0.0.1:0",
        "POINTSMAN_DATABASE_URL": fresh_database_url(),
    }


class Cli:
    """Runs a command in this process, with standard output that is no terminal and without the caller's settings."""

    def __call__(self, *arguments: str, stdin: str | bytes | None = None, **environ: str) -> Result:
        hidden: Mapping[str, str | None] = dict.fromkeys(name for name in os.environ if name.startswith("POINTSMAN_"))
        env = {**hidden, **_alone(), **environ}
        return CliRunner().invoke(commands, arguments, input=stdin, env=env, prog_name="pointsman")


def environment(**changes: str) -> dict[str, str]:
    """The environment for a process that keeps no state and takes no known port.

    It is this process's, without settings and keys, with the changes.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")}
    return {name: value for name, value in kept.items() if not name.endswith("_API_KEY")} | _alone() | changes


def simulated_policy(*models: str) -> str:
    """A policy with a simulated deployment for each of these models, named after it; earlier ones are cheaper."""
    provider = {"dialect": "openai_chat", "base_url": "http://127.0.0.1:1/v1", "simulated": True}
    policy = {
        "version": 1,
        # Each with an account of its own: what one does must not be held against the others.
        "providers": {f"{name}-account": provider for name in models},
        "models": {
            name: {**MODEL, "price": [{"input_usd_per_mtok": place, "output_usd_per_mtok": place}]}
            for place, name in enumerate(models, start=1)
        },
        "deployments": {name: {"provider": f"{name}-account", "model": name, "model_name": name} for name in models},
    }
    return json.dumps(policy, indent=1)  # JSON is YAML


@contextmanager
def started(log: Path, *arguments: str, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A command that serves, and the line it says when it is ready; its standard error goes to `log`."""
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=errors, env=environment(**environ), text=True
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            yield process, line
        finally:
            process.terminate()
            process.wait(_START_SECONDS)


@contextmanager
def serving(directory: Path, policy: str, **environ: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server with this policy in a process of its own, and its address; `directory` gets its policy and `log`."""
    file = directory / "policy.yaml"
    file.write_text(policy)
    arguments = ("serve", "--policy", str(file), "--grpc-address", "127.0.0.1:0")
    with started(directory / "log", *arguments, **environ) as (process, line):
        assert line.startswith("pointsman listens on ")
        yield process, line.split()[3].rstrip(";")
