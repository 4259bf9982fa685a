"""Each distribution builds a wheel that installs and works alone in an empty environment."""

from __future__ import annotations

import socket
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(300)]

CLIENT_ALONE = """
import importlib.util
from pointsman_client import Client
from pointsman_client.testing import FakeClient
assert importlib.util.find_spec("pointsman_server") is None
print(FakeClient.__name__, Client.__name__)
"""
PROTOS_ALONE = """
import importlib.util
from pointsman.v1 import router_service_pb2, router_service_pb2_grpc, completion_pb2
assert importlib.util.find_spec("pointsman_client") is None
print(router_service_pb2.RouteRequest(completion=completion_pb2.CompletionSpec(deployment="d")))
"""


@pytest.fixture(scope="session")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three wheels, built from this tree."""
    folder = tmp_path_factory.mktemp("wheels")
    for part in ("protos", "client", "server"):
        command = [
            sys.executable,
            "-m",
            "build",
            "--no-isolation",
            "--wheel",
            "--outdir",
            str(folder),
            str(ROOT / part),
        ]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def empty_environment(folder: Path) -> Path:
    """The Python of a fresh environment."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def install(python: Path, wheels: Path, *names: str) -> None:
    files = [str(next(wheels.glob(f"{name}-*.whl"))) for name in names]
    pins = ROOT / "requirements" / "runtime.txt"
    constraint = wheels / "constraint.txt"
    lines = (line.split(" ")[0] for line in pins.read_text().splitlines() if "==" in line)
    constraint.write_text("\n".join(lines))
    command = [str(python), "-m", "pip", "install", "--quiet", "--constraint", str(constraint), *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode and "No matching distribution" in done.stderr and not _index_is_reachable(python):
        pytest.skip("the package index cannot be reached, so nothing can be installed into an empty environment")
    assert done.returncode == 0, done.stderr


def _index_is_reachable(python: Path) -> bool:
    command = [str(python), "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(python.parent), "six"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def run(python: Path, code: str) -> str:
    return subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout


def test_the_server_carries_what_it_reads(wheels: Path) -> None:
    with zipfile.ZipFile(next(wheels.glob("pointsman-*.whl"))) as wheel:
        files = set(wheel.namelist())
        (metadata,) = (wheel.read(name).decode() for name in files if name.endswith(".dist-info/METADATA"))
    for name in ("data/judge.json", "policies/default.yaml", "policies/demo.yaml", "py.typed"):
        assert f"pointsman_server/{name}" in files
    assert "Provides-Extra: evaluate" in metadata


def test_protos_alone(wheels: Path, tmp_path: Path) -> None:
    python = empty_environment(tmp_path / "env")
    install(python, wheels, "pointsman_protos")
    assert 'deployment: "d"' in run(python, PROTOS_ALONE)


def test_client_alone(wheels: Path, tmp_path: Path) -> None:
    python = empty_environment(tmp_path / "env")
    install(python, wheels, "pointsman_protos", "pointsman_client")
    assert run(python, CLIENT_ALONE).split() == ["FakeClient", "Client"]


def test_server_alone_serves_its_demonstration(wheels: Path, tmp_path: Path) -> None:
    python = empty_environment(tmp_path / "env")
    install(python, wheels, "pointsman_protos", "pointsman_client", "pointsman")
    pointsman = python.parent / "pointsman"
    address = f"127.0.0.1:{free_port()}"
    server = subprocess.Popen(
        [str(pointsman), "serve", "--grpc-address", address], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        for line in server.stderr:
            if '"serving"' in line:
                break
        command = [str(pointsman), "complete", "--server", address, "--no-stream", "Say hello"]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
        assert "simulated" in done.stdout
    finally:
        server.terminate()
        server.communicate(timeout=30)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
