"""`pointsman ledger`."""

from __future__ import annotations

import time
from typing import Any

import click
import orjson

from pointsman_server.adapters.stores.sql.usage import BudgetCheck, UsageReader, Verification
from pointsman_server.cli.console import as_shown, count, make_table, open_console, usd
from pointsman_server.cli.database import with_database
from pointsman_server.execution.bookkeeping import KEPT_SECONDS

WRONG_EXIT_CODE = 3


@click.group(short_help="Check the books.")
def ledger() -> None:
    """Check the books, in the database that POINTSMAN_DATABASE_URL names."""


@ledger.command(short_help="Prove that all sums are right.")
@click.option("--json", "as_json", is_flag=True, help="Print the finding as JSON.")
def verify(as_json: bool) -> None:
    """Compare the entries of all attempts with the sums of their days and with the budgets, to the micro-USD.

    Servers may run meanwhile. The exit code is 3 when something is wrong.
    """
    kept_since = time.time() - KEPT_SECONDS
    found = with_database(lambda database: UsageReader(database).verify(kept_since))
    if as_json:
        click.echo(orjson.dumps(_plain(found), option=orjson.OPT_INDENT_2))
    else:
        _show(found)
    if found.problems:
        raise SystemExit(WRONG_EXIT_CODE)


def _plain(found: Verification) -> dict[str, Any]:
    return {
        "days": found.days,
        "entries": found.entries,
        "budgets": [_plain_budget(check) for check in found.budgets],
        "problems": list(found.problems),
    }


def _plain_budget(check: BudgetCheck) -> dict[str, Any]:
    return {
        **check.key._asdict(),
        "settled_micro_usd": check.view.settled_micro_usd,
        "booked_micro_usd": check.booked_micro_usd,
        "lost_micro_usd": check.view.lost_micro_usd,
        "leased_micro_usd": check.view.leased_micro_usd,
    }


def _show(found: Verification) -> None:
    console = open_console()
    if found.budgets:
        numbers = ("settled", "entries", "lost", "leased")
        table = make_table(("tenant", "budget", "period", *numbers), right=numbers)
        for check in found.budgets:
            booked = "gone" if check.booked_micro_usd is None else usd(check.booked_micro_usd)
            names = map(as_shown, check.key)
            view = check.view
            table.add_row(
                *names, usd(view.settled_micro_usd), booked, usd(view.lost_micro_usd), usd(view.leased_micro_usd)
            )
        console.print(table)
        console.print()
    for problem in found.problems:
        console.print(as_shown(f"wrong: {problem}"))
    wrong = count(len(found.problems), "problem") if found.problems else "all sums are right"
    attempts, days, budgets = found.entries, found.days, len(found.budgets)
    console.print(f"{count(attempts, 'attempt')}, {count(days, 'day')}, {count(budgets, 'budget')}: {wrong}")
