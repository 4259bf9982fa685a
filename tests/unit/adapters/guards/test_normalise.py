# ruff: noqa: RUF001 - characters that look like others are what is tested
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.adapters.guards.normalise import Normalised, is_word

ANY_TEXT = st.text(alphabet=st.characters(), max_size=60)
ODD_TEXT = st.lists(
    st.sampled_from(["a", "4", "\u200b", "…", "４", "é", "ﬁ", "字", "😀", "\ud800", "?", " ", "\u00ad"])
).map("".join)


@pytest.mark.parametrize(
    ("original", "plain"),
    [
        ("４１１１", "4111"),
        ("٤١١١ ९८", "4111 98"),
        ("a\u200bb\u2060c\ufeff", "abc"),
        ("jane＠example．com", "jane@example.com"),
        ("1–2—3−4‑5", "1-2-3-4-5"),
        ("a\u00a0b\u3000c", "a b c"),
        ("ﬁn…", "fin..."),
        ("“it’s”", '"it\'s"'),
        ("ünïcode 字", "ünïcode 字"),
        ("𝟒𝟏𝐚", "41a"),
    ],
)
def test_compatible_characters_become_plain(original: str, plain: str) -> None:
    assert Normalised(original).text == plain


def test_many_different_odd_characters_are_folded_alike() -> None:
    letters = "".join(chr(code_point) for code_point in range(0xFF21, 0xFF21 + 26))
    digits = "".join(chr(code_point) for code_point in range(0xFF10, 0xFF10 + 10))
    assert Normalised(letters + digits).text == "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def test_places_lead_back_over_what_was_left_out_and_what_grew() -> None:
    normalised = Normalised("x\u200b\u200by…z")
    assert normalised.text == "xy...z"
    assert normalised.original_span(0, 1) == (0, 1)
    assert normalised.original_span(1, 2) == (3, 4)
    assert normalised.original_span(2, 5) == (4, 5)
    assert normalised.original_span(0, 6) == (0, 6)


def test_plain_text_is_taken_as_it_is() -> None:
    text = "nothing to fold"
    assert Normalised(text).text is text
    assert not Normalised(text).has_foreign


@given(ANY_TEXT | ODD_TEXT)
@examples(300)
def test_every_place_leads_back_to_what_it_came_from(original: str) -> None:
    normalised = Normalised(original)
    for place, character in enumerate(normalised.text):
        start, end = normalised.original_span(place, place + 1)
        assert end - start == 1
        assert character in Normalised(original[start:end]).text


@given(ANY_TEXT | ODD_TEXT)
@examples(200)
def test_places_keep_their_order(original: str) -> None:
    normalised = Normalised(original)
    starts = [normalised.original_span(place, place + 1)[0] for place in range(len(normalised.text))]
    assert starts == sorted(starts)


@given(ANY_TEXT | ODD_TEXT)
@examples(200)
def test_the_view_has_a_byte_for_each_code_point(original: str) -> None:
    normalised = Normalised(original)
    assert len(normalised.view) == len(normalised.text)
    assert normalised.has_foreign == any(ord(character) > 0xFF for character in normalised.text)


def test_word_characters_are_those_of_ascii() -> None:
    assert is_word("a")
    assert is_word("_")
    assert not is_word("é")
    assert not is_word("")
