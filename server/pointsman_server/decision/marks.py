"""Marks of a segment's shape and place, which say whether it is likely to be the ask.

A mark has a name, by which it is taught, and later a weight, by which it is judged. Both can be added up, names as
tuples, so that the same code tells either of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from operator import add
from typing import Generic, NamedTuple, Protocol, Self, TypeVar

from pointsman_server.decision.layout import MOST_SEGMENTS, Layout
from pointsman_server.decision.tally import signs_and_numbers


class _Added(Protocol):
    def __add__(self, other: Self, /) -> Self: ...


Told = TypeVar("Told", bound=_Added)
"""What is told of some marks: the sum of their weights, or a tuple of their names."""

_SPEAKER = re.compile(r"[\w .'-]{1,20}:")
_BULLET = re.compile(r"([-*•]|\d+[.)])\s")
_COLONS = frozenset(":：")  # noqa: RUF001 - the full-width colon is meant

_ROUGH = (0, 1, 2, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5, *[6] * (MOST_SEGMENTS - 15))
_SEVEN = range(7)


class _ByEnding(Protocol[Told]):
    def get(self, ending: str, nothing: Told, /) -> Told: ...


class Marks(Generic[Told]):
    """What is told of each mark, in tables: to put names together for every segment would take most of the time.

    `of` tells it by the name of a mark; `after` gives all marks whose names begin alike, by the endings.
    """

    def __init__(self, of: Callable[[str], Told], after: Callable[[str], _ByEnding[Told]], nothing: Told) -> None:
        self.nothing = nothing
        self._make_places(of)
        self.length = [of(f"length {length}") for length in range(9)]
        self.signs = [of(f"signs {eighths}") for eighths in range(9)]
        self.numbers = [of(f"digits {eighths}") for eighths in range(9)]
        self.ends, self.capital = of("ends"), of("capital")
        self.speaker, self.bullet = of("speaker"), of("bullet")
        self.ends_in, self.begins_with = after("ends "), after("begins ")
        self.first, self.last, self.first_two = after("first "), after("last "), after("first two ")

    def _make_places(self, of: Callable[[str], Told]) -> None:
        counts = range(MOST_SEGMENTS + 1)
        self.of_all = [[_of_all(of, place, size) for place in range(size)] for size in counts]
        self.in_paragraph = [
            [of(f"in paragraph {min(place, 2)} {min(size - 1 - place, 2)}") for place in range(size)] for size in counts
        ]
        self.paragraph = [
            [[of(f"paragraph {above} {below} of {size}") for size in _SEVEN] for below in range(3)]
            for above in range(3)
        ]
        self.paragraph_length = [[of(f"paragraph length {size} {chars}") for chars in range(4)] for size in _SEVEN]
        self.share = [of(f"share {sixths}") for sixths in _SEVEN]
        self.biggest = [[of(f"biggest {side} {share}") for share in range(5)] for side in (-1, 0, 1)]
        self.fenced, self.after_colon, self.below_colon = of("fenced"), of("after colon"), of("below colon")


def _of_all(of: Callable[[str], Told], place: int, size: int) -> Told:
    from_end = size - 1 - place
    return of(f"from start {_ROUGH[place]} of {_ROUGH[size]}") + of(f"from end {_ROUGH[from_end]} of {_ROUGH[size]}")


class _Names(NamedTuple):
    beginning: str

    def get(self, ending: str, nothing: tuple[str, ...], /) -> tuple[str, ...]:
        return (*nothing, f"{self.beginning}{ending}")


NAMES: Marks[tuple[str, ...]] = Marks(lambda name: (name,), _Names, ())


def place_marks(marks: Marks[Told], layout: Layout) -> list[Told]:
    """What is told of the places of the segments, in their order."""
    paragraphs = layout.paragraphs
    chars = [sum(map(len, paragraph)) for paragraph in paragraphs]
    all_chars, most = sum(chars), max(chars, default=0)
    biggest, below = chars.index(most) if chars else 0, len(paragraphs)
    found: list[Told] = []
    for number, paragraph in enumerate(paragraphs):
        below -= 1
        size, length = _ROUGH[len(paragraph)], chars[number]
        everywhere = (
            marks.paragraph[min(number, 2)][min(below, 2)][size]
            + marks.paragraph_length[size][min(length // 120, 3)]
            + marks.share[6 * length // all_chars]
            + marks.biggest[1 + (number > biggest) - (number < biggest)][4 * most // all_chars]
        )
        found += [everywhere + inside for inside in marks.in_paragraph[len(paragraph)]]
    found = list(map(add, found, marks.of_all[len(found)]))
    _add_rare_marks(marks, layout, found)
    return found


def _add_rare_marks(marks: Marks[Told], layout: Layout, found: list[Told]) -> None:
    """What most segments have not: a code block around them, a colon before them."""
    for place, fenced in enumerate(layout.fenced):
        if fenced:
            found[place] += marks.fenced
    place, after_colon = 0, False
    for paragraph in layout.paragraphs:
        mark = marks.below_colon
        for segment in paragraph:
            if after_colon:
                found[place] += mark
            mark, after_colon = marks.after_colon, segment[-1] in _COLONS
            place += 1


def shape_marks(marks: Marks[Told], text: str, words: Sequence[str], tally: int) -> Told:
    """What is told of the shape of a segment; `tally` is the sum of the packed tallies of its words."""
    first, last, nothing = text[0], text[-1], marks.nothing
    told = marks.length[min(len(text) // 25, 8)]
    told += marks.ends if last.isalnum() else marks.ends_in.get(last, nothing)
    if first.isupper():
        told += marks.capital
    elif not first.isalnum():
        told += marks.begins_with.get(first, nothing)
    if text.find(":", 0, 21) > 0 and _SPEAKER.match(text):
        told += marks.speaker
    elif (first in "-*•" or first.isdigit()) and _BULLET.match(text):
        told += marks.bullet
    return told + _word_marks(marks, words, tally) if words else told


def _word_marks(marks: Marks[Told], words: Sequence[str], tally: int) -> Told:
    first, size, nothing = words[0], len(words), marks.nothing
    signs, numbers = signs_and_numbers(tally)
    told = marks.signs[8 * signs // size] + marks.numbers[8 * numbers // size]
    told += marks.first.get(first, nothing) + marks.last.get(words[-1], nothing)
    if size > 1:
        told += marks.first_two.get(f"{first} {words[1]}", nothing)
    return told
