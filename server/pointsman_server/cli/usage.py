"""`pointsman usage`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

import click
import orjson

from pointsman_server.adapters.stores.sql.usage import UsageReader
from pointsman_server.cli.configuration import ConfigurationError
from pointsman_server.cli.console import as_shown, make_table, open_console, usd
from pointsman_server.cli.database import with_database
from pointsman_server.domain.ledger import UsageDimension, UsageQuery, UsageRow

_COUNTS = ("calls", "input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens")
_FIELDS = {
    UsageDimension.TENANT: "tenant",
    UsageDimension.MODEL: "model",
    UsageDimension.DAY: "day",
    UsageDimension.LABEL: "label_value",
}
_DATE = click.DateTime(formats=["%Y-%m-%d"])


def _dimensions(ctx: click.Context, param: click.Parameter, value: str) -> list[UsageDimension]:
    names = {dimension.value: dimension for dimension in UsageDimension}
    words = [word.strip() for word in value.split(",") if word.strip()]
    if unknown := [word for word in words if word not in names]:
        raise click.BadParameter(f"{', '.join(unknown)}: choose from {', '.join(names)}, with commas between them")
    return [names[word] for word in dict.fromkeys(words)]


@click.command(short_help="Show what was used and what it cost.")
@click.option("--by", metavar="LIST", default="tenant", callback=_dimensions, help="tenant, model, day, label.")
@click.option("--label", metavar="NAME", default="", help="The label whose values `--by label` groups by.")
@click.option("--since", type=_DATE, metavar="DATE", help="Days from this one on, as 2026-11-21 (UTC).")
@click.option("--until", type=_DATE, metavar="DATE", help="Days before this one.")
@click.option("--tenant", metavar="ID", default="", help="Only this tenant.")
@click.option("--json", "as_json", is_flag=True, help="Print the rows as JSON.")
def usage(
    by: Sequence[UsageDimension],
    label: str,
    since: datetime | None,
    until: datetime | None,
    tenant: str,
    as_json: bool,
) -> None:
    """Show calls, tokens and cost, from the ledger in the database that POINTSMAN_DATABASE_URL names.

    A call that was answered a moment ago is there within a second. Days are those of UTC.
    """
    if bool(label) != (UsageDimension.LABEL in by):
        raise ConfigurationError("--label NAME and --by label go together: neither means anything without the other")
    query = UsageQuery(frozenset(by), label, _day(since), _day(until), tenant)
    rows = with_database(lambda database: UsageReader(database).usage(query))
    if as_json:
        click.echo(orjson.dumps([_plain(row, by) for row in rows], option=orjson.OPT_INDENT_2))
    else:
        _show(rows, by, label)


def _day(date: datetime | None) -> str:
    return "" if date is None else date.date().isoformat()


def _plain(row: UsageRow, by: Sequence[UsageDimension]) -> dict[str, Any]:
    left_out = {field for dimension, field in _FIELDS.items() if dimension not in by}
    return {name: value for name, value in asdict(row).items() if name not in left_out}


def _show(rows: Sequence[UsageRow], by: Sequence[UsageDimension], label: str) -> None:
    groups = [label if dimension is UsageDimension.LABEL else dimension.value for dimension in by]
    numbers = ("calls", "input", "cached", "output", "reasoning", "cost", "of it estimated")
    table = make_table((*groups, *numbers), right=numbers)
    for row in rows:
        values = (as_shown(getattr(row, _FIELDS[dimension]) or "-") for dimension in by)
        counts = (f"{getattr(row, name):,}" for name in _COUNTS)
        table.add_row(*values, *counts, usd(row.cost_micro_usd), usd(row.estimated_cost_micro_usd))
    open_console().print(table)
