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


@pytest.mark.parametrize("address", ["0.0.0.0:50051", "[::]:50051", "192.0.2.1:50051", "example.com:50051"])
def test_an_address_that_others_can_reach_is_refused(cli: Cli, address: str) -> None:
    result = cli("serve", "--grpc-address", address)
    assert result.exit_code == 2
    assert f"{address} can be reached from other machines" in result.stderr
    assert "127.0.0.1:50051" in result.stderr
