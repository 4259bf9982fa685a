"""`pointsman traces`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from pointsman.v1 import admin_service_pb2 as pb
from pointsman.v1.answer_pb2 import Attempt, AttemptError, AttemptOutcome, AttemptPurpose
from pointsman_server.cli.console import as_shown, make_table, moment, open_console, seconds, usd
from pointsman_server.cli.decision_view import show_decision
from pointsman_server.cli.json_lines import json_line, whole_json
from pointsman_server.cli.operating import all_pages, operating
from pointsman_server.cli.server_option import Server, server_option

_MOST_OF_A_PAGE = 1_000
_TIME = click.DateTime(formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])
_NUMBERS = ("took", "cost")


@click.group(short_help="Look at recorded calls.")
def traces() -> None:
    """Look at the calls that a running server recorded; the policy's `traces` says which and how much of them."""


@traces.command("list", short_help="List recorded calls.")
@click.option("--tenant", metavar="ID", default="", help="Only this tenant.")
@click.option("--model", metavar="ID", default="", help="Only this model.")
@click.option("--outcome", metavar="CODE", default="", help="Only this gRPC code: OK, UNAVAILABLE, ...")
@click.option("--since", type=_TIME, metavar="TIME", help="From this time on, as 2026-11-21 or 2026-11-21T18:30 (UTC).")
@click.option("--until", type=_TIME, metavar="TIME", help="Before this time.")
@click.option("--limit", type=click.IntRange(1), metavar="N", default=50, show_default=True, help="At most so many.")
@server_option
@click.option("--json", "as_json", is_flag=True, help="Print the calls as JSON, one in a line.")
def list_traces(
    *,
    tenant: str,
    model: str,
    outcome: str,
    since: datetime | None,
    until: datetime | None,
    limit: int,
    server: Server,
    as_json: bool,
) -> None:
    """List recorded calls, newest first."""
    asked = pb.ListTracesRequest(
        tenant=tenant,
        model=model,
        outcome=outcome,
        start_time=_timestamp(since),
        end_time=_timestamp(until),
        page_size=min(limit, _MOST_OF_A_PAGE),
    )
    found = _collect(server, asked, limit)
    if as_json:
        for one in found:
            click.echo(json_line(one))
    elif found:
        _show_list(found)
    else:
        click.echo("no such call is recorded")


@traces.command("show", short_help="Show a recorded call with its decision.")
@click.argument("request_id")
@server_option
@click.option("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def show_trace(*, request_id: str, server: Server, as_json: bool) -> None:
    """Show the last recorded call with this request id: decision, attempts, labels, and masked texts if there are."""
    with operating(server) as admin:
        trace = admin.GetTrace(pb.GetTraceRequest(request_id=request_id)).trace
    if as_json:
        click.echo(whole_json(trace))
    else:
        _show(open_console(), trace)


def _collect(server: Server, asked: pb.ListTracesRequest, limit: int) -> list[pb.TraceSummary]:
    found: list[pb.TraceSummary] = []
    with operating(server) as admin:

        def ask(token: str) -> Any:
            asked.page_token = token
            return admin.ListTraces(asked)

        for page in all_pages(ask):
            found += page.traces
            if len(found) >= limit:
                break
    return found[:limit]


def _show_list(found: Sequence[pb.TraceSummary]) -> None:
    table = make_table(("time", "request", "tenant", "model", "outcome", *_NUMBERS), right=_NUMBERS)
    for one in found:
        names = (one.request_id, one.tenant, one.model or "-", one.outcome)
        table.add_row(_moment(one), *map(as_shown, names), _took(one), usd(one.cost_micro_usd))
    open_console().print(table)


def _show(console: Console, trace: pb.Trace) -> None:
    line = trace.summary
    about = {
        "request": line.request_id,
        "time": _moment(line),
        "took": _took(line),
        "tenant": line.tenant,
        "model": line.model or "none",
        "outcome": line.outcome,
        "cost": usd(line.cost_micro_usd),
        "labels": ", ".join(f"{name}={value}" for name, value in sorted(trace.labels.items())) or "none",
    }
    for name, value in about.items():
        console.print(as_shown(f"{name:<12}{value}"))
    if trace.HasField("decision"):
        console.print()
        show_decision(console, trace.decision, line.request_id)
    if trace.attempts:
        _show_attempts(console, trace.attempts)
    for name, text in (("Prompt, masked", trace.masked_prompt), ("Answer, masked", trace.masked_answer)):
        if text:
            console.print(f"\n{name}", style="bold")
            console.print(as_shown(text))


def _show_attempts(console: Console, attempts: Iterable[Attempt]) -> None:
    console.print("\nAttempts", style="bold")
    table = make_table(("deployment", "purpose", "outcome", "error", *_NUMBERS), right=_NUMBERS)
    for one in attempts:
        error = AttemptError.Name(one.error).removeprefix("ATTEMPT_ERROR_").lower() if one.error else ""
        table.add_row(
            as_shown(one.deployment),
            AttemptPurpose.Name(one.purpose).removeprefix("ATTEMPT_PURPOSE_").lower(),
            AttemptOutcome.Name(one.outcome).removeprefix("ATTEMPT_OUTCOME_").lower(),
            as_shown(f"{error}: {one.error_detail}" if error else "-"),
            seconds(one.latency.ToMicroseconds() / 1e6),
            usd(one.cost_micro_usd),
        )
    console.print(table)


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(time.replace(tzinfo=UTC))
    return timestamp


def _moment(line: pb.TraceSummary) -> str:
    return moment(line.start_time.seconds)


def _took(line: pb.TraceSummary) -> str:
    return seconds(line.latency.ToMicroseconds() / 1e6)
