"""The rows that the injection detector learns from and is measured with, and which are which."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from pointsman_server.adapters.guards.injection_normalise import views

ROOT = Path(__file__).parent.parent
ATTACK = "injection"
OWN = Path(__file__).parent / "injection"

_WORD = re.compile(r"\w+")
_SHINGLE_WORDS, _LEAST_SHARED = 8, 0.4
_HELD_OUT_PART = 4


class Row(NamedTuple):
    """A labelled text; `group` is shared by texts that are nearly the same."""

    id: str
    text: str
    attack: bool
    kind: str
    source: str
    group: str = ""


def read_rows(file: Path) -> list[Row]:
    """One JSON object a line: id, text, label (injection or benign), kind, source."""
    rows = []
    for number, line in enumerate(file.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        row = json.loads(line)
        label = row["label"] == ATTACK
        rows.append(
            Row(str(row.get("id", number)), row["text"], label, row.get("kind", file.stem), row.get("source", "own"))
        )
    return rows


def grouped(rows: Sequence[Row]) -> list[Row]:
    """With groups: rows of which one has a good part of the other's runs of eight words are together."""
    runs = [_runs(row.text) for row in rows]
    holders: dict[str, list[int]] = defaultdict(list)
    for place, of_row in enumerate(runs):
        for run in of_row:
            holders[run].append(place)
    leaders = _Leaders(len(rows))
    for place, of_row in enumerate(runs):
        shared = Counter(other for run in of_row for other in holders[run])
        for other, count in shared.items():
            if count >= _LEAST_SHARED * min(len(of_row), len(runs[other])):
                leaders.join(place, other)
    names: dict[int, str] = {}
    for place, row in enumerate(rows):
        leader, name = leaders.of(place), _digest(row.text)
        names[leader] = min(names.get(leader, name), name)
    return [row._replace(group=names[leaders.of(place)]) for place, row in enumerate(rows)]


class _Leaders:
    """Sets of places, each known by one of them."""

    def __init__(self, count: int) -> None:
        self._next = list(range(count))

    def of(self, place: int) -> int:
        while self._next[place] != place:
            self._next[place] = self._next[self._next[place]]
            place = self._next[place]
        return place

    def join(self, one: int, other: int) -> None:
        self._next[self.of(one)] = self.of(other)


def is_held_out(row: Row) -> bool:
    """Whether the detector never sees this row before it is finished; by the group alone."""
    return int(row.group[:8], 16) % _HELD_OUT_PART == 0


def fold_of(row: Row, folds: int) -> int:
    """In which fold a row of the development part is."""
    return int(row.group[8:16], 16) % folds


def parts(rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Development and held-out."""
    known = grouped(rows)
    return [row for row in known if not is_held_out(row)], [row for row in known if is_held_out(row)]


def digest_of(rows: Sequence[Row]) -> str:
    """Of the ids in order."""
    return hashlib.sha256("\n".join(sorted(row.id for row in rows)).encode()).hexdigest()


def where(rows: Iterable[Row], keep: Callable[[Row], bool]) -> list[Row]:
    """The rows that are to be kept."""
    return [row for row in rows if keep(row)]


def _runs(text: str) -> frozenset[str]:
    """Of all readings, so that a disguised copy stays with what it is a copy of."""
    found: set[str] = set()
    for view in views(text):
        words = _WORD.findall(view.text.lower())
        found.update(
            " ".join(words[start : start + _SHINGLE_WORDS]) for start in range(max(len(words) - _SHINGLE_WORDS, 0) + 1)
        )
    return frozenset(found - {""})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
