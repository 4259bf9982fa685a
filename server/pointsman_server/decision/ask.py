"""Takes a request's text apart, so that what is asked can be told from what is pasted, wrapped around it or told.

The text is cut into segments: sentences and lines. Each gets its words, which say what it is about, and marks of its
shape and place (first paragraph, last line, inside a code block, ends in a question mark), which say whether it is
likely to be the ask.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

HEAD_CHARS, TAIL_CHARS = 1_000, 700
"""Only this much of a text is looked at, so that the time is bounded: asks stand at the beginning or at the end."""

MOST_SEGMENTS = 24
MOST_WORDS = 40
"""Words of one segment that are looked at."""

_PARAGRAPHS = re.compile(r"\n\s*\n")
_SENTENCES = re.compile(r"(?<=[.!?])\s+|(?<=[。！？؟।])")  # noqa: RUF001 - the marks of other scripts are meant
_WORDS = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")
_SPEAKER = re.compile(r"[\w .'-]{1,20}:")
_BULLET = re.compile(r"([-*•]|\d+[.)])\s")
_FENCES = ("```", "~~~", '"""', "'''")

_FIRST_SPACELESS = 0x2E80
"""Scripts from here on (Chinese, Japanese, Korean) are read by pairs of characters; Thai and Lao, below, too."""


class Segment(NamedTuple):
    """A sentence or line. `marks` name its shape and place; equal marks of different segments mean the same."""

    words: tuple[str, ...]
    marks: tuple[str, ...]
    chars: int


class _Piece(NamedTuple):
    text: str
    paragraph: int
    fenced: bool


def take_apart(text: str) -> list[Segment]:
    """The segments of a text, in their order. Time is bounded whatever the length of the text."""
    pieces = _pieces(text)
    sizes: dict[int, int] = {}
    chars: dict[int, int] = {}
    for piece in pieces:
        sizes[piece.paragraph] = sizes.get(piece.paragraph, 0) + 1
        chars[piece.paragraph] = chars.get(piece.paragraph, 0) + len(piece.text)
    places = _Places(len(pieces), sizes, chars)
    return [_segment(place, piece, pieces, places) for place, piece in enumerate(pieces)]


class _Places:
    """What all segments of a text share: how many there are, and how large its paragraphs are."""

    __slots__ = ("biggest", "chars", "count", "largest_share", "last", "seen", "sizes", "total")

    def __init__(self, count: int, sizes: dict[int, int], chars: dict[int, int]) -> None:
        self.count = count
        self.sizes = sizes
        self.chars = chars
        self.total = sum(chars.values()) or 1
        self.biggest = max(chars, key=chars.__getitem__, default=0)
        self.largest_share = int(4 * chars.get(self.biggest, 0) / self.total)
        self.last = max(sizes, default=0)
        self.seen: dict[int, int] = {}


def _pieces(text: str) -> list[_Piece]:
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]}\n\n{text[-TAIL_CHARS:]}"
    pieces: list[_Piece] = []
    fenced = False
    paragraph = 0
    for block in _PARAGRAPHS.split(text):
        before = len(pieces)
        for line in block.split("\n"):
            if line.lstrip().startswith(_FENCES):
                fenced = not fenced
            for sentence in _SENTENCES.split(line):
                stripped = sentence.strip()
                if stripped:
                    pieces.append(_Piece(stripped, paragraph, fenced))
        paragraph += len(pieces) > before
    if len(pieces) > MOST_SEGMENTS:
        pieces = pieces[: MOST_SEGMENTS // 2] + pieces[-MOST_SEGMENTS // 2 :]
    return pieces


def _segment(place: int, piece: _Piece, pieces: list[_Piece], places: _Places) -> Segment:
    words = words_of(piece.text)
    marks = [*_place_marks(place, piece, places), *_shape_marks(piece, words)]
    if place and pieces[place - 1].text[-1] in ":：":  # noqa: RUF001 - the full-width colon is meant
        marks.append("after colon" if pieces[place - 1].paragraph == piece.paragraph else "below colon")
    return Segment(words, tuple(marks), len(piece.text))


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


_ROUGH = (0, 1, 2, 3, 4, 4, 4, 4, 5, 5, 5, 5, 5, 5, 5, 5)


def _rough(count: int) -> int:
    return _ROUGH[count] if count < 16 else 6


_SEVEN = range(7)
_FROM_START = [[f"from start {place} of {count}" for count in _SEVEN] for place in _SEVEN]
_FROM_END = [[f"from end {place} of {count}" for count in _SEVEN] for place in _SEVEN]
_PARAGRAPH = [[[f"paragraph {a} {b} of {size}" for size in _SEVEN] for b in range(3)] for a in range(3)]
_PARAGRAPH_LENGTH = [[f"paragraph length {size} {chars}" for chars in range(4)] for size in _SEVEN]
_IN_PARAGRAPH = [[f"in paragraph {a} {b}" for b in range(3)] for a in range(3)]
_SHARE = [f"share {sixths}" for sixths in _SEVEN]
_BIGGEST = [[f"biggest {side} {share}" for share in range(5)] for side in (-1, 0, 1)]
_LENGTH = [f"length {length}" for length in range(9)]
_SIGNS = [f"signs {eighths}" for eighths in range(9)]
_DIGITS = [f"digits {eighths}" for eighths in range(9)]
"""The marks are made beforehand: making them anew for every segment would take most of the time."""


def _place_marks(place: int, piece: _Piece, places: _Places) -> list[str]:
    paragraph = piece.paragraph
    size, length = places.sizes[paragraph], places.chars[paragraph]
    inside = places.seen.get(paragraph, 0)
    places.seen[paragraph] = inside + 1
    count, rough_size = _rough(places.count), _rough(size)
    side = (paragraph > places.biggest) - (paragraph < places.biggest)
    return [
        _FROM_START[_rough(place)][count],
        _FROM_END[_rough(places.count - 1 - place)][count],
        _PARAGRAPH[min(paragraph, 2)][min(places.last - paragraph, 2)][rough_size],
        _PARAGRAPH_LENGTH[rough_size][min(3, length // 120)],
        _IN_PARAGRAPH[min(inside, 2)][min(size - 1 - inside, 2)],
        _SHARE[6 * length // places.total],
        _BIGGEST[side + 1][places.largest_share],
    ]


def _shape_marks(piece: _Piece, words: tuple[str, ...]) -> list[str]:
    text = piece.text
    first, last = text[0], text[-1]
    marks = [_LENGTH[min(len(text) // 25, 8)], "ends" if last.isalnum() else f"ends {last}"]
    if first.isupper():
        marks.append("capital")
    elif not first.isalnum():
        marks.append(f"begins {first}")
    if piece.fenced:
        marks.append("fenced")
    if ":" in text[:21] and _SPEAKER.match(text):
        marks.append("speaker")
    elif (first in "-*•" or first.isdigit()) and _BULLET.match(text):
        marks.append("bullet")
    if words:
        marks += _word_marks(words)
    return marks


def _word_marks(words: tuple[str, ...]) -> list[str]:
    count = len(words)
    starts = [word[0] for word in words]
    signs = count - sum(map(str.isalnum, starts))
    digits = sum(map(str.isdigit, starts))
    marks = [_SIGNS[8 * signs // count], _DIGITS[8 * digits // count], f"first {words[0]}", f"last {words[-1]}"]
    if count > 1:
        marks.append(f"first two {words[0]} {words[1]}")
    return marks
