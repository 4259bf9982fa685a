"""Cuts a text into passages at its own borders: between paragraphs, else between lines or sentences."""

from __future__ import annotations

import re
from typing import NamedTuple

LEAST_CHARACTERS = 200
"""A heading goes with what it heads."""

MOST_CHARACTERS = 800
"""A longer paragraph is cut where a line or a sentence ends."""

LONGEST_CHARACTERS = 1_600
"""Where nothing ends for so long the cut is made between words, and at worst in the middle of one."""

_BORDER = re.compile(r"\n\s*\n\s*|\n|[.!?\u2026][\"')\]\u201d\u2019]{0,3}\s+|[\u3002\uff01\uff1f]")


class Passage(NamedTuple):
    """From `start` to before `end`; the passages of a text follow each other without a gap."""

    start: int
    end: int


def passages_of(text: str) -> list[Passage]:
    """The passages of a text, in time linear in its length; their texts together are the text."""
    passages: list[Passage] = []
    start = end = 0
    for border in _BORDER.finditer(text):
        if border.end() - start > MOST_CHARACTERS and end - start >= LEAST_CHARACTERS:
            passages.append(Passage(start, end))
            start = end
        end = border.end()
        is_paragraph = border[0].count("\n") > 1
        if end - start > (LEAST_CHARACTERS if is_paragraph else MOST_CHARACTERS):
            start = _close(text, start, end, passages)
    if end - start > LEAST_CHARACTERS and len(text) - start > MOST_CHARACTERS:
        start = _close(text, start, end, passages)
    _close(text, start, len(text), passages)
    return passages


def _close(text: str, start: int, end: int, passages: list[Passage]) -> int:
    """Ends a passage, or several where it is too long for one; gives where the next one starts."""
    while end - start > LONGEST_CHARACTERS:
        cut = text.rfind(" ", start + LEAST_CHARACTERS, start + LONGEST_CHARACTERS) + 1 or start + LONGEST_CHARACTERS
        passages.append(Passage(start, cut))
        start = cut
    if end > start:
        passages.append(Passage(start, end))
    return end
