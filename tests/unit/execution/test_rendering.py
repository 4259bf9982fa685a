"""Values stay text, and a text cannot grow without end."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.domain.template import Filter, Insert, Repeat, Text
from pointsman_server.execution.rendering import Filler, TooLongError


@given(value=st.text())
def test_a_value_is_put_in_as_it_is(value: str) -> None:
    assert Filler({"v": value}).fill([Text("a"), Insert("v"), Text("z")]) == f"a{value}z"


def test_what_looks_like_a_template_in_a_value_stays_text() -> None:
    assert Filler({"v": "{{7*7}}", "w": "x"}).fill([Insert("v"), Insert("w")]) == "{{7*7}}x"
    assert Filler({"v": ("{{ w }}",), "w": "x"}).fill([Repeat("item", "v", (Insert("item"),))]) == "{{ w }}"


def test_all_texts_together_have_a_limit() -> None:
    filler = Filler({"v": "12345"}, most_characters=10)
    assert filler.fill([Insert("v"), Insert("v")]) == "1234512345"
    with pytest.raises(TooLongError):
        filler.fill([Text("1")])


def test_a_repetition_ends_at_the_limit() -> None:
    filler = Filler({"v": ("x" * 10,) * 1_000}, most_characters=100)
    with pytest.raises(TooLongError):
        filler.fill([Repeat("item", "v", (Insert("item"), Text("\n")))])


def test_an_item_is_known_within_its_repetition_only() -> None:
    nodes = [Repeat("item", "v", (Repeat("other", "v", (Insert("item"), Insert("other", ((Filter.UPPER, ""),)))),))]
    assert Filler({"v": ("a", "b")}).fill(nodes) == "aAaBbAbB"
