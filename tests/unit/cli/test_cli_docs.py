"""docs/cli.md names every command and every option, and no others."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from pointsman_server.cli.main import commands
from pointsman_server.simulator.server import DEFAULT_PORT

DOCS = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()
CONTEXT = click.Context(commands)
NAMES = commands.list_commands(CONTEXT)


def documented(section: str) -> set[str]:
    """The options that a section's table lists."""
    text = DOCS.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    cells = re.findall(r"^\| (`--[^|]*) \|", text, re.MULTILINE)
    return {option for cell in cells for option in re.findall(r"--[a-z-]+", cell)}


def options_of(name: str) -> set[str]:
    """The options that a command takes."""
    command = commands.get_command(CONTEXT, name)
    assert command is not None
    named = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    return {text for option in named for text in (*option.opts, *option.secondary_opts)}


def test_every_command_is_listed() -> None:
    assert re.findall(r"^\| \[([a-z]+)\]\(#[a-z]+\)", DOCS, re.MULTILINE) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_listed(name: str) -> None:
    expected = options_of(name)
    if name == "complete":
        expected -= options_of("route") - {"--json"}
    assert documented(name) == expected


def test_defaults_are_the_true_ones() -> None:
    assert f"| `--port PORT` | {DEFAULT_PORT}; " in DOCS
