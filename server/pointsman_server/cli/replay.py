"""`pointsman replay`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console

from pointsman_server.adapters.stores.decision_file import UnreadableRecordError, read_decisions, read_policy_record
from pointsman_server.cli.configuration import environment, read_policy
from pointsman_server.cli.console import as_shown, make_table, open_console, usd
from pointsman_server.config.policy_file import compile_record
from pointsman_server.config.problems import PolicyError
from pointsman_server.decision.replay import Comparison, decide_again
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.record import DecisionRecord

DIFFERS_EXIT_CODE = 3

_MOST_SHOWN = 20
_REFUSED = "(refused)"

_SnapshotOf = Callable[[DecisionRecord], Snapshot | None]


@click.command(short_help="Decide recorded decisions again.")
@click.argument("records", type=click.Path(exists=True, path_type=Path), default="var")
@click.option("--policy", metavar="FILE", help="Another policy; without it each decision's own.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON.")
def replay(records: Path, *, policy: str | None, as_json: bool) -> None:
    """Decide the decisions in RECORDS again: a state folder, `var` by default, or a file of JSON lines.

    Under its own policy every decision must come out the same; if one does not, that is a bug, and the exit code is 3.
    Under another policy the difference in models, expected cost and refusals is shown. Nothing is asked or spent.
    """
    folder = records if records.is_dir() else records.parent
    try:
        comparison, differing, skipped = _compare(read_decisions(records), _snapshots(folder, policy))
    except (OSError, UnreadableRecordError, PolicyError) as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(orjson.dumps(_plain(comparison, differing, skipped), option=orjson.OPT_INDENT_2))
    else:
        _show(open_console(), comparison, differing, skipped)
    if policy is None and differing:
        raise SystemExit(DIFFERS_EXIT_CODE)


def _snapshots(folder: Path, policy: str | None) -> _SnapshotOf:
    if policy is not None:
        snapshot = read_policy(policy, environment({})).snapshot
        return lambda record: snapshot
    known: dict[str, Snapshot | None] = {}

    def own(record: DecisionRecord) -> Snapshot | None:
        version = record.policy_version
        if version not in known:
            kept = read_policy_record(folder, version)
            known[version] = compile_record(kept) if kept else None
        return known[version]

    return own


def _compare(records: Iterator[DecisionRecord], snapshot_of: _SnapshotOf) -> tuple[Comparison, list[str], int]:
    comparison, differing, skipped = Comparison(), list[str](), 0
    for record in records:
        snapshot = snapshot_of(record)
        if snapshot is None:
            skipped += 1
            continue
        again = decide_again(record, snapshot)
        comparison.add(record.outcome, again)
        if again != record.outcome:
            differing.append(record.decision_id)
    return comparison, differing, skipped


def _plain(comparison: Comparison, differing: list[str], skipped: int) -> dict[str, Any]:
    return {
        "decisions": comparison.decisions,
        "same": comparison.same,
        "newly_refused": comparison.newly_refused,
        "newly_answered": comparison.newly_answered,
        "cost_before_micro_usd": comparison.cost_before_micro_usd,
        "cost_after_micro_usd": comparison.cost_after_micro_usd,
        "moves": [{"from": old, "to": new, "count": count} for (old, new), count in _most_first(comparison)],
        "differing": differing,
        "skipped_without_policy": skipped,
    }


def _show(console: Console, comparison: Comparison, differing: list[str], skipped: int) -> None:
    console.print(f"decisions      {comparison.decisions:,}")
    console.print(f"same           {comparison.same:,}")
    console.print(f"newly refused  {comparison.newly_refused:,}")
    console.print(f"newly answered {comparison.newly_answered:,}")
    before, after = comparison.cost_before_micro_usd, comparison.cost_after_micro_usd
    change = f" ({(after - before) / before:+.1%})" if before else ""
    console.print(f"expected cost  {usd(before)} before, {usd(after)} after{change}")
    if skipped:
        console.print(f"skipped        {skipped:,}: their policy was not kept")
    if comparison.moves:
        console.print()
        table = make_table(("from", "to", "decisions"), right=("decisions",))
        for (old, new), count in _most_first(comparison)[:_MOST_SHOWN]:
            table.add_row(as_shown(old or _REFUSED), as_shown(new or _REFUSED), f"{count:,}")
        console.print(table)
    for decision_id in differing[:_MOST_SHOWN]:
        console.print(as_shown(f"differs: {decision_id}"))


def _most_first(comparison: Comparison) -> list[tuple[tuple[str, str], int]]:
    return sorted(comparison.moves.items(), key=lambda move: (-move[1], move[0]))
