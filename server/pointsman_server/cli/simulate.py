"""`pointsman simulate`."""

from __future__ import annotations

import click

from pointsman_server.cli.configuration import ConfigurationError
from pointsman_server.simulator.behaviour import Script
from pointsman_server.simulator.script import ScriptError, load_script
from pointsman_server.simulator.server import DEFAULT_PORT, LOOPBACK, run_simulator


@click.command(short_help="Play all providers, for trials and tests.")
@click.option("--host", default=LOOPBACK, show_default=True, help="The address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=DEFAULT_PORT, show_default=True, help="0: any free one.")
@click.option("--script", metavar="FILE", help="YAML or JSON: which calls are answered how.")
def simulate(host: str, port: int, script: str | None) -> None:
    """Play all providers over HTTP until SIGTERM or SIGINT; no language model is asked."""
    rules = None if script is None else _read_script(script)
    try:
        run_simulator(host, port, rules, on_ready=_announce)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise click.ClickException(
            f"cannot listen on {host}, port {port}: {reason}\nStop what runs there, or choose another: --port 0"
        ) from error


def _read_script(file: str) -> Script:
    try:
        return load_script(file)
    except ScriptError as error:
        raise ConfigurationError(f"the script cannot be used:\n{error}") from error


def _announce(base_url: str) -> None:
    click.echo(f"the simulator listens on {base_url}; name it as a provider's base_url in a policy")
