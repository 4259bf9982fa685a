"""`pointsman feedback`."""

from __future__ import annotations

import click

from pointsman_server.cli.asking import wrong_usage
from pointsman_server.cli.calling import connected
from pointsman_server.cli.server_option import Server, server_option


@click.command(short_help="Say how good an answer was.")
@click.argument("request_id")
@click.argument("score", type=float)
@server_option
@click.option("--label", metavar="TEXT", default="", help="What the verdict is about; a task type corrects the judged.")
def feedback(request_id: str, score: float, *, server: Server, label: str) -> None:
    """Say how good the answer to REQUEST_ID was: SCORE is between 0 (useless) and 1 (perfect).

    `pointsman complete --json` shows an answer's request id. A second verdict replaces the first.
    """
    with connected(server) as client, wrong_usage():
        client.record_feedback(request_id, score, label)
    click.echo(f"taken: {score:g} for {request_id}")
