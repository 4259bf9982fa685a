"""`pointsman evaluate`."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson

from pointsman_server.adapters.embedders.sentence_encoder import EncoderMissingError, SentenceEncoder
from pointsman_server.cli.configuration import ConfigurationError
from pointsman_server.cli.console import open_console
from pointsman_server.cli.evaluate_injection import injection
from pointsman_server.cli.evaluate_sensitive import pii, secrets
from pointsman_server.cli.evaluation_view import show_confidence, show_recalibration, show_routing, show_tiers
from pointsman_server.decision.complexity import in_doubt, judge_complexity
from pointsman_server.decision.encoder import ENCODER
from pointsman_server.decision.learned import judge_name, learned
from pointsman_server.domain.plan import Complexity
from pointsman_server.domain.request import CompletionRequest
from pointsman_server.evaluation.calibration_file import recalibrate as learn
from pointsman_server.evaluation.judging import read_predictions, write_predictions
from pointsman_server.evaluation.outcomes import read_outcomes
from pointsman_server.evaluation.problems import DataError
from pointsman_server.evaluation.tiers import measure_tiers, read_labelled

if TYPE_CHECKING:
    from pointsman_server.evaluation.routing import RoutingReport

_EXTRA = ("numpy", "pyarrow")

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.group(short_help="Measure how well the router decides.")
def evaluate() -> None:
    """Measure how well the router decides, on recorded outcomes or labelled requests; no model is called."""


evaluate.add_command(pii)
evaluate.add_command(secrets)


evaluate.add_command(injection)


@evaluate.command(short_help="Cost and quality on recorded outcomes of models.")
@click.argument("folder", type=_FOLDER)
@click.option("--scores", type=_FILE, help="Take these scores, as --predictions writes them, instead of the judge's.")
@click.option("--predictions", type=_NEW_FILE, help="Write what is judged of each prompt as CSV.")
@click.option("--report", type=click.Path(file_okay=False, path_type=Path), help="Write a report with a plot there.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def routing(folder: Path, scores: Path | None, predictions: Path | None, report: Path | None, as_json: bool) -> None:
    """Measure cost and quality on FOLDER: items.parquet, scores.parquet and models.csv."""
    with _usable_files(), _extra_packages():
        found = _evaluate(folder, scores, predictions)
        if report is not None:
            _write_report(report, found, _command(folder, scores, report))
    if as_json:
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    else:
        show_routing(open_console(), found)


@evaluate.command(short_help="Whether the confidence in answers comes true.")
@click.argument("folder", type=_FOLDER)
@click.option("--scores", type=_FILE, help="Take these scores, as --predictions writes them, instead of the judge's.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def confidence(folder: Path, scores: Path | None, as_json: bool) -> None:
    """Replay FOLDER's outcomes, as `routing` takes them, each judged by its caller afterwards."""
    with _usable_files(), _extra_packages():
        from pointsman_server.evaluation.folder import read_folder
        from pointsman_server.evaluation.routing import judge_items
        from pointsman_server.evaluation.trust import measure_confidence

        data = read_folder(folder)
        ids = [item.id for item in data.items]
        verdicts = judge_items(judge_complexity, data) if scores is None else read_predictions(scores, ids)
        found = measure_confidence(data, verdicts)
    if as_json:
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    else:
        show_confidence(open_console(), found)


@evaluate.command(short_help="Tiers of labelled requests.")
@click.argument("file", type=_FILE)
@click.option("--second-look", is_flag=True, help="Judge as with `second_look: true` in the policy.")
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON.")
def tiers(file: Path, second_look: bool, as_json: bool) -> None:
    """Compare the judged tiers with the labels in FILE: one JSON object a line with id, tier and text."""
    with _usable_files():
        found = measure_tiers(_judge_twice if second_look else judge_complexity, read_labelled(file))
    if as_json:
        click.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    else:
        show_tiers(open_console(), found)


def _judge_twice(request: CompletionRequest) -> Complexity:
    texts = in_doubt(request)
    try:
        return judge_complexity(request, dict(zip(texts, _encoder().encode(texts), strict=True)) if texts else {})
    except EncoderMissingError as error:
        raise ConfigurationError(f"--second-look cannot be used: {error}. {ENCODER.remedy}") from error


@cache
def _encoder() -> SentenceEncoder:
    return SentenceEncoder(ENCODER)


@evaluate.command(short_help="Learn from your own outcomes.")
@click.argument("outcomes", type=_FILE)
@click.option("--out", type=_NEW_FILE, help="Write the calibration as JSON.")
@click.option(
    "--keep",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.95,
    show_default=True,
    help="The part of the best tier's quality that routing is to keep.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the calibration as JSON.")
def recalibrate(outcomes: Path, out: Path | None, keep: float, as_json: bool) -> None:
    """Learn probabilities from OUTCOMES (CSV, or JSON lines), and say whether routing pays."""
    with _usable_files():
        found = learn(read_outcomes(outcomes, judge_complexity), kept=keep, judge=judge_name())
        if out is not None:
            found.write(out)
    if as_json:
        click.echo(orjson.dumps(found.to_plain(), option=orjson.OPT_INDENT_2))
    else:
        show_recalibration(open_console(), found)


def _evaluate(folder: Path, scores: Path | None, predictions: Path | None) -> RoutingReport:
    from pointsman_server.evaluation import routing as whole
    from pointsman_server.evaluation.folder import read_folder

    data = read_folder(folder)
    ids = [item.id for item in data.items]
    verdicts = whole.judge_items(judge_complexity, data) if scores is None else read_predictions(scores, ids)
    if predictions is not None:
        write_predictions(predictions, ids, verdicts)
    seen = data.digest in learned()["record"]["trained_on"].values()
    return whole.evaluate(data, verdicts, judge_complexity, seen=seen, scores_from=scores.name if scores else "")


def _write_report(directory: Path, found: RoutingReport, command: str) -> None:
    from pointsman_server.evaluation.plot import draw_curves
    from pointsman_server.evaluation.report import PLOT_FILE, REPORT_FILE, write_report
    from pointsman_server.evaluation.slices import Kind

    directory.mkdir(parents=True, exist_ok=True)
    (directory / REPORT_FILE).write_text(write_report(found, command), encoding="utf-8")
    drawn = draw_curves([*found.of_kind(Kind.SOURCE), *found.of_kind(Kind.MIX)])
    (directory / PLOT_FILE).write_text(drawn, encoding="utf-8")


def _command(folder: Path, scores: Path | None, report: Path) -> str:
    """The command for the report; of an absolute path, which means nothing elsewhere, the name alone."""
    words = ["pointsman", "evaluate", "routing", _portable(folder)]
    given = ("--scores", _portable(scores)) if scores else ()
    return shlex.join([*words, *given, "--report", _portable(report)])


def _portable(path: Path) -> str:
    return path.name if path.is_absolute() else str(path)


@contextmanager
def _usable_files() -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise ConfigurationError(str(error)) from error
    except OSError as error:
        raise click.ClickException(f"a file cannot be written: {error}") from error


@contextmanager
def _extra_packages() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in _EXTRA:
            raise
        raise click.ClickException(
            f"this command needs {' and '.join(_EXTRA)}: install them with `pip install 'pointsman[evaluate]'`"
        ) from error
