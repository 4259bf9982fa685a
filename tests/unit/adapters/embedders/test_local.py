from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.adapters.embedders.local import DIMENSIONS, MOST_WORDS, LocalEmbedder, vector_of

WORDS = [f"word{number}x" for number in range(200)]


def similarity(one: str, other: str) -> float:
    """0 where one of them has no vector."""
    vectors = [np.frombuffer(vector_of(text), dtype="<f4") for text in (one, other)]
    return float(vectors[0] @ vectors[1]) if all(len(vector) for vector in vectors) else 0.0


@pytest.mark.parametrize(
    "paraphrase",
    [
        "how do i reset my password",
        "HOW DO I RESET MY PASSWORD!!!",
        "Hi, could you please tell me how to reset my password? Thanks!",
        "What's the way to reset the password?",
        "How can I reset your password",
    ],
)
def test_a_paraphrase_is_the_same(paraphrase: str) -> None:
    assert similarity("How do I reset my password?", paraphrase) == pytest.approx(1.0, abs=1e-6)


def test_halves_may_change_places_and_words_may_not() -> None:
    assert similarity("In the app, how do I reset it?", "How do I reset it in the app?") == pytest.approx(1.0)
    assert similarity("Does Anna pay Ben?", "Does Ben pay Anna?") < 0.95
    assert similarity("usd to eur", "eur to usd") < 0.95


@pytest.mark.parametrize("text", ["", "   ", "?!", "the of and", " ".join(WORDS[: MOST_WORDS + 1])])
def test_no_vector(text: str) -> None:
    assert vector_of(text) == b""


@given(st.permutations(WORDS), st.integers(1, MOST_WORDS), st.data())
def test_one_other_word_is_another_question(words: list[str], count: int, data: st.DataObject) -> None:
    *text, spare = words[: count + 1]
    place = data.draw(st.integers(0, count - 1))
    assert similarity(" ".join(text), " ".join([*text[:place], spare, *text[place + 1 :]])) < 0.95


@given(st.permutations(WORDS), st.integers(1, MOST_WORDS - 1), st.data())
def test_one_word_more_is_another_question(words: list[str], count: int, data: st.DataObject) -> None:
    *text, spare = words[: count + 1]
    place = data.draw(st.integers(0, count))
    assert similarity(" ".join(text), " ".join([*text[:place], spare, *text[place:]])) < 0.95


@given(st.text(max_size=200))
def test_a_vector_has_length_one(text: str) -> None:
    vector = np.frombuffer(vector_of(text), dtype="<f4")
    assert len(vector) in (0, DIMENSIONS)
    if len(vector):
        assert float(vector @ vector) == pytest.approx(1.0, abs=1e-5)


def test_another_process_makes_the_same_vector() -> None:
    code = (
        "from pointsman_server.adapters.embedders.local import vector_of; import hashlib;"
        "print(hashlib.sha256(vector_of('How do I reset my password?')).hexdigest())"
    )
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(runs) == 1


async def test_texts_become_vectors_in_order() -> None:
    texts = ["How do I reset my password?", "", "Who is it?"]
    assert await LocalEmbedder().embed(texts) == [vector_of(text) for text in texts]
