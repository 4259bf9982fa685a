"""How well a detector tells prompt injections from harmless texts."""

from __future__ import annotations

import json
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pointsman_server.domain.injection import Source
from pointsman_server.evaluation.figures import wilson_interval
from pointsman_server.evaluation.problems import DataError

ATTACK, BENIGN = "injection", "benign"

_LABELS: dict[object, bool] = {ATTACK: True, BENIGN: False, 1: True, 0: False, "1": True, "0": False}
_SOURCES = {source.value: source for source in Source}

Score = Callable[[str, Source], float]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text; `attack` is None if nobody has said what it is. Without an id its row in a file has none either."""

    id: str | int | None
    text: str
    attack: bool | None
    kind: str
    source: Source


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a detector says of a text."""

    score: float
    flagged: bool


@dataclass(frozen=True, slots=True)
class KindFigures:
    """How many texts of a kind were flagged; the interval holds 95 %."""

    label: str
    kind: str
    rows: int
    flagged: int
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class InjectionReport:
    """What a detector makes of texts. Without labels of both sorts, figures that need them are None."""

    rows: int
    flagged: int
    threshold: float
    auc: float | None
    true_positive_rate: float | None
    false_positive_rate: float | None
    true_positive_rate_at_1_percent: float | None
    kinds: Sequence[KindFigures]


def read_texts(file: Path) -> list[Labelled]:
    """One text a line as JSON: text, and optionally id, label, kind, source, lang. Raises `DataError`.

    A `source` that is `document` or `tool_result` says where the text came from; any other is taken for a user's.
    """
    try:
        lines = file.read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text; name a file with one JSON object a line") from error
    found = [_labelled(file, number, line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not found:
        raise DataError(f"{file}: there are no texts in it")
    return found


def _labelled(file: Path, number: int, line: str) -> Labelled:
    try:
        row: dict[str, Any] = json.loads(line)
        text, label, name = row["text"], row.get("label"), row.get("id")
        if not isinstance(text, str) or not isinstance(name, str | int | None):
            raise TypeError
        attack = None if label is None else _LABELS[label]
        kind, source = str(row.get("kind") or ""), str(row.get("source") or "")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{file}, line {number}: needs a JSON object with a text; id, label ({ATTACK} or {BENIGN}), kind and "
            "source may follow"
        ) from error
    return Labelled(name, text, attack, kind, _SOURCES.get(source, Source.USER))


def judge_texts(score: Score, threshold: float, texts: Sequence[Labelled]) -> list[Judgement]:
    """What a detector says of each text."""
    scores = [score(one.text, one.source) for one in texts]
    return [Judgement(value, value >= threshold) for value in scores]


def measure_injection(texts: Sequence[Labelled], judgements: Sequence[Judgement], threshold: float) -> InjectionReport:
    """Compares with the labels, as far as there are any."""
    pairs = list(zip(texts, judgements, strict=True))
    attacks = sorted(judged.score for text, judged in pairs if text.attack is True)
    benign = sorted(judged.score for text, judged in pairs if text.attack is False)
    both = bool(attacks and benign)
    return InjectionReport(
        rows=len(texts),
        flagged=sum(judged.flagged for judged in judgements),
        threshold=threshold,
        auc=_area(attacks, benign) if both else None,
        true_positive_rate=_part_from(attacks, threshold),
        false_positive_rate=_part_from(benign, threshold),
        true_positive_rate_at_1_percent=_found_at(attacks, benign, 0.01) if both else None,
        kinds=_kinds(pairs),
    )


def _area(attacks: Sequence[float], benign: Sequence[float]) -> float:
    """How often an attack has the higher score, of all pairs; equal scores count half."""
    wins = sum(bisect_left(benign, score) + bisect_right(benign, score) for score in attacks)
    return wins / (2 * len(attacks) * len(benign))


def _part_from(ascending: Sequence[float], threshold: float) -> float | None:
    return (len(ascending) - bisect_left(ascending, threshold)) / len(ascending) if ascending else None


def _found_at(attacks: Sequence[float], benign: Sequence[float], part: float) -> float:
    """The part of attacks above a threshold that lets so much of the benign through as flagged."""
    threshold = benign[len(benign) - 1 - int(len(benign) * part)]
    return (len(attacks) - bisect_right(attacks, threshold)) / len(attacks)


def _kinds(pairs: Sequence[tuple[Labelled, Judgement]]) -> list[KindFigures]:
    found: dict[tuple[str, str], list[bool]] = {}
    for text, judged in pairs:
        if text.attack is not None:
            found.setdefault((ATTACK if text.attack else BENIGN, text.kind), []).append(judged.flagged)
    return [
        KindFigures(*of, len(flags), sum(flags), sum(flags) / len(flags), *wilson_interval(sum(flags), len(flags)))
        for of, flags in sorted(found.items())
    ]


def write_judgements(file: Path, texts: Sequence[Labelled], judgements: Sequence[Judgement]) -> None:
    """One row a text, in order: its id if it has one, the score, and whether it is flagged. No text."""
    with file.open("wb") as lines:
        for text, judged in zip(texts, judgements, strict=True):
            row: dict[str, object] = {} if text.id is None else {"id": text.id}
            lines.write(orjson.dumps({**row, "score": judged.score, "flagged": judged.flagged}) + b"\n")
