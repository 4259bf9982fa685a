"""How well a scanner finds labelled personal data or credentials."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from pointsman_server.domain.sensitive import Finding
from pointsman_server.evaluation.problems import DataError

Scan = Callable[[str], Sequence[Finding]]

UNSTRUCTURED = frozenset(
    {"PERSON", "ADDRESS", "LOCATION", "ORGANIZATION", "TITLE", "AGE", "NRP", "DATE_TIME", "ZIP_CODE", "URL",
     "US_DRIVER_LICENSE"}
)  # fmt: skip
"""Types that have no form of their own; the recall of characters leaves them out."""

_LEAST_OVERLAP = 0.5
"""A finding is right if it has the label's type and shares this part of what both cover together."""


@dataclass(frozen=True, slots=True)
class Row:
    """A text; `labels` is None where the file says nothing of what is in it."""

    text: str
    id: str | int | None = None
    labels: tuple[Finding, ...] | None = None
    obscured: bool = False


@dataclass(frozen=True, slots=True)
class TypeFigures:
    """Of one type: labels, findings, and how many of each are right."""

    type: str
    labels: int
    findings: int
    right: int

    @property
    def precision(self) -> float:
        """The part of the findings that is right; 0 if nothing was found."""
        return self.right / max(1, self.findings)

    @property
    def recall(self) -> float:
        """The part of the labels that was found; 0 if there are none."""
        return self.right / max(1, self.labels)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        return 2 * self.right / max(1, self.labels + self.findings)

    def to_plain(self) -> dict[str, object]:
        """For JSON."""
        return {
            "type": self.type, "labels": self.labels, "findings": self.findings, "right": self.right,
            "precision": self.precision, "recall": self.recall, "f1": self.f1,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class SensitiveReport:
    """What a scanner finds in labelled rows. `plain` leaves out the rows in which a value is obscured."""

    rows: int
    types: Sequence[TypeFigures]
    plain: Sequence[TypeFigures]
    labels: int
    found: int
    """Labels of which at least one code point was found, whatever it was taken for."""
    structured_characters: int
    structured_characters_found: int
    characters_flagged: int
    characters_flagged_rightly: int
    clean_rows: int
    clean_rows_flagged: int

    @property
    def character_recall(self) -> float:
        """The part of the structured characters that any finding covers."""
        return self.structured_characters_found / max(1, self.structured_characters)

    @property
    def character_precision(self) -> float:
        """The part of the flagged characters that belongs to any label."""
        return self.characters_flagged_rightly / max(1, self.characters_flagged)

    @property
    def clean_flagged(self) -> float:
        """The part of the rows without labels in which something is found."""
        return self.clean_rows_flagged / max(1, self.clean_rows)

    @property
    def recall(self) -> float:
        """The part of the labels found with their type."""
        return sum(figures.right for figures in self.types) / max(1, self.labels)

    def figures_of(self, name: str) -> TypeFigures:
        """The figures of one type, over all rows."""
        return next((figures for figures in self.types if figures.type == name), TypeFigures(name, 0, 0, 0))

    def to_plain(self) -> dict[str, object]:
        """For JSON."""
        return {
            "rows": self.rows,
            "labels": self.labels,
            "recall": self.recall,
            "found": self.found,
            "character_recall": self.character_recall,
            "character_precision": self.character_precision,
            "clean_rows": self.clean_rows,
            "clean_rows_flagged": self.clean_rows_flagged,
            "clean_flagged": self.clean_flagged,
            "types": [figures.to_plain() for figures in self.types],
            "plain_rows": [figures.to_plain() for figures in self.plain],
        }


def read_rows(file: Path) -> list[Row]:
    """One JSON object a line: text, or text_parts to be joined; id, spans and hard may follow. Raises `DataError`."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as UTF-8 text; name a file with one JSON object a line") from error
    rows = [_row(f"{file}, line {number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
    if not rows:
        raise DataError(f"{file}: there are no rows in it")
    return rows


def _row(where: str, line: str) -> Row:
    try:
        found: dict[str, Any] = json.loads(line)
        text = found["text"] if "text" in found else "".join(found["text_parts"])
        spans = found.get("spans")
        row = Row(
            text=_string(text),
            id=found.get("id"),
            labels=None if spans is None else tuple(_label(span) for span in spans),
            obscured=bool(found.get("hard", False)),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{where}: needs a JSON object with text or text_parts; spans, a list of objects with start, end and type, "
            "may follow"
        ) from error
    if any(not 0 <= label.start < label.end <= len(row.text) for label in row.labels or ()):
        raise DataError(f"{where}: a span lies outside the text; start and end count code points, end is exclusive")
    return row


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _label(span: dict[str, Any]) -> Finding:
    return Finding(int(span["start"]), int(span["end"]), _string(span["type"]))


def write_findings(file: Path, rows: Sequence[Row], findings: Sequence[Sequence[Finding]]) -> None:
    """One JSON object a line, row for row: the id where there is one, and spans with start, end and type; no text."""
    with file.open("wb") as lines:
        for row, found in zip(rows, findings, strict=True):
            named = {} if row.id is None else {"id": row.id}
            spans = [{"start": start, "end": end, "type": kind} for start, end, kind in found]
            lines.write(orjson.dumps({**named, "spans": spans}, option=orjson.OPT_APPEND_NEWLINE))


def measure_findings(rows: Sequence[Row], findings: Sequence[Sequence[Finding]]) -> SensitiveReport | None:
    """Compares findings, row for row, with the labels; None if a row has none to compare with."""
    if any(row.labels is None for row in rows):
        return None
    pairs = [(row.labels or (), found) for row, found in zip(rows, findings, strict=True)]
    plain = [pair for row, pair in zip(rows, pairs, strict=True) if not row.obscured]
    cover = [_Cover(labels, found) for labels, found in pairs]
    clean = [found for labels, found in pairs if not labels]
    return SensitiveReport(
        rows=len(rows),
        types=_by_type(pairs),
        plain=_by_type(plain),
        labels=sum(len(labels) for labels, _ in pairs),
        found=sum(one.labels_touched for one in cover),
        structured_characters=sum(one.structured for one in cover),
        structured_characters_found=sum(one.structured_found for one in cover),
        characters_flagged=sum(one.flagged for one in cover),
        characters_flagged_rightly=sum(one.flagged_rightly for one in cover),
        clean_rows=len(clean),
        clean_rows_flagged=sum(map(bool, clean)),
    )


class _Cover:
    """The code points that labels and findings of one row cover."""

    def __init__(self, labels: Sequence[Finding], found: Sequence[Finding]) -> None:
        labelled, flagged = _places(labels), _places(found)
        structured = _places(label for label in labels if label.kind not in UNSTRUCTURED)
        self.structured, self.structured_found = len(structured), len(structured & flagged)
        self.flagged, self.flagged_rightly = len(flagged), len(flagged & labelled)
        self.labels_touched = sum(not flagged.isdisjoint(range(label.start, label.end)) for label in labels)


def _places(spans: Iterable[Finding]) -> set[int]:
    return {place for span in spans for place in range(span.start, span.end)}


def _by_type(pairs: Iterable[tuple[Sequence[Finding], Sequence[Finding]]]) -> list[TypeFigures]:
    """Most labels first."""
    labelled: Counter[str] = Counter()
    flagged: Counter[str] = Counter()
    right: Counter[str] = Counter()
    for labels, found in pairs:
        labelled.update(label.kind for label in labels)
        flagged.update(finding.kind for finding in found)
        right.update(_matched(labels, found))
    names = sorted(labelled | flagged, key=lambda name: (-labelled[name], name))
    return [TypeFigures(name, labelled[name], flagged[name], right[name]) for name in names]


def _matched(labels: Sequence[Finding], found: Sequence[Finding]) -> list[str]:
    """The types of the labels that a finding of its own matches."""
    left = list(found)
    matched = []
    for label in labels:
        match = next((finding for finding in left if _is_match(label, finding)), None)
        if match is not None:
            left.remove(match)
            matched.append(label.kind)
    return matched


def _is_match(label: Finding, finding: Finding) -> bool:
    shared = min(label.end, finding.end) - max(label.start, finding.start)
    together = max(label.end, finding.end) - min(label.start, finding.start)
    return label.kind == finding.kind and shared > 0 and shared >= _LEAST_OVERLAP * together
