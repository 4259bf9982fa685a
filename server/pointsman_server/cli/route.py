"""`pointsman route`."""

from __future__ import annotations

from typing import Any

import click

from pointsman_server.cli.asking import ask_options, read_ask, wrong_usage
from pointsman_server.cli.calling import connected
from pointsman_server.cli.console import open_console
from pointsman_server.cli.decision_view import show_route
from pointsman_server.cli.json_lines import whole_json


@click.command(short_help="Show which deployment would answer, and why.")
@ask_options
@click.option("--json", "as_json", is_flag=True, help="Print the response as JSON.")
def route(*, as_json: bool, **asked: Any) -> None:
    """Show which deployment would answer PROMPT, and why; nothing is asked or spent. `-` reads standard input."""
    ask = read_ask(asked)
    with connected(ask.server) as client, wrong_usage():
        response = client.route(ask.messages, **ask.options).response
    if as_json:
        click.echo(whole_json(response))
    else:
        show_route(open_console(), response)
