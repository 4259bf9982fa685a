"""`pointsman evaluate pii` and `pointsman evaluate secrets`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import click
import orjson
from rich.console import Console

from pointsman_server.cli.configuration import ConfigurationError
from pointsman_server.cli.console import as_shown, count, make_table, open_console
from pointsman_server.evaluation.problems import DataError
from pointsman_server.evaluation.sensitive import (
    SensitiveReport,
    TypeFigures,
    measure_findings,
    read_rows,
    write_findings,
)

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)

_View = Callable[[Console, SensitiveReport], None]


@click.command(short_help="How much personal data is found.")
@click.argument("file", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@click.option("--predictions", type=_NEW_FILE, help="Write what is found in each row as JSON lines.")
def pii(file: Path, as_json: bool, predictions: Path | None) -> None:
    """Compare what is found with the labels in FILE: one JSON object a line with text and spans.

    A span has start, end (exclusive) and type, in code points. Without spans only predictions are written.
    """
    report = _measured(file, predictions)
    _show(report, as_json, _show_personal)


@click.command(short_help="How many credentials are found.")
@click.argument("file", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@click.option("--predictions", type=_NEW_FILE, help="Write what is found in each row as JSON lines.")
def secrets(file: Path, as_json: bool, predictions: Path | None) -> None:
    """Compare what is found with the labels in FILE; rows without spans are look-alikes.

    A row is one JSON object a line with text, or text_parts to be joined, and spans: start, end (exclusive) and type.
    """
    report = _measured(file, predictions)
    _show(report, as_json, _show_credentials)


def _measured(file: Path, predictions: Path | None) -> SensitiveReport | None:
    from pointsman_server.adapters.guards.sensitive import PatternScanner

    scanner = PatternScanner()
    try:
        rows = read_rows(file)
        findings = [scanner.scan(row.text) for row in rows]
        if predictions is not None:
            write_findings(predictions, rows, findings)
    except DataError as error:
        raise ConfigurationError(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"a file cannot be written: {error}") from error
    report = measure_findings(rows, findings)
    if report is None and predictions is None:
        raise ConfigurationError(f"{file}: not every row has spans to compare with; add them or use --predictions")
    return report


def _show(report: SensitiveReport | None, as_json: bool, show: _View) -> None:
    if report is None:
        click.echo("not every row has spans, so there are no figures", err=True)
    elif as_json:
        click.echo(orjson.dumps(report.to_plain(), option=orjson.OPT_INDENT_2))
    else:
        show(open_console(), report)


def _show_personal(console: Console, report: SensitiveReport) -> None:
    console.print(f"{count(report.rows, 'row')}, {count(report.labels, 'label')}\n")
    _show_types(console, "type", report.types)
    if report.plain and report.plain != report.types:
        _show_types(console, "type, nothing obscured", report.plain)
    console.print(f"characters of structured types found   {report.character_recall:.1%}")
    console.print(f"flagged characters that are labelled   {report.character_precision:.1%}")
    _show_clean(console, "rows without labels flagged", report)


def _show_credentials(console: Console, report: SensitiveReport) -> None:
    console.print(f"{count(report.rows, 'row')}, {count(report.labels, 'credential')}\n")
    _show_types(console, "kind", report.types)
    console.print(f"credentials found with their kind      {report.recall:.1%}")
    _show_clean(console, "look-alikes flagged", report)


def _show_clean(console: Console, name: str, report: SensitiveReport) -> None:
    console.print(f"{name:<38} {report.clean_flagged:.1%} ({report.clean_rows_flagged} of {report.clean_rows})")


def _show_types(console: Console, heading: str, types: Iterable[TypeFigures]) -> None:
    headings: Sequence[str] = ("labels", "found", "precision", "recall", "F1")
    table = make_table((heading, *headings), right=headings)
    for line in types:
        shares = (f"{line.precision:.3f}", f"{line.recall:.3f}", f"{line.f1:.3f}")
        table.add_row(as_shown(line.type), str(line.labels), str(line.findings), *shares)
    console.print(table)
    console.print()
