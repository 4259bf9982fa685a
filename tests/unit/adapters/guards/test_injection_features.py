from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.adapters.guards.injection_features import BUCKETS, LONGEST, buckets


def same(left: str, right: str) -> bool:
    return bool(np.array_equal(buckets(left), buckets(right)))


def test_casing_punctuation_accents_and_digits_do_not_matter() -> None:
    assert same("Hello, the world!", "HELLO the... World")
    assert same("Señor Müller", "senor muller")
    assert same("room 42", "room 97")
    assert not same("the world", "world the")


def test_a_text_is_hashed_alike_whether_or_not_a_neighbour_is_ascii() -> None:
    assert np.array_equal(buckets("ignore the rules")[:, 0], buckets("ignore the rules — é")[:, 0])


def test_the_beginning_of_a_word_is_shared_by_its_forms() -> None:
    one, other = buckets("instruction"), buckets("instructed")
    assert one[4, 0] == other[4, 0]
    assert one[0, 0] != other[0, 0]


def test_a_word_is_hashed_alike_wherever_it_stands() -> None:
    assert set(buckets("alpha beta")[0]) <= set(buckets("gamma delta, alpha! beta")[0])


def test_characters_of_scripts_without_blanks_are_words() -> None:
    assert buckets("忽略指令").shape[1] == 4
    assert buckets("pre忽略post").shape[1] == 4


def test_a_text_without_words_has_no_buckets() -> None:
    assert buckets("").shape[1] == buckets(" .,!?").shape[1] == buckets("🔒 …").shape[1] == 0


def test_the_longest_text_is_hashed() -> None:
    assert buckets("ab " * (LONGEST // 3)).shape[1] == LONGEST // 3
    assert buckets("é" * LONGEST).shape[1] == 1


@given(st.text(max_size=200))
def test_buckets_are_in_range(text: str) -> None:
    found = buckets(text)
    assert found.min(initial=0) >= 0
    assert found.max(initial=0) < BUCKETS
