"""`pointsman evaluate injection`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson
from rich.console import Console

from pointsman_server.cli.configuration import ConfigurationError
from pointsman_server.cli.console import as_shown, count, make_table, open_console
from pointsman_server.evaluation.problems import DataError

if TYPE_CHECKING:
    from pointsman_server.evaluation.injection import InjectionReport


@click.command(short_help="Prompt injections found, and harmless texts flagged.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
@click.option(
    "--predictions",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Write the score of each text as JSON lines.",
)
def injection(file: Path, as_json: bool, predictions: Path | None) -> None:
    """Judge the texts in FILE: one JSON object a line with text, and optionally id, label, kind and source.

    Labels are `injection` and `benign`; without them only scores are given.
    """
    try:
        found = _judged(file, predictions)
    except DataError as error:
        raise ConfigurationError(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"a file cannot be written: {error}") from error
    if as_json:
        plain = {name: value for name, value in orjson.loads(orjson.dumps(found)).items() if value not in (None, [])}
        click.echo(orjson.dumps(plain, option=orjson.OPT_INDENT_2))
    else:
        show_injection(open_console(), found)


def _judged(file: Path, predictions: Path | None) -> InjectionReport:
    from pointsman_server.adapters.guards.injection import shipped_detector
    from pointsman_server.evaluation.injection import judge_texts, measure_injection, read_texts, write_judgements

    texts = read_texts(file)
    detector = shipped_detector()
    judgements = judge_texts(detector.score, detector.threshold, texts)
    if predictions is not None:
        write_judgements(predictions, texts, judgements)
    return measure_injection(texts, judgements, detector.threshold)


def show_injection(console: Console, report: InjectionReport) -> None:
    """The figures there are, and the kinds."""
    console.print(f"{count(report.rows, 'text')}, {report.flagged:,} flagged at {report.threshold}\n")
    for name, value in (
        ("AUC", report.auc),
        ("attacks found", report.true_positive_rate),
        ("harmless texts flagged", report.false_positive_rate),
        ("attacks found if 1 % of the harmless were flagged", report.true_positive_rate_at_1_percent),
    ):
        if value is not None:
            console.print(f"{name}: {value:.4f}")
    if not report.kinds:
        return
    table = make_table(("label", "kind", "texts", "flagged", "share", "95 %"), right=("texts", "flagged", "share"))
    for line in report.kinds:
        interval = f"{line.low:.1%} to {line.high:.1%}"
        table.add_row(line.label, as_shown(line.kind), str(line.rows), str(line.flagged), f"{line.share:.1%}", interval)
    console.print()
    console.print(table)
