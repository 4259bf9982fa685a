"""How much a text has to do with what is asked, by the words that they share; for when nobody said how much it matters.

The measure is the usual one of text search (Okapi BM25): a word counts the more the fewer of the texts have it, and
the more often a text has it, though less and less, and less in a long text. It is divided by the most that could be
reached, so that it is a number from 0 to 1 like the one that callers give.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from math import log

_WORD = re.compile(r"[^\W_]+")
_STEM_CHARACTERS = 6
"""Longer words are the same when they begin alike: refund, refunds, refunded."""

_MOST_ASKED_WORDS = 200
_CHUNK_CHARACTERS = 65_536
"""Read at once; other threads get their turn in between."""

_FIRST_SPACELESS = 0x2E80
_SATURATION = 1.2
_LENGTH_SHARE = 0.75


def relevances(ask: str, texts: Sequence[str]) -> list[float]:
    """The relevance of each text to what is asked, 0..1, in time linear in all of them; all 0 without a word in common.

    East Asian scripts are read by pairs of characters.
    """
    asked = frozenset(_terms(ask, _MOST_ASKED_WORDS))
    if not asked or not texts:
        return [0.0] * len(texts)
    found: list[Counter[str]] = []
    lengths: list[int] = []
    for text in texts:
        terms = _terms(text)
        lengths.append(len(terms))
        found.append(Counter(term for term in terms if term in asked))
    weights = _weights(asked, found)
    usual_length = sum(lengths) / len(lengths) or 1.0
    most = sum(weights.values()) * (_SATURATION + 1.0)
    return [
        _score(counts, weights, length / usual_length) / most for counts, length in zip(found, lengths, strict=True)
    ]


def _weights(asked: Iterable[str], found: Sequence[Counter[str]]) -> dict[str, float]:
    having = Counter(term for counts in found for term in counts)
    return {term: log(1.0 + (len(found) - having[term] + 0.5) / (having[term] + 0.5)) for term in asked}


def _score(counts: Counter[str], weights: dict[str, float], relative_length: float) -> float:
    damping = _SATURATION * (1.0 - _LENGTH_SHARE + _LENGTH_SHARE * relative_length)
    return sum(weights[term] * count * (_SATURATION + 1.0) / (count + damping) for term, count in counts.items())


def _terms(text: str, most: int | None = None) -> list[str]:
    text = text.lower()
    chunks = range(0, len(text), _CHUNK_CHARACTERS)
    words = [word for start in chunks for word in _WORD.findall(text, start, start + _CHUNK_CHARACTERS)][:most]
    if text.isascii():
        return [word[:_STEM_CHARACTERS] for word in words]
    return [term for word in words for term in _split(word)]


def _split(word: str) -> list[str]:
    first = ord(word[0])
    if len(word) > 1 and (first >= _FIRST_SPACELESS or 0x0E00 <= first < 0x0F00):
        return [word[place : place + 2] for place in range(len(word) - 1)]
    return [word[:_STEM_CHARACTERS]]
