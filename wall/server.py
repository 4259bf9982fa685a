"""Starts pointsman as its users do, for one scenario."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_START_SECONDS = 30.0
_END_SECONDS = 30.0


@asynccontextmanager
async def running_pointsman(policy: Mapping[str, Any], settings: Mapping[str, str]) -> AsyncGenerator[str, None]:
    """`pointsman serve` with this policy and these environment variables; its address. Raises `RuntimeError`."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        file = directory / "policy.yaml"
        file.write_text(json.dumps(policy), encoding="utf-8")  # JSON is YAML
        with (directory / "log").open("w+") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "pointsman_server.cli", "serve",
                "--policy", str(file), "--grpc-address", "127.0.0.1:0",
                stdout=asyncio.subprocess.PIPE, stderr=log, env=_environment(directory, settings),
            )  # fmt: skip
            try:
                yield await _address(process, log)
            finally:
                process.terminate()
                await asyncio.wait_for(process.wait(), _END_SECONDS)


async def _address(process: asyncio.subprocess.Process, log: Any) -> str:
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    line = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
    words = line.decode().split()
    if len(words) < 4:
        log.seek(0)
        raise RuntimeError(f"pointsman did not start:\n{log.read()}")
    return words[3].rstrip(";")


def _environment(directory: Path, settings: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")}
    own = {
        "POINTSMAN_STATE_DIR": str(directory / "state"),
        "POINTSMAN_DATABASE_URL": f"sqlite:///{directory / 'pointsman.db'}",
        "POINTSMAN_HTTP_ADDRESS": "127.0.0.1:0",
        "POINTSMAN_DRAIN_GRACE_SECONDS": "0",
    }
    return {**kept, **own, **settings}
