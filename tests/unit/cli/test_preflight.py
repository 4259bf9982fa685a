from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result

from kit.certificates import Authority
from kit.command_line import Cli
from pointsman_server.bootstrap.policies import shipped_policy

Preflight = Callable[..., Result]

DEMO = str(shipped_policy("demo"))


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.fixture
def free(cli: Cli) -> Preflight:
    """Runs preflight with addresses that are surely free."""
    addresses = dict.fromkeys(("POINTSMAN_GRPC_ADDRESS", "POINTSMAN_HTTP_ADDRESS"), "127.0.0.1:0")
    return lambda *arguments, **environ: cli("preflight", *arguments, **{**addresses, **environ})


def test_a_sound_configuration_passes(free: Preflight) -> None:
    result = free("--policy", DEMO)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert any(line.startswith("OK") and "tokenizer" in line for line in lines)
    assert lines[-1].endswith(" 0 failed")
    assert "\x1b" not in result.stdout


def test_the_json_report_is_whole(free: Preflight) -> None:
    report = json.loads(free("--json", "--policy", DEMO).stdout)
    assert report["ok"]
    assert report["counts"]["fail"] == 0
    assert {"address.grpc", "policy", "tokenizer", "tier.light"} <= {check["id"] for check in report["checks"]}


def test_a_failure_names_its_remedy_and_sets_the_exit_code(free: Preflight, taken_port: int) -> None:
    result = free("--policy", DEMO, POINTSMAN_GRPC_ADDRESS=f"127.0.0.1:{taken_port}")
    assert result.exit_code == 1
    assert f"cannot listen on 127.0.0.1:{taken_port}" in result.stdout
    assert "Free it, or set POINTSMAN_GRPC_ADDRESS." in result.stdout
    assert result.stdout.splitlines()[-1].endswith(" 1 failed")


def test_settings_that_cannot_be_read_are_failed_checks(free: Preflight) -> None:
    report = free("--json", POINTSMAN_WORKERS="0")
    assert report.exit_code == 1
    assert [check["id"] for check in json.loads(report.stdout)["checks"]] == ["settings.POINTSMAN_WORKERS"]


def test_a_wrong_policy_is_a_failed_check(free: Preflight) -> None:
    result = free("--policy", "/no/such.yaml")
    assert result.exit_code == 1
    assert "/no/such.yaml: the file does not exist" in result.stdout


def test_endpoints_are_asked_only_when_wanted(free: Preflight) -> None:
    assert ".endpoint" not in free("--policy", DEMO).stdout
    assert "provider.sim-openai.endpoint" in free("--policy", DEMO, "--check-endpoints").stdout


def test_the_files_of_tls_are_tried(free: Preflight, tmp_path: Path) -> None:
    one, other = (Authority().server() for _ in range(2))
    cert_file, key_file = one.write(tmp_path, "server")
    tls = {"POINTSMAN_TLS_CERT_FILE": cert_file, "POINTSMAN_TLS_KEY_FILE": key_file}
    assert "the certificate and its key belong together" in free("--policy", DEMO, **tls).stdout
    Path(key_file).write_bytes(other.key)
    result = free("--policy", DEMO, **tls)
    assert result.exit_code == 1
    assert "are not a certificate and its key" in result.stdout
    result = free("--policy", DEMO, POINTSMAN_TLS_CERT_FILE=cert_file)
    assert result.exit_code == 1
    assert "Set POINTSMAN_TLS_KEY_FILE too." in result.stdout
