"""`pointsman embed`."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import click

from pointsman.v1.completion_pb2 import DataClass
from pointsman_client import Embeddings, EmbedOptions
from pointsman_server.cli.asking import label_pairs, names_of, wrong_usage
from pointsman_server.cli.calling import connected
from pointsman_server.cli.console import make_table, open_console
from pointsman_server.cli.footer import footer_of_vectors
from pointsman_server.cli.json_lines import whole_json
from pointsman_server.cli.server_option import Server, server_option

_SHOWN = 4
"""Components of a vector in the table, of hundreds or thousands."""


@click.command(short_help="Turn texts into vectors.")
@click.argument("texts", metavar="[TEXT|-]...", nargs=-1)
@click.option("--lines", metavar="FILE", help="A UTF-8 file with a text on every line; empty lines are left out.")
@click.option("--deployment", metavar="NAME", help="Pin a deployment, and with it its model, by id or alias.")
@click.option("--dimensions", type=int, metavar="N", help="Length of the vectors, where the model can choose.")
@click.option("--data-class", type=names_of(DataClass, "DATA_CLASS_"), help="How sensitive the data is.")
@click.option("--label", metavar="KEY=VALUE", multiple=True, callback=label_pairs, help="A label; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print the response as JSON, with the whole vectors.")
@server_option
def embed(
    *,
    server: Server,
    texts: Sequence[str],
    lines: str | None,
    label: Sequence[tuple[str, str]],
    as_json: bool,
    **given: Any,
) -> None:
    """Turn every TEXT into a vector; `-` reads texts from standard input, one on every line.

    A table of the vectors goes to standard output. Who made them, tokens and cost go to standard error.
    """
    asked = _texts(texts, lines)
    options = {name: value for name, value in given.items() if value is not None}
    if label:
        options["labels"] = dict(label)
    started_at = time.monotonic()
    with connected(server) as client, wrong_usage():
        made = client.embed(asked, **cast("EmbedOptions", options))
    if as_json:
        click.echo(whole_json(made.response))
        return
    _show(made)
    click.echo(footer_of_vectors(made.response, time.monotonic() - started_at), err=True)


def _texts(arguments: Sequence[str], file: str | None) -> Sequence[str]:
    if not arguments and file is None:
        raise click.UsageError("Missing argument 'TEXT|-'; only --lines FILE can do without it.")
    with wrong_usage():
        texts = [text for argument in arguments for text in _meant(argument)]
        texts += [] if file is None else _lines_of(Path(file).read_bytes())
    if not texts:
        raise click.UsageError("there is no text: every line is empty")
    return texts


def _meant(argument: str) -> Sequence[str]:
    return _lines_of(sys.stdin.buffer.read()) if argument == "-" else [argument]


def _lines_of(content: bytes) -> Sequence[str]:
    # Not splitlines: it parts a text at characters that end no line of a file.
    lines = (line.removesuffix("\r") for line in content.decode().split("\n"))
    return [line for line in lines if line.strip()]


def _show(made: Embeddings) -> None:
    table = make_table(("text", "dimensions", "first values"), right=("text", "dimensions"))
    for number, vector in enumerate(made.vectors):
        table.add_row(str(number), f"{len(vector):,}", " ".join(_first(vector)))
    open_console().print(table)


def _first(vector: Sequence[float]) -> Iterator[str]:
    yield from (f"{value:+.4f}" for value in vector[:_SHOWN])
    if len(vector) > _SHOWN:
        yield "…"
