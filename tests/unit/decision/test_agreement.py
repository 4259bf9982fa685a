from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.decision.agreement import MOST_COMPARED_CHARACTERS, agreement

PLANTS = (
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen in the chloroplasts of plants, which "
    "use chlorophyll to take up light of mostly blue and red colour, and so feed nearly all life on Earth today."
)
PLANTS_AGAIN = (
    "Plants make sugar and oxygen from carbon dioxide and water with the help of light; the green chlorophyll in their "
    "chloroplasts absorbs it. Without photosynthesis hardly any life on Earth would be possible at all today."
)
SHARES = (
    "The stock market fell sharply because speculation on credit had driven prices far beyond what companies earned, "
    "and when confidence broke everybody wanted to sell at the same time, which in the end ruined a great many banks."
)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris", "The capital of France is Paris."),
        ("PARIS.", "paris"),
        ("(A)", "A"),
        ("4", "four"),
        ("1000", "The total is 1,000.0 USD"),
        ("So the answer is: **12**", "We add them.\n#### 12"),
        (r"Hence \boxed{3/4}.", "Answer: 3/4"),
        ("First 7, then 8. Answer = 1,500.00", "answer: 1500"),
        ("巴黎是法国的首都", "法国的首都是巴黎。"),
        ("Yes.", "yes"),
    ],
)
def test_the_same_said_differently(one: str, other: str) -> None:
    assert agreement(one, other) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris", "London is the capital."),
        ("A", "B"),
        ("The answer: 42", "#### 41"),
        ("Yes, because it is cheap and quick.", "No, because it is cheap and quick."),
        ("true", "False."),
        ("17", "18"),
    ],
)
def test_contradictions(one: str, other: str) -> None:
    assert agreement(one, other) == 0.0


def test_a_negation_turns_a_short_answer_round() -> None:
    assert agreement("It is safe.", "It is not safe.") == pytest.approx(0.3)


def test_another_number_in_the_same_words_is_no_agreement() -> None:
    found = agreement("The train leaves at 9:40 from platform 3.", "The train leaves at 8:15 from platform 5.")
    assert found == pytest.approx(0.3)


def test_the_same_verdict_with_other_reasons_is_half_an_agreement_at_least() -> None:
    found = agreement("Yes, the melting point is low.", "Yes: salt water behaves differently.")
    assert found is not None
    assert 0.5 <= found < 1.0


def test_long_answers_are_compared_by_their_words() -> None:
    same, other = agreement(PLANTS, PLANTS_AGAIN), agreement(PLANTS, SHARES)
    assert same is not None
    assert other is not None
    assert same > 0.9
    assert other < 0.2


def test_numbers_of_lists_are_none() -> None:
    listed = "\n".join(f"{place}. {word}" for place, word in enumerate(("apples", "pears", "plums"), start=1))
    assert agreement(listed, "apples, pears and plums: 7") == agreement(
        "apples pears plums", "apples, pears and plums: 7"
    )


@pytest.mark.parametrize(("one", "other"), [("", "Paris"), ("Paris", " \n"), ("", "")])
def test_where_nothing_is_said_nothing_is_known(one: str, other: str) -> None:
    assert agreement(one, other) is None


def test_of_long_answers_the_end_counts_as_well() -> None:
    padding = "word " * MOST_COMPARED_CHARACTERS
    assert agreement(f"{padding}\nAnswer: 12", f"{padding}\nAnswer: 13") == 0.0


@pytest.mark.parametrize(
    "hostile",
    [
        "answer is" + " " * 9_000,
        "\\boxed{" * 3_000,
        "answer" + "*" * 19_000 + "x",
        "1." * 9_000,
        "yes " * 9_000,
        "'" * 9_000,
    ],
)
def test_no_text_takes_long(hostile: str) -> None:
    agreement(hostile, hostile + "x")
    started = time.process_time()
    agreement(hostile, hostile + "x")
    assert time.process_time() - started < 0.5


@given(st.text(max_size=200), st.text(max_size=200))
def test_it_is_a_share_and_the_same_both_ways(one: str, other: str) -> None:
    found = agreement(one, other)
    assert found is None or 0.0 <= found <= 1.0
    assert found == pytest.approx(agreement(other, one)) if found is not None else agreement(other, one) is None


@given(st.text(min_size=1, max_size=200).filter(lambda text: bool(text.strip())))
def test_every_answer_agrees_with_itself(text: str) -> None:
    assert agreement(text, text) in (1.0, None)
