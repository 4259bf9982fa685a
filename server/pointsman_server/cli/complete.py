"""`pointsman complete`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import click

from pointsman.v1.answer_pb2 import Delta, Failover, StreamFailover
from pointsman_client import AnswerStream, CompletionOptions, StreamOptions, stream_response
from pointsman_server.cli.asking import Ask, ask_options, read_ask, wrong_usage
from pointsman_server.cli.calling import connected
from pointsman_server.cli.configuration import ConfigurationError
from pointsman_server.cli.console import without_controls
from pointsman_server.cli.footer import footer
from pointsman_server.cli.json_lines import json_line, whole_json

_FAILOVERS = [name.removeprefix("STREAM_FAILOVER_").lower() for name in StreamFailover.keys()[1:]]


@click.command(short_help="Ask a prompt and print the answer.")
@ask_options
@click.option("--stream/--no-stream", default=None, help="Print the answer as it comes; the default on a terminal.")
@click.option("--max-output-tokens", type=int, metavar="N", help="Most tokens of the answer.")
@click.option("--temperature", type=float, metavar="0…2", help="Randomness.")
@click.option("--schema", metavar="FILE", help="A JSON Schema that the answer must satisfy.")
@click.option("--decision", metavar="ID", help="Follow a decision of `pointsman route` for the same question.")
@click.option("--failover", type=click.Choice(_FAILOVERS), help="What to do when a stream breaks; needs --stream.")
@click.option("--json", "as_json", is_flag=True, help="Print the response as JSON; with --stream, one event per line.")
def complete(
    *,
    stream: bool | None,
    max_output_tokens: int | None,
    temperature: float | None,
    schema: str | None,
    decision: str | None,
    failover: str | None,
    as_json: bool,
    **asked: Any,
) -> None:
    """Ask PROMPT and print the answer; `-` reads the prompt from standard input.

    The answer alone goes to standard output. Which deployment gave it, tokens and cost go to standard error.
    """
    ask = read_ask(asked)
    given = {
        "max_output_tokens": max_output_tokens,
        "temperature": temperature,
        "response_schema": _schema(schema),
        "decision_id": decision,
    }
    options: dict[str, Any] = {**ask.options, **{name: value for name, value in given.items() if value is not None}}
    streaming = stream if stream is not None else sys.stdout.isatty() and not as_json
    if failover is not None and not streaming:
        raise ConfigurationError("--failover is about streams; add --stream")
    if streaming:
        _stream(ask, options | ({"failover": failover} if failover else {}), as_json=as_json)
    else:
        _ask_whole(ask, options, as_json=as_json)


def _schema(file: str | None) -> Mapping[str, Any] | None:
    if file is None:
        return None
    with wrong_usage():
        content = Path(file).read_bytes()
    try:
        schema = json.loads(content)
    except ValueError as error:
        raise ConfigurationError(f"{file} is not JSON: {error}") from error
    if not isinstance(schema, dict):
        raise ConfigurationError(f"{file} holds no JSON object")
    return schema


def _ask_whole(ask: Ask, options: dict[str, Any], *, as_json: bool) -> None:
    started_at = time.monotonic()
    with connected(ask.server) as client, wrong_usage():
        answer = client.complete(ask.messages, **cast("CompletionOptions", options))
    if as_json:
        click.echo(whole_json(answer.response))
        return
    _write(answer.text)
    _end_line(answer.text)
    click.echo(footer(answer.response, time.monotonic() - started_at), err=True)


def _stream(ask: Ask, options: dict[str, Any], *, as_json: bool) -> None:
    started_at = time.monotonic()
    with connected(ask.server) as client:
        with wrong_usage():
            stream = client.stream(ask.messages, **cast("StreamOptions", options))
        if as_json:
            for event in stream:
                click.echo(json_line(stream_response(event)))
            return
        _relay(stream)
    click.echo(footer(stream.answer.response, time.monotonic() - started_at), err=True)


def _relay(stream: AnswerStream) -> None:
    written = ""
    try:
        for event in stream:
            match event:
                case Delta(text=text) if text:
                    written = text
                    _write(text)
                case Failover():
                    _end_line(written)
                    click.echo(_failover_words(event), err=True)
    finally:
        _end_line(written)


def _failover_words(event: Failover) -> str:
    how = "goes on" if event.characters_kept else "starts again"
    return f"[{event.from_deployment} failed; the answer {how} with {event.to_deployment}]"


def _write(text: str) -> None:
    # Not click.echo: it takes escape sequences out of what is piped, and an answer is data there.
    sys.stdout.write(without_controls(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def _end_line(written: str) -> None:
    if written and not written.endswith("\n"):
        _write("\n")
