"""What is counted among the words of a segment: signs, numbers, joints, question marks, colons and characters.

The counts stand side by side in one whole number, so that adding up the numbers of words counts everything at once.
"""

from __future__ import annotations

from typing import NamedTuple

_JOINTS = frozenset(
    (
        *(",", ";", "、", "，", "；", "،"),  # noqa: RUF001 - the commas of other scripts are meant
        *("and", "or", "but", "without", "must", "should", "und", "oder", "aber", "ohne", "et", "ou", "mais", "sans"),
        *("y", "o", "pero", "sin", "e", "ma", "и", "или", "но", "без"),
    )
)
"""What joins wishes and conditions; a rough measure of how many there are."""

_QUESTION_MARKS = frozenset("?？؟")  # noqa: RUF001 - the question marks of other scripts are meant
_COLONS = frozenset(":：")  # noqa: RUF001 - the full-width colon is meant

_BITS = 10
"""Of each count but the last: far more than the words of a request that are looked at."""

_MASK = (1 << _BITS) - 1
_SIGN, _NUMBER, _JOINT, _QUESTION_MARK, _COLON, _CHAR = (1 << place * _BITS for place in range(6))


class Tally(NamedTuple):
    """The counts one by one."""

    signs: int
    numbers: int
    joints: int
    question_marks: int
    colons: int
    chars: int


def packed_tally(word: str) -> int:
    """The counts of one word, of which fewer than 1,024 can be added up."""
    packed = _CHAR * len(word) + _JOINT * (word in _JOINTS)
    start = word[0]
    if start.isalpha():
        return packed
    packed += _NUMBER * start.isdigit() + _SIGN * (not start.isalnum())
    return packed + _QUESTION_MARK * (word in _QUESTION_MARKS) + _COLON * (word in _COLONS)


def unpacked_tally(packed: int) -> Tally:
    """The counts of a sum of packed ones."""
    return Tally(
        packed & _MASK,
        packed >> _BITS & _MASK,
        packed >> 2 * _BITS & _MASK,
        packed >> 3 * _BITS & _MASK,
        packed >> 4 * _BITS & _MASK,
        packed >> 5 * _BITS,
    )


def signs_and_numbers(packed: int) -> tuple[int, int]:
    """The first two counts of a sum of packed ones."""
    return packed & _MASK, packed >> _BITS & _MASK
