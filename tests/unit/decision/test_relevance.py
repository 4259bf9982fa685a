from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.decision.relevance import relevances

TEXTS = (
    "Refunds are paid within five days of the return.",
    "The shop is open on weekdays from nine to five.",
    "Our history began in a small shop in 1923, and the refund of a ticket made us famous.",
)


def best(ask: str, *texts: str) -> int:
    found = relevances(ask, texts)
    return found.index(max(found))


@pytest.mark.parametrize(
    ("ask", "text"), [("When is my refund paid?", 0), ("opening hours: is it open at nine?", 1), ("history of 1923", 2)]
)
def test_shared_words_decide(ask: str, text: int) -> None:
    assert best(ask, *TEXTS) == text


def test_a_rare_word_counts_more_than_a_frequent_one() -> None:
    assert best("the fee of the ticket", "the the the the of the", "a ticket", "of the", "the of") == 1


def test_a_word_counts_more_in_a_short_text() -> None:
    assert best("refund", "refund " + "something else " * 50, "refund something else") == 1


@pytest.mark.parametrize("ask", ["払い戻しの料金", "ค่าธรรมเนียม"])
def test_scripts_without_spaces_are_read_by_pairs(ask: str) -> None:
    assert best(ask, "the fee", f"xx {ask}について", "another") == 1


@pytest.mark.parametrize(("ask", "texts"), [("", ("a",)), ("?!", ("a", "b")), ("a", ()), ("word", ("other", ""))])
def test_without_a_word_in_common_there_is_no_relevance(ask: str, texts: tuple[str, ...]) -> None:
    assert relevances(ask, texts) == [0.0] * len(texts)


@examples(60)
@given(st.text("ab é日 ", max_size=20), st.lists(st.text("ab é日 ", max_size=30), max_size=5))
def test_it_is_a_share(ask: str, texts: list[str]) -> None:
    assert all(0.0 <= one <= 1.0 for one in relevances(ask, texts))
