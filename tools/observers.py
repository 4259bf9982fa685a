"""Gets what watches pointsman in tests: Prometheus with promtool, an OpenTelemetry collector, Grafana's types.

They live in the folder `.tools`, which is not part of the project. `python tools/observers.py` builds both from source
with go, through its module proxy, every checksum known; name one of `prometheus` and `collector` to build only that.
On a clean machine with two cores Prometheus takes three minutes and the collector two.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"

PROMETHEUS_MODULE = "github.com/prometheus/prometheus@v0.312.0"
"""Prometheus 3.12.0; its Go module counts differently."""

PROMETHEUS = TOOLS / "prometheus-3.12.0"
PACKAGED_PROMETHEUS = TOOLS / "prometheus-packaged"
COLLECTOR_SOURCE = ROOT / "tools" / "otelcol"
COLLECTOR = TOOLS / "otelcol"

GRAFANA_SCHEMA = TOOLS / "grafana-schema-13.2.3"
GRAFANA_PACKAGES = ("@grafana/schema@13.2.3", "typescript@7.0.2")
"""What Grafana itself takes the content of a dashboard to be, and the compiler that reads it."""

PATIENCE_SECONDS = 900.0
_DOWNLOAD_SECONDS = 60.0


class CannotInstall(Exception):
    """Why a program cannot be had here."""


def build_prometheus(patience_seconds: float = PATIENCE_SECONDS) -> Path:
    """The folder with `prometheus` and `promtool`, built without the service discovery of clouds unless it is there.

    Built where go keeps the source, as `go install` refuses modules that replace some of what they need.
    """
    with _made_once(PROMETHEUS) as place:
        if place is not None:
            told = _run(["go", "mod", "download", "-json", PROMETHEUS_MODULE], ROOT, patience_seconds)
            programs = ["-tags=remove_all_sd,netgo", "./cmd/prometheus", "./cmd/promtool"]
            _run([*_go_build(place), *programs], Path(json.loads(told)["Dir"]), patience_seconds)
    return PROMETHEUS


def unpack_prometheus() -> Path:
    """The folder with `prometheus` and `promtool` out of the distribution's package, which takes seconds.

    Nothing is installed: apt fetches the package and checks it, then it is unpacked.
    """
    with _made_once(PACKAGED_PROMETHEUS) as place:
        if place is not None:
            package = place.parent / "package"
            package.mkdir()
            _run(["apt-get", "download", "prometheus"], package, _DOWNLOAD_SECONDS)
            _run(["dpkg-deb", "--extract", *map(str, package.glob("*.deb")), "."], package, _DOWNLOAD_SECONDS)
            (package / "usr" / "bin").rename(place)
    return PACKAGED_PROMETHEUS


def build_collector(patience_seconds: float = PATIENCE_SECONDS) -> Path:
    """The folder with `otelcol`, built unless it is there."""
    with _made_once(COLLECTOR) as place:
        if place is not None:
            _run([*_go_build(place), "."], COLLECTOR_SOURCE, patience_seconds)
    return COLLECTOR


def fetch_grafana_schema() -> Path:
    """The folder with `node_modules`, in it Grafana's types of dashboards; npm fetches and checks them."""
    with _made_once(GRAFANA_SCHEMA) as place:
        if place is not None:
            place.mkdir()
            (place / "package.json").write_text("{}", encoding="utf-8")
            options = ["--ignore-scripts", "--no-audit", "--no-fund"]
            _run(["npm", "install", *options, *GRAFANA_PACKAGES], place, _DOWNLOAD_SECONDS)
    return GRAFANA_SCHEMA


@contextmanager
def _made_once(folder: Path) -> Iterator[Path | None]:
    """Where to make what will be `folder`, None if it is there; of several processes one makes it, the others wait."""
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / "observers.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.exists():
            yield None
            return
        with tempfile.TemporaryDirectory(dir=TOOLS) as name:
            making = Path(name) / folder.name
            yield making
            making.rename(folder)


def _go_build(place: Path) -> list[str]:
    return ["nice", "go", "build", "-ldflags=-s -w", "-o", f"{place}/"]


def _run(command: Sequence[str], folder: Path, patience_seconds: float) -> str:
    environ = {**os.environ, "GOWORK": "off", "GOFLAGS": "-buildvcs=false"}
    try:
        return subprocess.run(  # noqa: S603 - the commands are the ones above
            command, cwd=folder, env=environ, capture_output=True, check=True, text=True, timeout=patience_seconds
        ).stdout
    except FileNotFoundError as error:
        raise CannotInstall(f"{command[0]} is absent") from error
    except subprocess.TimeoutExpired as error:
        raise CannotInstall(f"`{' '.join(command[:3])}` took more than {patience_seconds:.0f} seconds") from error
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise CannotInstall(f"`{' '.join(command[:3])}` failed: {last}") from error


_BUILDS: dict[str, Callable[[], Path]] = {"prometheus": build_prometheus, "collector": build_collector}


def main(names: Sequence[str]) -> int:
    """Builds what is named, or all; returns the exit code."""
    unknown = sorted(set(names) - set(_BUILDS))
    if unknown:
        print(f"unknown: {', '.join(unknown)}; choose from {', '.join(_BUILDS)}", file=sys.stderr)
        return 2
    for name in names or _BUILDS:
        try:
            print(f"{name}: {_BUILDS[name]().relative_to(ROOT)}")
        except CannotInstall as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
