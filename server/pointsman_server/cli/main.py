"""The command `pointsman`: one module for each of its commands."""

from __future__ import annotations

import io
import os
import sys
from importlib import import_module

import click

_COMMANDS = (
    "serve",
    "simulate",
    "preflight",
    "route",
    "complete",
    "embed",
    "feedback",
    "keys",
    "flags",
    "kill",
    "policy",
    "traces",
    "usage",
    "ledger",
    "replay",
    "evaluate",
)


class _Commands(click.Group):
    """Imports a command's module when that command is wanted, so that asking a server need not import one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"pointsman_server.cli.{cmd_name}"), cmd_name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="pointsman", message="pointsman %(version)s")
def commands() -> None:
    """The smart gRPC router between services and the LLMs they call."""


def main() -> None:
    """Runs the command that the arguments name, and exits."""
    # gRPC writes lines of its own to standard error, between our JSON lines; what matters reaches us as errors.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a character of an answer shows a question mark instead.
            stream.reconfigure(errors="replace")
    commands(prog_name="pointsman")
