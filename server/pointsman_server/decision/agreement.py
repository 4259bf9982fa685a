"""How much two answers to the same request say the same: what they end in, their numbers, their words.

Meaning is not understood. The figures are set by judgement and only move a confidence; see `docs/confidence.md`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from pointsman_server.decision.near_miss import traits_of
from pointsman_server.decision.plain_words import content_words

MOST_COMPARED_CHARACTERS = 6_000
"""Of longer answers the beginning and the end, half each."""

SHORT_WORDS = 30
"""In answers up to this long every negation and every number that is written as a word counts."""

SHARED_BY_LIKE = 0.6
"""Two long answers that say the same share about so many of the shorter one's words."""

NUMBERS_WEIGHT = 0.7
"""Where both have numbers, these weigh more than all words."""

NEGATED = 0.3
"""What is left where one of two short answers is negated and the other is not."""

LEAST_OF_SAME_VERDICT = 0.5

_FINAL = re.compile(
    r"\\boxed\{([^{}]+)\}|^####[ \t]*(\S[^\n]*)$|\banswer(?: is)?[ *]{0,3}[:=][ *]{0,3}([^\n*]+)",
    re.IGNORECASE | re.MULTILINE,
)
_VERDICT = re.compile(r"\W*(yes|no|true|false)\b", re.IGNORECASE)
_LIST_MARK = re.compile(r"^[ \t]*\d+[.)][ \t]", re.MULTILINE)
_NUMBER = re.compile(r"\d+(?:[.,:/]\d+)*")
_GROUPING = re.compile(r",(?=\d{3}(?!\d))")
_ZEROS_BEHIND = re.compile(r"(?<=\d)\.0+$")
_FIRST_IDEOGRAPH = "\u2e80"


@dataclass(frozen=True, slots=True)
class _Said:
    words: frozenset[str]
    numbers: frozenset[str]
    is_short: bool
    is_negated: bool


def agreement(one: str, other: str) -> float | None:
    """0 (they contradict each other) to 1 (they say the same); None where one of them says nothing."""
    first, second = _compared(one), _compared(other)
    if not first or not second:
        return None
    if _letters(first) == _letters(second):
        return 1.0
    finals = _final(first), _final(second)
    if finals[0] and finals[1]:
        return float(finals[0] == finals[1])
    alike = _alike(_said(first), _said(second))
    verdicts = _VERDICT.match(first), _VERDICT.match(second)
    if verdicts[0] is None or verdicts[1] is None:
        return alike
    if verdicts[0][1].casefold() != verdicts[1][1].casefold():
        return 0.0
    return LEAST_OF_SAME_VERDICT + (1 - LEAST_OF_SAME_VERDICT) * alike


def _alike(one: _Said, other: _Said) -> float:
    both_short = one.is_short and other.is_short
    shared = _overlap(one.words, other.words)
    alike = shared if one.is_short or other.is_short else min(1.0, shared / SHARED_BY_LIKE)
    if one.numbers and other.numbers:
        weight = NUMBERS_WEIGHT if one.words and other.words else 1.0
        alike += weight * (_overlap(one.numbers, other.numbers) - alike)
    return alike * NEGATED if both_short and one.is_negated is not other.is_negated else alike


def _overlap(one: frozenset[str], other: frozenset[str]) -> float:
    """The share of the smaller set that is in the other: an answer in one word can agree with one in ten."""
    smaller = min(len(one), len(other))
    return len(one & other) / smaller if smaller else 0.0


def _said(text: str) -> _Said:
    text = _LIST_MARK.sub("", text)
    traits = traits_of(text) if len(text.split()) <= SHORT_WORDS else None
    marks = traits.fixed if traits is not None else ()
    numbers = {_plain_number(found) for found in _NUMBER.findall(text)}
    numbers.update(mark.removeprefix("n:").split()[0] for mark in marks if mark.startswith("n:"))
    return _Said(
        words=frozenset(word for word in _words(text) if not _is_number(word, spelled=traits is not None)),
        numbers=frozenset(numbers),
        is_short=traits is not None,
        is_negated=any(mark == "not" or mark.startswith("not:") for mark in marks),
    )


def _words(text: str) -> Iterator[str]:
    words = [word for word in content_words(text) if any(map(str.isalnum, word))]
    for word in words or [_letters(text)]:  # "A" is a small word, and may be all that was said
        yield from word if word[:1] >= _FIRST_IDEOGRAPH else [word]


def _is_number(word: str, *, spelled: bool) -> bool:
    return any(map(str.isdigit, word)) or (spelled and any(mark.startswith("n:") for mark in traits_of(word).fixed))


def _plain_number(written: str) -> str:
    return _ZEROS_BEHIND.sub("", _GROUPING.sub("", written))


def _final(text: str) -> str:
    """What the text gives as its answer at last, in plain letters; "" where it names none."""
    found = [next(filter(None, groups)) for groups in _FINAL.findall(text)]
    if not found:
        return ""
    return " ".join(map(_plain_number, _letters(found[-1]).split()))


def _letters(text: str) -> str:
    """The text without case and marks, but those that stand in numbers."""
    return "".join(letter for letter in text.casefold() if letter.isalnum() or letter in " .,:/-+").strip(" .,:")


def _compared(text: str) -> str:
    if len(text) > MOST_COMPARED_CHARACTERS:
        half = MOST_COMPARED_CHARACTERS // 2
        text = f"{text[:half]}\n{text[-half:]}"
    return unicodedata.normalize("NFKC", text).strip()
