"""Trains the detector of prompt injections, and writes it as the data file that ships with the package.

Run as part of `make train`, or as `python -m training.injection ROWS.jsonl EXAM.parquet OUT`. The same files give the
same detector. A quarter of the rows is held out: neither the detector nor its threshold has seen them, and the record
tells how it does on them. The threshold is fixed on the development part alone, where every row is judged by a detector
of other rows, and once more by one of other sources.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import exp
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from training.injection_augment import augmented, own_rows
from training.injection_documents import documents
from training.injection_everyday import buried, everyday, exam_prompts, planted
from training.injection_model import (
    Floats,
    Judged,
    best_logits,
    exported,
    inputs_of,
    train_last,
    train_weights,
    without_last,
)
from training.injection_rows import OWN, Row, digest_of, fold_of, parts, read_rows, where

from pointsman_server.adapters.guards.injection import LearnedInjectionDetector
from pointsman_server.domain.injection import Source
from pointsman_server.evaluation.injection import Judgement, Labelled, measure_injection

FORMAT = 1
FOLDS = 4
BENIGN_FLAGGED, BENIGN_FLAGGED_OF_ONE, STRANGERS_FLAGGED = 0.005, 0.01, 0.02
"""The part of benign development rows that the threshold lets be flagged: half of what is promised, for some room; the
part of those of any one source, since texts from elsewhere are rather like those that are hard; and the part of all of
them when nothing of their source was there to learn from. The last is the strictest, and has the most rows to go by."""
ENOUGH_ROWS = 100
"""Of a source, to tell one in a hundred."""

_SOURCE_NAME = re.compile("[: ]")
_SEED = 3
_OWN_EVERY = 2
"""One in so many own texts is there when the last step is trained: it is to weigh rows as others write them."""

_FAMILIES_OF_SOURCES = (
    "garak",
    "PyRIT",
    "PurpleLlama:prompt",
    "PurpleLlama:mitre",
    "BIPIA",
    "ASB",
    "NotInject",
    "WildGuard",
    "XSTest",
    "Self-Inst",
    "Vicuna",
    "JBB",
)


class Unseen(NamedTuple):
    """Logits of the development rows by detectors that have not seen them, and have not seen their sources."""

    rows: Floats
    strangers: Mapping[str, Floats]


def train(file: Path, exam: Path) -> dict[str, Any]:
    """The content of the data file."""
    development, held_out = parts(read_rows(file))
    own = [*own_rows(), *documents(), *everyday(), *planted(), *buried(), *exam_prompts(exam)]
    judged, judged_own = _judged_unseen(development, own)
    together = Judged([*judged.rows, *judged_own.rows], [*judged.inputs, *judged_own.inputs])
    strangers = _judged_as_strangers(development, own)
    unseen = {source: _unseen(judged, judged_own, strangers, source) for source in (Source.USER, Source.DOCUMENT)}
    thresholds = {source: _threshold(judged.rows, strangers, its) for source, its in unseen.items()}
    threshold = thresholds[Source.USER]
    aligned = {
        source: step._replace(bias=step.bias + threshold - of_its_own)
        for source, of_its_own in thresholds.items()
        for step in [train_last(together, source)]
    }
    last = {source: aligned[Source.USER if source.trusted else Source.DOCUMENT] for source in Source}
    weights, unit = train_weights([*development, *own, *augmented([*development, *own], _SEED)])
    data = {"format": FORMAT, "threshold": round(_probability(threshold), 4), **exported(weights, unit, last)}
    detector = LearnedInjectionDetector.load(data)
    scores = [_probability(one) for one in unseen[Source.USER].rows]
    data["record"] = {
        "trained_on": {one.name: _sha256(one) for one in (file, exam, *sorted(OWN.iterdir()))},
        "rows": {"development": len(development), "held_out": len(held_out), "own": len(own)},
        "held_out_ids_sha256": digest_of(held_out),
        "development": _figures(judged.rows, scores, detector.threshold),
        "left_out_sources": _figures_of_strangers(strangers, unseen[Source.USER].strangers, threshold),
        "held_out": _figures(held_out, [detector.score(row.text, Source.USER) for row in held_out], detector.threshold),
        "held_out_as_documents": _figures(
            held_out, [detector.score(row.text, Source.DOCUMENT) for row in held_out], detector.threshold
        ),
    }
    return data


def _judged_unseen(development: Sequence[Row], own: Sequence[Row]) -> tuple[Judged, Judged]:
    """Every row by weights that have not seen its group."""
    found: dict[str, Floats] = {}
    for number in range(FOLDS):
        seen = where([*development, *own], _outside_fold(number))
        detector = without_last(*train_weights([*seen, *augmented(seen, _SEED + number)]))
        for row in where([*development, *own], _in_fold(number)):
            found[row.id] = inputs_of(detector, row)
        _say(f"fold {number + 1} of {FOLDS}")
    kept = list(own[::_OWN_EVERY])
    return Judged(development, [found[row.id] for row in development]), Judged(kept, [found[row.id] for row in kept])


def _judged_as_strangers(development: Sequence[Row], own: Sequence[Row]) -> dict[str, Judged]:
    """The rows of each collection by weights that have seen none of it."""
    found: dict[str, Judged] = {}
    for family in _FAMILIES_OF_SOURCES:
        left, seen = where(development, _from(family)), where(development, _from_elsewhere(family))
        detector = without_last(*train_weights([*seen, *own, *augmented([*seen, *own], _SEED)]))
        found[family] = Judged(left, [inputs_of(detector, row) for row in left])
        _say(f"without {family}")
    return found


def _unseen(judged: Judged, own: Judged, strangers: Mapping[str, Judged], source: Source) -> Unseen:
    together = Judged([*judged.rows, *own.rows], [*judged.inputs, *own.inputs])
    logits: dict[str, Floats] = {}
    for family, left in strangers.items():
        step = train_last(_part(together, Judged([], []), _from_elsewhere(family)), source)
        logits[family] = best_logits(step, left.inputs)
    return Unseen(_unseen_logits(judged, own, source), logits)


def _unseen_logits(judged: Judged, own: Judged, source: Source) -> Floats:
    """Of the development rows, by last steps that have not seen them either."""
    logits = np.zeros(len(judged.rows))
    for number in range(FOLDS):
        step = train_last(_part(judged, own, _outside_fold(number)), source)
        places = [place for place, row in enumerate(judged.rows) if fold_of(row, FOLDS) == number]
        logits[places] = best_logits(step, [judged.inputs[place] for place in places])
    return logits


def _part(judged: Judged, own: Judged, keep: Callable[[Row], bool]) -> Judged:
    pairs = [pair for one in (judged, own) for pair in zip(one.rows, one.inputs, strict=True) if keep(pair[0])]
    return Judged([row for row, _ in pairs], [inputs for _, inputs in pairs])


def _threshold(rows: Sequence[Row], strangers: Mapping[str, Judged], unseen: Unseen) -> float:
    """The least that flags no more benign rows than it may: of all, of every source with enough, and as strangers."""
    of_source: dict[str, list[float]] = defaultdict(list)
    for row, logit in zip(rows, unseen.rows, strict=True):
        if not row.attack:
            of_source[_SOURCE_NAME.split(row.source)[0]].append(float(logit))
    everything = [logit for several in of_source.values() for logit in several]
    single = [_between(one, BENIGN_FLAGGED_OF_ONE) for one in of_source.values() if len(one) >= ENOUGH_ROWS]
    strange = [
        float(logit)
        for family, left in strangers.items()
        for row, logit in zip(left.rows, unseen.strangers[family], strict=True)
        if not row.attack
    ]
    return max(_between(everything, BENIGN_FLAGGED), _between(strange, STRANGERS_FLAGGED), *single)


def _between(logits: Sequence[float], part: float) -> float:
    """Between the last that may be flagged and the next."""
    ordered = sorted(logits, reverse=True)
    place = int(len(ordered) * part)
    return (ordered[place - 1] + ordered[place]) / 2


def _in_fold(number: int) -> Callable[[Row], bool]:
    return lambda row: fold_of(row, FOLDS) == number


def _outside_fold(number: int) -> Callable[[Row], bool]:
    return lambda row: fold_of(row, FOLDS) != number


def _from(family: str) -> Callable[[Row], bool]:
    return lambda row: row.source.startswith(family)


def _from_elsewhere(family: str) -> Callable[[Row], bool]:
    return lambda row: not row.source.startswith(family)


def _figures_of_strangers(
    strangers: Mapping[str, Judged], logits: Mapping[str, Floats], threshold: float
) -> dict[str, Any]:
    """What is found of each source when no row of it was there to learn from; and of all these rows together."""
    found: dict[str, Any] = {}
    for family, left in strangers.items():
        found[family] = {
            label: {"rows": len(chosen), "flagged": round(float((chosen >= threshold).mean()), 4)}
            for label, attack in (("injection", True), ("benign", False))
            if len(chosen := logits[family][[row.attack is attack for row in left.rows]])
        }
        _say(f"without {family}: {found[family]}")
    rows = [row for left in strangers.values() for row in left.rows]
    scores = [_probability(logit) for family in strangers for logit in logits[family]]
    return {**found, "together": _figures(rows, scores, _probability(threshold))}


def _figures(rows: Sequence[Row], scores: Sequence[float], threshold: float) -> dict[str, Any]:
    labelled = [Labelled(row.id, row.text, row.attack, row.kind, Source.USER) for row in rows]
    report = measure_injection(labelled, [Judgement(score, score >= threshold) for score in scores], threshold)
    _say(f"{report.rows} rows: AUC {report.auc}, found {report.true_positive_rate}, wrong {report.false_positive_rate}")
    return {
        "auc": _rounded(report.auc),
        "true_positive_rate": _rounded(report.true_positive_rate),
        "false_positive_rate": _rounded(report.false_positive_rate),
        "kinds": {
            f"{line.label} {line.kind}": {"rows": line.rows, "flagged": _rounded(line.share)} for line in report.kinds
        },
    }


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _probability(logit: float) -> float:
    return 1.0 / (1.0 + exp(-logit))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    rows_file, exam_file, out = sys.argv[1:]
    content = train(Path(rows_file), Path(exam_file))
    Path(out).write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")
