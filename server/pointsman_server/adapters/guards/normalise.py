"""One plain form of a text for all patterns, with the way back to the places in the text itself."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable
from functools import cached_property

_REPLACED_ONE_BY_ONE = 24
"""Up to so many different characters are replaced by one fast pass each; beyond, one slower pass replaces all."""

_PIECE = 32_768

_FOREIGN, _QUESTION_MARK = "?", "\x01"

_INVISIBLE = {0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180B, 0x180C, 0x180D, 0x180F, 0x3164, 0xFFA0}
_QUOTES = {0x2018: "'", 0x2019: "'", 0x02BC: "'", 0x201C: '"', 0x201D: '"', 0x05F3: "'", 0x05F4: '"'}
_LINE_ENDS = {0x85: "\n", 0x2028: "\n", 0x2029: "\n"}
_VARIATION_SELECTORS, _TAGS = range(0xFE00, 0xFE10), range(0xE0000, 0xE01F0)
_ALPHABETS_FOR_FORMULAS = range(0x1D400, 0x1D800)
_BEYOND_THE_BASIC_PLANE = "\U00010000-\U0010ffff"


def _folded(code_point: int) -> str:
    special = _QUOTES.get(code_point) or _LINE_ENDS.get(code_point)
    if special is not None:
        return special
    character = chr(code_point)
    category = unicodedata.category(character)
    if category == "Cf" or code_point in _INVISIBLE or code_point in _VARIATION_SELECTORS or code_point in _TAGS:
        return ""
    if category == "Nd":
        return str(unicodedata.decimal(character))
    if category == "Zs":
        return " "
    if category == "Pd" or code_point == ord("\N{MINUS SIGN}"):
        return "-"
    compatible = unicodedata.normalize("NFKC", character)
    return compatible if compatible.isascii() and compatible.isprintable() else character


def _fold_table() -> dict[str, str]:
    code_points = [*range(0x80, 0x10000), *_ALPHABETS_FOR_FORMULAS, *_TAGS]
    pairs = ((chr(code_point), _folded(code_point)) for code_point in code_points)
    return {character: folded for character, folded in pairs if folded != character}


def _characters(characters: Iterable[str]) -> str:
    return "".join(map(re.escape, characters))


_FOLDS = _fold_table()
# Character classes alone never backtrack, so the standard library's matcher is linear here. A class is fast only if
# what lies beyond the basic plane is one range.
_ODD = re.compile(f"[{_characters(odd for odd in _FOLDS if ord(odd) < 0x10000)}{_BEYOND_THE_BASIC_PLANE}]")
_TAG_RANGE = f"{chr(_TAGS.start)}-{chr(_TAGS.stop - 1)}"
_RESIZED = re.compile(
    f"([{_characters(odd for odd, folded in _FOLDS.items() if not folded and ord(odd) < 0x10000)}{_TAG_RANGE}]+)"
    f"|[{_characters(odd for odd, folded in _FOLDS.items() if len(folded) > 1)}]"
)


class Normalised:
    """A text in plain form: compatible characters as ASCII, digits of all scripts as 0 to 9, nothing invisible.

    `view` has exactly one byte for each code point of `text`: Latin-1, where `?` stands for whatever Latin-1 has not
    (a question mark itself is the byte 1). So offsets in `view` are offsets in `text`.
    """

    def __init__(self, original: str) -> None:
        self._original = original
        self.is_ascii = original.isascii()
        self.text = original if self.is_ascii or _ODD.search(original) is None else _fold(original)
        self.view = self.text.replace(_FOREIGN, _QUESTION_MARK).encode("latin-1", "replace")

    @property
    def has_foreign(self) -> bool:
        """Whether there are characters that Latin-1 has not."""
        return not self.is_ascii and b"?" in self.view

    def original_span(self, start: int, end: int) -> tuple[int, int]:
        """The place in the text as given; `start` and `end` (exclusive) are offsets in `text`, start < end."""
        if self.text is self._original:
            return start, end
        return self._original_offset(start), self._original_offset(end - 1) + 1

    def _original_offset(self, offset: int) -> int:
        folded_at, original_at = self._turns
        turn = bisect_right(folded_at, offset) - 1
        return original_at[turn] + offset - folded_at[turn]

    @cached_property
    def _turns(self) -> tuple[list[int], list[int]]:
        """Where the two texts fall out of step: offsets in `text` and, at the same index, in the original."""
        folded_at, original_at, longer_by = [0], [0], 0
        for run in _RESIZED.finditer(self._original):
            start, end = run.span()
            if run.lastindex:
                longer_by -= end - start
            else:
                steps = range(len(_FOLDS[run.group()]))
                folded_at.extend(start + longer_by + step for step in steps)
                original_at.extend(start for _ in steps)
                longer_by += len(steps) - 1
            folded_at.append(end + longer_by)
            original_at.append(end)
        return folded_at, original_at


def _fold(text: str) -> str:
    """Piece by piece: others want the interpreter too, and no single step lets go of it."""
    return "".join([_folded_piece(text[start : start + _PIECE]) for start in range(0, len(text), _PIECE)])


def _folded_piece(text: str) -> str:
    alphabet = set(text)
    odd = _FOLDS.keys() & alphabet
    if len(odd) > _REPLACED_ONE_BY_ONE:
        # Every character has an entry, because a missing one costs an exception inside `translate`.
        return text.translate({ord(character): _FOLDS.get(character, character) for character in alphabet})
    for character in odd:
        text = text.replace(character, _FOLDS[character])
    return text


def is_word(character: str) -> bool:
    """Whether the character (or none) is an ASCII letter or digit or an underscore, as a word boundary sees it."""
    return character.isascii() and (character.isalnum() or character == "_")
