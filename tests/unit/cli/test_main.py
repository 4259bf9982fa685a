from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

from kit.command_line import Cli


def test_version(cli: Cli) -> None:
    assert cli("--version").output == f"pointsman {version('pointsman')}\n"


@pytest.mark.parametrize("command", ["serve", "simulate", "preflight", "route", "complete", "feedback", "replay"])
def test_every_command_explains_itself(cli: Cli, command: str) -> None:
    assert f"\n  {command} " in cli("--help").output
    result = cli(command, "--help")
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: pointsman {command}")


def test_an_unknown_command_is_wrong_usage(cli: Cli) -> None:
    result = cli("serv")
    assert result.exit_code == 2
    assert "No such command 'serv'" in result.output


def test_asking_does_not_import_the_server() -> None:
    check = (
        "import sys; from pointsman_server.cli.main import commands; import pointsman_server.cli.complete;"
        "sys.exit(' '.join(name for name in sys.modules if name in ('aiohttp', 'anthropic', 'google.genai', 'uvloop')))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.stderr == "\n"
