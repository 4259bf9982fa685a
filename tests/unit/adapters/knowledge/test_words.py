from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.adapters.knowledge.words import COMMON, FILLERS, stem, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("What's the CAFÉ's e-mail?", ["what's", "the", "cafe's", "e", "mail"]),
        ("naïve\u2019s ﬁle №7", ["naive's", "file", "no7"]),
        ("返品したい", ["返品", "品し", "した", "たい"]),
        ("犬", ["犬"]),
        ("iPhone充電", ["iphone", "充電"]),
        ("", []),
        ("?! … _", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize(
    "same",
    [
        ("charge", "charges", "charged", "charging"),
        ("ship", "ships", "shipped", "shipping"),
        ("cancel", "cancelled", "cancels", "cancelling", "cancellation"),
        ("buy", "buys", "bought", "buying"),
        ("delivery", "deliveries"),
        ("box", "boxes"),
        ("pass", "passes"),
        ("fill", "filled"),
        ("lie", "lies"),
        ("quick", "quickly"),
        ("dog", "dog's"),
    ],
)
def test_forms_of_a_word_have_one_stem(same: tuple[str, ...]) -> None:
    assert len(set(map(stem, same))) == 1, {word: stem(word) for word in same}


@pytest.mark.parametrize(
    "apart", [("bus", "but"), ("ring", "rung"), ("2fa", "2fas"), ("über", "üben"), ("this", "thus")]
)
def test_others_do_not(apart: tuple[str, str]) -> None:
    assert stem(apart[0]) != stem(apart[1])


@given(st.text(max_size=40))
def test_any_text_has_words_and_stems(text: str) -> None:
    for word in words_of(text):
        assert word == word.strip() != ""
        assert stem(word)


def test_what_says_little_is_no_filler_and_the_other_way_round() -> None:
    assert not {word for word in FILLERS if word != word.casefold()}
    assert not COMMON & {"delivery", "refund"}
