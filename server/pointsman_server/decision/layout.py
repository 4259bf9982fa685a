"""Cuts a request's text into segments: sentences and lines, by paragraph."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain, count
from typing import NamedTuple

HEAD_CHARS, TAIL_CHARS = 1_000, 700
"""Only this much of a text is looked at, so that the time is bounded: asks stand at the beginning or at the end."""

MOST_SEGMENTS = 24

_ENDS = re.compile(r"([\n.!?。！？؟।](?:(?<=[^.!?])\s*|\s+))")  # noqa: RUF001 - those of other scripts are meant
"""What ends a line or a sentence, and the blanks after it. Since it starts with one set of characters, `re` skips what
is none of them; a pattern that looked behind itself took six times as long."""

_FENCES = ("```", "~~~", '"""', "'''")


class Layout(NamedTuple):
    """The segments of a text, without blanks around them, by paragraph; where many are left out, some are empty."""

    paragraphs: list[list[str]]
    fenced: Sequence[bool]
    """Of each segment, whether it stands in a code block; empty if none does."""

    @property
    def segments(self) -> list[str]:
        """All of them in their order."""
        return list(chain.from_iterable(self.paragraphs))


def lay_out(text: str) -> Layout:
    """The segments of a text: at most `MOST_SEGMENTS`, from its head and its tail."""
    if len(text) > HEAD_CHARS + TAIL_CHARS:
        text = f"{text[:HEAD_CHARS]}\n\n{text[-TAIL_CHARS:]}"
    paragraphs: list[list[str]] = []
    paragraph: list[str] = []
    cuts = _ENDS.split(text)
    cuts.append("\n\n")
    for part, end in zip(cuts[::2], cuts[1::2], strict=True):
        if segment := (part if end[0] == "\n" else part + end[0]).strip():
            paragraph.append(segment)
        if "\n" in end and paragraph and end.count("\n") > 1:
            paragraphs.append(paragraph)
            paragraph = []
    fenced = _fenced(cuts) if any([fence in text for fence in _FENCES]) else []
    size = sum(map(len, paragraphs))
    if size <= MOST_SEGMENTS:
        return Layout(paragraphs, fenced)
    half = MOST_SEGMENTS // 2
    return Layout(_without_middle(paragraphs, half, size - half), fenced[:half] + fenced[-half:])


def _fenced(cuts: Sequence[str]) -> list[bool]:
    flags: list[bool] = []
    inside, begins_line = False, True
    for part, end in zip(cuts[::2], cuts[1::2], strict=True):
        if segment := (part if end[0] == "\n" else part + end[0]).strip():
            inside ^= begins_line and segment.startswith(_FENCES)
            flags.append(inside)
            begins_line = False
        begins_line = begins_line or "\n" in end
    return flags


def _without_middle(paragraphs: list[list[str]], first: int, end: int) -> list[list[str]]:
    place = count()
    return [[segment for segment in paragraph if not first <= next(place) < end] for paragraph in paragraphs]
