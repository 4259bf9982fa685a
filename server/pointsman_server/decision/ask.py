"""Takes a request's text apart, so that what is asked can be told from what is pasted, wrapped around it or told.

The text is cut into segments: sentences and lines. Each gets its words, which say what it is about, and marks of its
shape and place (first paragraph, last line, inside a code block, ends in a question mark), which say whether it is
likely to be the ask.

Segments are what the judge is taught with. It reads the same from a text itself, in far less time: see `Wording`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from pointsman_server.decision.layout import lay_out
from pointsman_server.decision.marks import NAMES, place_marks, shape_marks
from pointsman_server.decision.tally import packed_tally

MOST_WORDS = 40
"""Words of one segment that are looked at."""

_WORDS = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")

_FIRST_SPACELESS = 0x2E80
"""Scripts from here on (Chinese, Japanese, Korean) are read by pairs of characters; Thai and Lao, below, too."""


class Segment(NamedTuple):
    """A sentence or line. `marks` name its shape and place; equal marks of different segments mean the same."""

    words: tuple[str, ...]
    marks: tuple[str, ...]
    chars: int

    @property
    def tallies(self) -> tuple[int, ...]:
        """The packed tally of each word."""
        return tuple(map(packed_tally, self.words))


def take_apart(text: str) -> list[Segment]:
    """The segments of a text, in their order. Time is bounded whatever the length of the text."""
    layout = lay_out(text)
    return [
        _segment(segment, place) for segment, place in zip(layout.segments, place_marks(NAMES, layout), strict=True)
    ]


def _segment(text: str, place: tuple[str, ...]) -> Segment:
    words = words_of(text)
    shape = shape_marks(NAMES, text, words, sum(map(packed_tally, words)))
    return Segment(words, place + shape, len(text))


def words_of(text: str) -> tuple[str, ...]:
    """Lower-cased words, numbers and signs; scripts without spaces as pairs of characters."""
    words = _WORDS.findall(text.lower())
    if text.isascii():
        return tuple(words[:MOST_WORDS])
    return tuple(part for word in words[:MOST_WORDS] for part in _parts(word))[: 2 * MOST_WORDS]


def _parts(word: str) -> Iterator[str]:
    first = ord(word[0])
    if len(word) < 3 or not (first >= _FIRST_SPACELESS or 0x0E00 <= first < 0x0F00):
        yield word
        return
    for start in range(len(word) - 1):
        yield word[start : start + 2]
