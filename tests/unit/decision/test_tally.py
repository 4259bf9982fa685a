from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.decision.ask import words_of
from pointsman_server.decision.tally import Tally, packed_tally, signs_and_numbers, unpacked_tally


@pytest.mark.parametrize(
    ("word", "tally"),
    [
        ("sort", Tally(0, 0, 0, 0, 0, 4)),
        ("and", Tally(0, 0, 1, 0, 0, 3)),
        ("или", Tally(0, 0, 1, 0, 0, 3)),
        ("2019", Tally(0, 1, 0, 0, 0, 4)),
        ("²", Tally(0, 1, 0, 0, 0, 1)),
        ("½", Tally(0, 0, 0, 0, 0, 1)),
        (",", Tally(1, 0, 1, 0, 0, 1)),
        ("?", Tally(1, 0, 0, 1, 0, 1)),
        ("：", Tally(1, 0, 0, 0, 1, 1)),  # noqa: RUF001 - as it is written
    ],
)
def test_one_word(word: str, tally: Tally) -> None:
    assert unpacked_tally(packed_tally(word)) == tally


@examples(100)
@given(st.lists(st.text(max_size=60).map(words_of), max_size=6))
def test_sums_are_sums_of_each_count(segments: list[tuple[str, ...]]) -> None:
    words = [word for segment in segments for word in segment]
    packed = sum(map(packed_tally, words))
    one_by_one = [unpacked_tally(packed_tally(word)) for word in words]
    assert unpacked_tally(packed) == tuple(map(sum, zip(*one_by_one, strict=True))) or not words
    assert signs_and_numbers(packed) == unpacked_tally(packed)[:2]


def test_as_many_as_are_looked_at_can_be_added_up() -> None:
    assert unpacked_tally(1_000 * packed_tally("?")) == Tally(1_000, 0, 0, 1_000, 0, 1_000)
