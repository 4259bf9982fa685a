from __future__ import annotations

from pathlib import Path

import pytest

from kit.certificates import Authority
from kit.command_line import Cli
from pointsman_server.cli.server_option import Server
from pointsman_server.execution.keys import make_key

NOBODY = ("--server", "127.0.0.1:1")


@pytest.mark.parametrize("command", [("route", "x"), ("complete", "x"), ("feedback", "req_1", "1")])
class TestEveryCommandThatAsks:
    def test_a_variable_that_is_named_must_be_there(self, cli: Cli, command: tuple[str, ...]) -> None:
        result = cli(*command, *NOBODY, "--api-key-env", "NO_SUCH_KEY")
        assert result.exit_code == 2
        assert "--api-key-env names NO_SUCH_KEY, which is not set" in result.stderr

    def test_a_mistyped_key_is_noticed_before_it_is_sent(self, cli: Cli, command: tuple[str, ...]) -> None:
        key = make_key().text[:-1]
        result = cli(*command, *NOBODY, POINTSMAN_API_KEY=key)
        assert result.exit_code == 2
        assert "POINTSMAN_API_KEY holds a key that was cut or mistyped" in result.stderr
        assert key not in result.output

    def test_a_key_with_a_line_break_is_refused_without_being_shown(self, cli: Cli, command: tuple[str, ...]) -> None:
        result = cli(*command, *NOBODY, POINTSMAN_API_KEY="PLANTED\n")
        assert result.exit_code == 2
        assert "printable ASCII" in result.stderr
        assert "PLANTED" not in result.output

    def test_a_file_that_is_missing_is_named(self, cli: Cli, command: tuple[str, ...]) -> None:
        result = cli(*command, *NOBODY, "--tls-ca", "/no/such.pem")
        assert result.exit_code == 2
        assert "/no/such.pem cannot be read" in result.stderr

    @pytest.mark.parametrize("option", ["--tls-cert", "--tls-key"])
    def test_half_a_pair_is_refused(self, cli: Cli, command: tuple[str, ...], option: str, tmp_path: Path) -> None:
        result = cli(*command, *NOBODY, option, Authority().write(tmp_path))
        assert result.exit_code == 2
        assert "--tls-cert and --tls-key go together" in result.stderr

    def test_a_whole_key_goes_on_its_way(self, cli: Cli, command: tuple[str, ...]) -> None:
        result = cli(*command, *NOBODY, POINTSMAN_API_KEY=make_key().text)
        assert result.exit_code == 1
        assert "no pointsman server answers at 127.0.0.1:1" in result.stderr
        assert "if it speaks TLS, --tls-ca FILE" in result.stderr


def test_the_key_is_not_part_of_the_representation() -> None:
    assert "PLANTED" not in repr(Server("127.0.0.1:1", "PLANTED"))
