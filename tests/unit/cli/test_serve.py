from __future__ import annotations

from pathlib import Path

import pytest

from kit.command_line import Cli

BAD_POLICY = str(Path(__file__).parents[1] / "config" / "bad" / "many_at_once.yaml")


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        ([], {"POINTSMAN_WORKERS": "0", "POINTSMAN_FOO": "1"}, ["POINTSMAN_WORKERS is '0'", "POINTSMAN_FOO is not a"]),
        (["--grpc-address", "nowhere"], {}, ["POINTSMAN_GRPC_ADDRESS is not an address", "127.0.0.1:50051"]),
        (["--policy", BAD_POLICY], {}, ["the policy cannot be used", "many_at_once.yaml:3", "many_at_once.yaml:8"]),
        (["--policy", "/no/such.yaml"], {}, ["/no/such.yaml: the file does not exist"]),
        ([], {"POINTSMAN_POLICY_FILE": "/no/such.yaml"}, ["/no/such.yaml: the file does not exist"]),
    ],
)
def test_what_cannot_be_used_is_told_without_a_traceback(
    cli: Cli, arguments: list[str], environ: dict[str, str], words: list[str]
) -> None:
    result = cli("serve", *arguments, **environ)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert all(word in result.stderr for word in words), result.stderr
    assert "Traceback" not in result.stderr


TLS = {"POINTSMAN_TLS_CERT_FILE": "server.pem", "POINTSMAN_TLS_KEY_FILE": "server.key"}


@pytest.mark.parametrize("address", ["0.0.0.0:50051", "[::]:50051", "192.0.2.1:50051", "example.com:50051"])
@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "calls are not encrypted"),
        ({"POINTSMAN_AUTHENTICATION": "required"}, "calls are not encrypted"),
        ({"POINTSMAN_AUTHENTICATION": "insecure", **TLS}, "nobody checks who calls"),
    ],
)
def test_an_address_that_others_can_reach_needs_tls_and_callers(
    cli: Cli, address: str, environ: dict[str, str], words: str
) -> None:
    result = cli("serve", "--grpc-address", address, **environ)
    assert result.exit_code == 2
    assert f"POINTSMAN_GRPC_ADDRESS is {address}, which other machines can reach, and {words}" in result.stderr
    assert "listen on 127.0.0.1:50051" in result.stderr


@pytest.mark.parametrize("variable", ["POINTSMAN_ADMIN_ADDRESS", "POINTSMAN_HTTP_ADDRESS"])
def test_so_do_the_other_addresses(cli: Cli, variable: str) -> None:
    result = cli("serve", "--grpc-address", "127.0.0.1:0", **{variable: "0.0.0.0:50052"})
    assert result.exit_code == 2
    assert f"{variable} is 0.0.0.0:50052, which other machines can reach" in result.stderr


def test_everything_that_is_missing_is_told_at_once(cli: Cli) -> None:
    result = cli(
        "serve", POINTSMAN_TLS_KEY_FILE="k", POINTSMAN_TLS_CLIENT_CA_FILE="ca", POINTSMAN_HTTP_ADDRESS="[::]:1"
    )
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 4


def test_tls_files_that_cannot_be_used_stop_the_start(cli: Cli, tmp_path: Path) -> None:
    paths = {variable: str(tmp_path / file) for variable, file in TLS.items()}
    result = cli("serve", "--grpc-address", "0.0.0.0:0", **paths)
    assert result.exit_code == 2
    assert f"{tmp_path}/server.pem cannot be read: No such file or directory" in result.stderr
    assert "Traceback" not in result.stderr
