from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.decision.layout import HEAD_CHARS, MOST_SEGMENTS, TAIL_CHARS, lay_out

SENTENCES = re.compile(r"(?<=[.!?])\s+|(?<=[。！？؟।])")  # noqa: RUF001 - as it is written


def cut_slowly(text: str) -> list[list[str]]:
    """Blank lines, then lines, then sentences."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", text):
        sentences = [sentence.strip() for line in block.split("\n") for sentence in SENTENCES.split(line)]
        paragraphs.append([sentence for sentence in sentences if sentence])
    return [paragraph for paragraph in paragraphs if paragraph]


@examples(300)
@given(st.text("aB1 .!?\n\n\t\r\x85\xa0。？؟।:`", max_size=60))  # noqa: RUF001 - as it is written
def test_paragraphs_are_cut_at_blank_lines_lines_and_ends_of_sentences(text: str) -> None:
    expected = cut_slowly(text)
    if sum(map(len, expected)) <= MOST_SEGMENTS:
        assert lay_out(text).paragraphs == expected
        assert lay_out(text).segments == [segment for paragraph in expected for segment in paragraph]


def test_left_out_segments_leave_their_paragraphs_empty() -> None:
    """Where a paragraph stands among all is known of those that are left."""
    text = "\n\n".join(str(number) for number in range(MOST_SEGMENTS + 6))
    paragraphs = lay_out(text).paragraphs
    half = MOST_SEGMENTS // 2
    assert len(paragraphs) == MOST_SEGMENTS + 6
    assert [bool(paragraph) for paragraph in paragraphs] == [True] * half + [False] * 6 + [True] * half


def test_a_long_text_is_cut_into_head_and_tail() -> None:
    assert lay_out("a" * 9_000).paragraphs == [["a" * HEAD_CHARS], ["a" * TAIL_CHARS]]


@pytest.mark.parametrize(
    ("text", "fenced"),
    [
        ("no code", []),
        ("a\n```\nb. c\n```\nd", [False, True, True, True, False, False]),
        ("not ``` here", [False]),
        ("so. ``` not here", [False, False]),
        (" ~~~\n\n x", [True, True]),
    ],
)
def test_fences_are_opened_and_closed_at_the_beginning_of_a_line(text: str, fenced: list[bool]) -> None:
    assert list(lay_out(text).fenced) == fenced


def test_of_many_segments_the_fences_of_those_that_are_left_are_told() -> None:
    lines = ["x"] * (MOST_SEGMENTS + 10)
    lines[3], lines[-2] = "```", "```"
    assert lay_out("\n".join(lines)).fenced == [False] * 3 + [True] * (MOST_SEGMENTS - 5) + [False, False]
