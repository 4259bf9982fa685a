"""All that is known of each word, found at once.

Every word is weighed several times: for whether it asks, with its beginning; for the tier, with its beginning, its
ending and what follows it; and it is counted. To look all this up one by one took most of the judge's time. Here a
word is looked up once, and what is then added up are whole numbers that hold several weights side by side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from string import punctuation
from typing import Any, NamedTuple

from pointsman_server.decision.ask import words_of
from pointsman_server.decision.remembered import Remembered
from pointsman_server.decision.tally import packed_tally

STEM_CHARS, BEGINNING_CHARS, ENDING_CHARS = 6, 5, 3

MOST_NEW_WORDS, MOST_NEW_WORD_CHARS = 30_000, 24
"""Words that are remembered besides those of the learned weights: some 12 MB at most."""

Known = tuple[int, int, int, int, str, str]
"""What is known of a word: the features of asks that it and its beginning are, or 0; its packed tally; the packed tier
weights of it, its beginning and its ending; the word; its stem. All plain values: Python's garbage collector leaves
such tuples alone, and would walk through anything else again and again."""

FEATURE_SHIFT = 32
"""A number that stands for a feature of asks is its weight shifted by this, plus its own number: so it differs from
that of any other feature, a set of them has each once, and their sum shifted back is the sum of the weights."""

_LANE = 20
_HALF, _MASK = 1 << _LANE - 1, (1 << _LANE) - 1
_MOST_WEIGHT, _MOST_SQUARE = 2_000, 4_000
"""What of a segment's features, no more than 250, can be added up in a lane. Three lanes are less than 63 bits, which
is as much as Python adds up in one machine instruction."""

_SPACED = (*[(sign, f" {sign} ") for sign in punctuation if sign != "_"], ("_", " "))
_ALL_SPACED = (*_SPACED, *[(sign, f" {sign} ") for sign in "“”‘’„«»–—…¿¡•·。，、？！：；（）「」"])  # noqa: RUF001
_END = "!!"
"""Stands between segments: signs have blanks around them then, so no text has two in a row."""
_END_TALLY, _SEVERAL_TALLY = -1, -2


class Words(NamedTuple):
    """What is known of words, in their order."""

    asks: Sequence[int]
    beginnings: Sequence[int]
    tallies: Sequence[int]
    tier_weights: Sequence[int]
    words: Sequence[str]
    stems: Sequence[str]

    @classmethod
    def of(cls, known: Iterable[Known]) -> Words:
        """Of these words, of which there must be one."""
        return cls(*zip(*known))  # noqa: B905 - each has all fields


class TierWeights:
    """The learned weights of the tier, packed: of words, their beginnings and endings, pairs, and first stems."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self.words: dict[str, int] = {}
        self.beginnings: dict[str, int] = {}
        self.endings: dict[str, int] = {}
        self.first_stems: dict[str, int] = {}
        self.following: dict[str, dict[str, int]] = {}
        numbers = iter(data["numbers"])
        rows = zip(data["features"].split("\n"), numbers, numbers, numbers, strict=True)
        for number, (name, simple, medium, square) in enumerate(rows):
            self._add(number, name, _packed(simple, medium, square))

    def _add(self, number: int, name: str, packed: int) -> None:
        first, blank, second = name.partition(" ")
        if blank:
            # Above its lanes a pair has a number of its own, so that a set of pairs has each once.
            self.following.setdefault(first, {})[second] = packed + (number << 3 * _LANE)
        elif len(name) > 1 and name[0] == "^":
            self.first_stems[name[1:]] = packed
        elif len(name) > 1 and name[0] == "…":
            self.endings[name[1:]] = packed
        elif len(name) > 1 and name[-1] == "…":
            self.beginnings[name[:-1]] = packed
        else:
            self.words[name] = packed

    def of_word(self, word: str) -> int:
        """The packed weights of a word, its beginning and its ending together."""
        packed = self.words.get(word, 0)
        if len(word) > BEGINNING_CHARS:
            packed += self.beginnings.get(word[:BEGINNING_CHARS], 0)
        if len(word) > ENDING_CHARS + 1:
            packed += self.endings.get(word[-ENDING_CHARS:], 0)
        return packed

    def of_segment(self, words: Sequence[str], weights: Sequence[int], stems: Sequence[str]) -> tuple[int, int, int]:
        """The weights for simple and medium and the squares of all features of a segment, in the units of the data.

        `weights` are those of each word; what is repeated counts once.
        """
        following = map(self.following.get, stems, repeat(_NOTHING))
        return _unpacked(
            sum(dict(zip(words, weights, strict=True)).values())
            + sum(filter(None, set(map(dict.get, following, stems[1:]))))
            + sum(filter(None, map(self.first_stems.get, stems[:3])))
        )


_NOTHING: dict[str, int] = {}


class Vocabulary(Remembered[str, Known]):
    """What is known of each word. Of a piece of text that is several words, only which they are."""

    __slots__ = ("_ask_beginnings", "_ask_words", "_tier")

    def __init__(self, asks: Mapping[str, int], tier: TierWeights) -> None:
        super().__init__(MOST_NEW_WORDS)
        self._tier = tier
        self._ask_words: dict[str, int] = {}
        self._ask_beginnings: dict[str, int] = {}
        for number, (name, weight) in enumerate(asks.items(), start=1):
            feature = (weight << FEATURE_SHIFT) + number
            if len(name) > 1 and name[-1] == "…":
                self._ask_beginnings[name[:-1]] = feature
            else:
                self._ask_words[name] = feature
        for word in {*tier.words, *self._ask_words}:
            self[word] = self._of_word(word)
        self[_END] = (0, 0, _END_TALLY, 0, "", "")

    def read(self, segments: Sequence[str]) -> tuple[Words, list[tuple[int, int]]]:
        """What is known of all words of these segments, and where among them each segment's begin and end.

        A blank is put around every common sign, and what stands between blanks is looked up: that takes a quarter of
        the time of a pattern that finds words. Where the pattern finds several in such a piece, `__missing__` does.
        """
        text = "\n".join(segments).lower()
        for sign, spaced in _SPACED if text.isascii() else _ALL_SPACED:
            if sign in text:
                text = text.replace(sign, spaced)
        pieces = text.replace("\n", f" {_END} ").split()
        pieces.append(_END)
        known = list(map(self.__getitem__, pieces))
        words = Words.of(known)
        if _SEVERAL_TALLY in words.tallies:
            words = Words.of(self._one_by_one(known, words.tallies))
        return words, _bounds(words.tallies)

    def _one_by_one(self, known: list[Known], tallies: Sequence[int]) -> list[Known]:
        """The same with single words in the place of several."""
        found: list[Known] = []
        start = 0
        for _ in range(tallies.count(_SEVERAL_TALLY)):
            place = tallies.index(_SEVERAL_TALLY, start)
            found += known[start:place]
            found += [self[word] for word in known[place][4].split()]
            start = place + 1
        return found + known[start:]

    def of_segment(self, segment: str) -> Words:
        """What is known of the words of one segment, as `words_of` finds them."""
        return Words.of([self[word] for word in words_of(segment)])

    def __missing__(self, piece: str) -> Known:
        words = (piece,) if piece.isalpha() and piece.isascii() else words_of(piece)
        known = self._of_word(piece) if words == (piece,) else _several(words)
        if len(piece) <= MOST_NEW_WORD_CHARS:
            self.keep(piece, known)
        return known

    def _of_word(self, word: str) -> Known:
        beginning = self._ask_beginnings.get(word[:BEGINNING_CHARS], 0) if len(word) > BEGINNING_CHARS else 0
        weights = self._tier.of_word(word)
        return self._ask_words.get(word, 0), beginning, packed_tally(word), weights, word, word[:STEM_CHARS]


def _several(words: Sequence[str]) -> Known:
    return 0, 0, _SEVERAL_TALLY, 0, " ".join(words), ""


def _bounds(tallies: Sequence[int]) -> list[tuple[int, int]]:
    bounds = []
    start = 0
    for _ in range(tallies.count(_END_TALLY)):
        end = tallies.index(_END_TALLY, start)
        bounds.append((start, end))
        start = end + 1
    return bounds


def _packed(simple: int, medium: int, square: int) -> int:
    if max(abs(simple), abs(medium)) > _MOST_WEIGHT or not 0 <= square <= _MOST_SQUARE:
        raise ValueError(f"numbers: weights go to {_MOST_WEIGHT}, squares to {_MOST_SQUARE}; train it again")
    return simple + (medium << _LANE) + (square << 2 * _LANE)


def _unpacked(packed: int) -> tuple[int, int, int]:
    simple = (packed + _HALF & _MASK) - _HALF
    rest = packed - simple >> _LANE
    medium = (rest + _HALF & _MASK) - _HALF
    return simple, medium, rest - medium >> _LANE & _MASK
