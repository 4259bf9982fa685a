from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.decision.passages import LONGEST_CHARACTERS, MOST_CHARACTERS, passages_of


def texts(text: str) -> list[str]:
    return [text[start:end] for start, end in passages_of(text)]


def test_paragraphs_are_passages() -> None:
    paragraphs = [f"{number} is a number. " * 15 + "\n\n" for number in range(4)]
    assert texts("".join(paragraphs)) == paragraphs


def test_a_heading_goes_with_what_it_heads() -> None:
    body = "Something is said here. " * 20
    assert texts(f"Heading\n\n{body}\n\nNext\n\n{body}") == [f"Heading\n\n{body}\n\n", f"Next\n\n{body}"]


def test_a_long_paragraph_is_cut_between_sentences() -> None:
    text = "This is the one sentence that is said over and over. " * 60
    found = texts(text)
    assert all(one.endswith(". ") for one in found)
    assert max(map(len, found)) <= MOST_CHARACTERS + 60


@pytest.mark.parametrize("end", ["。", "\n", "! "])
def test_sentences_end_in_many_ways(end: str) -> None:
    assert all(one.endswith(end) for one in texts(("文" * 90 + end) * 30))


def test_without_any_end_it_is_cut_between_words() -> None:
    found = texts("word " * 2_000)
    assert all(one.endswith("word ") for one in found)
    assert max(map(len, found)) <= LONGEST_CHARACTERS


def test_without_words_it_is_cut_anywhere() -> None:
    assert [len(one) for one in texts("x" * 4_000)] == [LONGEST_CHARACTERS, LONGEST_CHARACTERS, 800]


def test_a_short_text_is_one_passage_and_an_empty_one_none() -> None:
    assert texts("One. Two.\nThree.") == ["One. Two.\nThree."]
    assert texts("") == []


@examples(80)
@given(st.lists(st.sampled_from(("word ", "A sentence. ", "\n", "\n\n", " ", "x" * 700, "。", "\n \n")), max_size=200))
def test_nothing_is_lost_and_nothing_is_too_long(pieces: list[str]) -> None:
    text = "".join(pieces)
    found = texts(text)
    assert "".join(found) == text
    assert all(0 < len(one) <= LONGEST_CHARACTERS for one in found)


@pytest.mark.parametrize("piece", ["\n ", ".", ".) ", " ", "x", "\n\n\n"])
def test_time_grows_with_the_length_alone(piece: str) -> None:
    started = time.process_time()
    passages_of(piece * (1_000_000 // len(piece)))
    assert time.process_time() - started < 5
