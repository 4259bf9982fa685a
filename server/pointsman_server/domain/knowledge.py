"""What is answered from when no model can be asked: passages with their sources."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

LONGEST_PASSAGE_CHARACTERS = 1_500
"""A longer section is cut between paragraphs, so that an answer can be quoted whole."""

_FENCE = re.compile(r"\s{0,3}(```|~~~)")
_HEADING = re.compile(r"\s{0,3}(#{1,6})\s+(.*?)\s*#*\s*")
_QUESTION = re.compile(r"\s*(?:\*\*|__)(?:Q(?:uestion)?\s*[.:]\s*)?(.+\?)(?:\*\*|__)\s*|\s*Q(?:uestion)?\s*[.:]\s*(.+)")
_ANSWER_MARK = re.compile(r"\A\s*(?:\*\*)?A(?:nswer)?\s*[.:]\s*(?:\*\*)?\s*")
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_BETWEEN_PARAGRAPHS = re.compile(r"\n\s*\n")


class WhenUnknown(Enum):
    """What a knowledge base does with a question that it has no answer to."""

    REFUSE = "refuse"
    ANSWER = "answer"


@dataclass(frozen=True, slots=True)
class Passage:
    """A text that can be quoted as an answer. `title` is its heading or the question it answers, "" for neither;
    `also` are other wordings of that question. `document_id` names where it stands."""

    document_id: str
    title: str
    text: str
    also: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Knowledge:
    """A knowledge base. Two with the same `digest`, which is a hash of its files, hold the same.

    `synonyms` are groups of words and phrases that mean the same. A match below `least_match` (0..1) is no answer.
    `files` are the paths it was read from.
    """

    digest: str
    least_match: float
    when_unknown: WhenUnknown
    passages: tuple[Passage, ...] = field(default=(), compare=False, repr=False)
    synonyms: tuple[tuple[str, ...], ...] = field(default=(), compare=False, repr=False)
    files: tuple[str, ...] = field(default=(), compare=False, repr=False)


def passages_of(markdown: str, document_id: str, title: str = "", *, by_line: bool = False) -> tuple[Passage, ...]:
    """The sections of a Markdown or plain text, each under the headings above it.

    `title` stands above all of them. With `by_line` the line of a section's heading is part of its id.
    """
    passages: list[Passage] = []
    for line, headings, body in _sections(_FRONT_MATTER.sub(lambda met: "\n" * met[0].count("\n"), markdown)):
        heading = " - ".join(one for one in (title, *headings) if one)
        name = f"{document_id}:{line}" if by_line else document_id
        also = headings[-1:] if headings and heading != headings[-1] else ()
        passages.extend(Passage(name, heading, piece, also) for piece in _pieces(_ANSWER_MARK.sub("", body)))
    return tuple(passages)


def _sections(markdown: str) -> Iterator[tuple[int, tuple[str, ...], str]]:
    """The line of its heading, all headings that it stands under, and the text of every section that has any."""
    above: dict[int, str] = {}
    body: list[str] = []
    start, fence = 1, ""
    for number, line in enumerate(markdown.splitlines(), start=1):
        mark = _FENCE.match(line)
        if mark and fence in ("", mark[1]):
            fence = "" if fence else mark[1]
        found = None if fence else _heading(line)
        if found is None:
            body.append(line)
            continue
        yield start, tuple(above.values()), "\n".join(body)
        level, text = found
        above = {one: kept for one, kept in above.items() if one < level} | {level: text}
        start, body = number, []
    yield start, tuple(above.values()), "\n".join(body)


def _heading(line: str) -> tuple[int, str] | None:
    heading = _HEADING.fullmatch(line)
    if heading:
        return len(heading[1]), heading[2]
    question = _QUESTION.fullmatch(line)
    # Below every heading: a question in bold type belongs to the section that it stands in.
    return (7, (question[1] or question[2]).strip("* ")) if question else None


def _pieces(body: str) -> Iterator[str]:
    piece = ""
    for paragraph in _BETWEEN_PARAGRAPHS.split(body):
        text = paragraph.strip("\n").rstrip()
        while text.strip():
            if len(piece) + len(text) <= LONGEST_PASSAGE_CHARACTERS:
                piece = f"{piece}\n\n{text}" if piece else text
                break
            if piece:
                yield piece
                piece = ""
                continue
            end = _cut(text)
            yield text[:end].rstrip()
            text = text[end:].lstrip()
    if piece:
        yield piece


def _cut(text: str) -> int:
    """Where a text that is too long is cut: after a sentence, else after a word, else anywhere."""
    head = text[:LONGEST_PASSAGE_CHARACTERS]
    sentence = max(head.rfind(mark) for mark in (". ", "! ", "? ", "\n"))
    if sentence > LONGEST_PASSAGE_CHARACTERS // 2:
        return sentence + 1
    blank = head.rfind(" ")
    return blank if blank > 0 else LONGEST_PASSAGE_CHARACTERS
