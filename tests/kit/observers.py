"""Those who watch pointsman, for real: Prometheus with promtool, and an OpenTelemetry collector.

Tests that need one skip where it cannot be had. Prometheus comes from the distribution's package within seconds, unless
`make observers` has built one; the collector is built at its first use, which takes two minutes.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from kit.programs import ROOT, load_program

observers: Any = load_program("tools/observers.py")

OTELCOL_SECONDS = 300.0
"""What a test that uses the collector must allow for: it may have to be built."""

_PATIENCE_SECONDS = 25.0
_STOP_SECONDS = 10.0


def prometheus_folder() -> Path:
    """The folder with `prometheus` and `promtool`. Skips the calling test when they cannot be had."""
    built: Path = observers.PROMETHEUS
    if built.exists():
        return built
    installed = [shutil.which(program) for program in ("prometheus", "promtool")]
    if all(installed):
        return Path(str(installed[0])).parent
    try:
        return Path(observers.unpack_prometheus())
    except observers.CannotInstall as error:
        pytest.skip(f"Prometheus is absent, and its package cannot be had ({error}); `make observers` builds it")


def otelcol() -> Path:
    """The OpenTelemetry collector, built at its first use. Skips the calling test when it cannot be had."""
    try:
        return Path(observers.build_collector(OTELCOL_SECONDS * 0.8)) / "otelcol"
    except observers.CannotInstall as error:
        pytest.skip(f"the OpenTelemetry collector cannot be had ({error}); `make observers` builds it")


@dataclass
class Prometheus:
    """A running Prometheus, by its HTTP API."""

    _http: aiohttp.ClientSession

    async def ask(self, path: str, **parameters: str) -> Any:
        """What the API answers at this path under /api/v1."""
        async with self._http.get(f"/api/v1/{path}", params=parameters) as response:
            answer = await response.json()
        assert answer["status"] == "success", answer
        return answer["data"]

    async def query(self, promql: str) -> list[tuple[dict[str, str], float]]:
        """The series of an instant query and their values of now."""
        found = (await self.ask("query", query=promql))["result"]
        return [(one["metric"], float(one["value"][1])) for one in found]


@asynccontextmanager
async def running_prometheus(directory: Path, targets: Sequence[str]) -> AsyncGenerator[Prometheus, None]:
    """A Prometheus with our configuration and rules, but other targets and everything five times a second."""
    program = prometheus_folder() / "prometheus"
    url = f"127.0.0.1:{_free_port()}"
    command = [
        str(program),
        f"--config.file={_hurried_configuration(directory, targets)}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address={url}",
    ]
    async with (
        aiohttp.ClientSession(f"http://{url}") as http,
        _running(command, directory / "prometheus.log", lambda: _answers(http, "/-/ready")),
    ):
        yield Prometheus(http)


@dataclass
class Otelcol:
    """A running collector. `endpoint` takes OTLP over gRPC."""

    endpoint: str
    _file: Path

    def spans(self) -> list[dict[str, Any]]:
        """All spans that arrived so far, as OTLP's JSON."""
        if not self._file.exists():
            return []
        lines = self._file.read_text(encoding="utf-8").splitlines()
        return list(_spans_in(json.loads(line) for line in lines))


@asynccontextmanager
async def running_otelcol(directory: Path) -> AsyncGenerator[Otelcol, None]:
    """A collector that takes traces."""
    program = otelcol()
    endpoint, file = f"127.0.0.1:{_free_port()}", directory / "traces.json"
    config = {
        "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": endpoint}}}},
        "exporters": {"file": {"path": str(file)}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["file"]}},
        },
    }
    (directory / "collector.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    command = [str(program), f"--config={directory / 'collector.yml'}"]
    async with _running(command, directory / "collector.log", lambda: _listens(endpoint)):
        yield Otelcol(endpoint, file)


async def until(holds: Callable[[], Awaitable[bool]], patience_seconds: float = _PATIENCE_SECONDS) -> None:
    """Waits for what another process does in its own time."""
    async with asyncio.timeout(patience_seconds):
        while not await holds():  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.05)


def _hurried_configuration(directory: Path, targets: Sequence[str]) -> Path:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    config["global"] = {"scrape_interval": "200ms", "evaluation_interval": "200ms"}
    config["rule_files"] = [str(ROOT / "deploy" / "prometheus" / name) for name in config["rule_files"]]
    (scrape,) = config["scrape_configs"]
    scrape["static_configs"] = [{"targets": list(targets)}]
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@asynccontextmanager
async def _running(
    command: Sequence[str], log: Path, is_ready: Callable[[], Awaitable[bool]]
) -> AsyncGenerator[None, None]:
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)

        async def ready_or_gone() -> bool:
            assert process.returncode is None, f"{command[0]} ended; see {log}"
            return await is_ready()

        try:
            await until(ready_or_gone)
            yield
        finally:
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), _STOP_SECONDS)


async def _answers(http: aiohttp.ClientSession, path: str) -> bool:
    try:
        async with http.get(path) as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False


async def _listens(address: str) -> bool:
    host, port = address.split(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


def _spans_in(batches: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        for resource in batch["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                yield from scope["spans"]


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])
