from __future__ import annotations

import math
import re
from string import ascii_uppercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.decision.outcome_features import (
    HEAD_CHARS,
    OUTCOME_FEATURE_NAMES,
    TAIL_CHARS,
    outcome_features,
)


def counted_slowly(text: str) -> dict[str, float]:
    """Some of the features, each in the plainest way."""
    text = text if len(text) <= HEAD_CHARS + TAIL_CHARS else f"{text[:HEAD_CHARS]}\n{text[-TAIL_CHARS:]}"
    words = re.findall(r"[a-z]+", text.lower())
    numbers = re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", text)
    return {
        "words": len(words),
        "mean_word_chars": sum(map(len, words)) / (len(words) or 1),
        "long_word_share": sum(len(word) > 7 for word in words) / (len(words) or 1),
        "longest_word_chars": max(map(len, words), default=0),
        "distinct_word_share": len(set(words)) / (len(words) or 1),
        "capital_share": sum(char in ascii_uppercase for char in text) / (len(text) or 1),
        "non_ascii_share": sum(ord(char) > 127 for char in text) / (len(text) or 1),
        "numbers": len(numbers),
        "digit_share": sum(map(len, numbers)) / (len(text) or 1),
        "decimal_numbers": sum("." in number for number in numbers),
        "marks_commas": text.count(","),
        "marks_line_breaks": text.count("\n"),
        "words_what": words.count("what"),
        "words_how_why": words.count("how") + words.count("why"),
        "words_loop": sum(words.count(word) for word in ("for", "while", "range", "append")),
    }


pieces = st.sampled_from(
    ("What ", "how", " why", "for", "while_", "4.5", "1,000", "٣", "é", "İ", "?", ", ", "\n", "A. ", "x" * 300, "WHY")
)


@examples(200)
@given(st.text(max_size=300) | st.lists(pieces, max_size=80).map("".join))
def test_they_are_what_counting_one_by_one_gives(text: str) -> None:
    features = counted(text)
    slowly = counted_slowly(text)
    assert {name: features[name] for name in slowly} == pytest.approx(slowly)


def counted(text: str) -> dict[str, float]:
    return dict(zip(OUTCOME_FEATURE_NAMES, outcome_features(text), strict=True))


@examples(200)
@given(st.text(max_size=3_000))
def test_any_text_gives_finite_features_of_fixed_length(text: str) -> None:
    features = outcome_features(text)

    assert len(features) == len(OUTCOME_FEATURE_NAMES)
    assert all(map(math.isfinite, features))
    assert features == outcome_features(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "\n\n\n",
        "\x00\xff" * 400,
        "🙂" * 2_000,
        "x" * 400_000,
        "9" * 400_000,
        "\ud800",
        "٣٤٥ ²³ Ⅷ",
        "1,000,000.5.2",
    ],
    ids=["empty", "space", "line_breaks", "binary", "emoji", "no_spaces", "digits", "surrogate", "foreign", "dots"],
)
def test_odd_texts_are_counted_too(text: str) -> None:
    assert all(map(math.isfinite, outcome_features(text)))


def test_names_are_distinct() -> None:
    assert len(set(OUTCOME_FEATURE_NAMES)) == len(OUTCOME_FEATURE_NAMES)


def test_only_head_and_tail_are_counted_beside_the_length() -> None:
    head, tail = "a " * (HEAD_CHARS // 2), " z" * (TAIL_CHARS // 2)

    short, long = counted(head + "b 7 $ " * 20 + tail), counted(head + "c 8 ( " * 9_000 + tail)

    assert long.pop("characters") == HEAD_CHARS + TAIL_CHARS + 6 * 9_000
    assert short.pop("characters") == HEAD_CHARS + TAIL_CHARS + 6 * 20
    assert short == long


def test_lettered_options_are_told_from_the_question() -> None:
    question = "Which of the following is the largest?"
    features = counted(f"{question}\nA. 10 cm\nB. 200 cm\nC. a mile\nAnswer:")

    assert features["option_count"] == 3
    assert features["stem_chars"] == len(question)
    assert features["option_numeric_share"] == pytest.approx(2 / 3)
    assert features["option_chars_mean"] == pytest.approx((5 + 6 + 6) / 3)


def test_numbers_are_read_with_their_separators() -> None:
    features = counted("It cost $1,250.50 for 3 and again 3.")

    assert features["numbers"] == 3
    assert features["distinct_numbers"] == 2
    assert features["decimal_numbers"] == 1
    assert features["biggest_number_log2"] == pytest.approx(math.log2(1_251.5))


def test_code_shows_in_indent_and_loops() -> None:
    features = counted("def f(xs):\n    for x in xs:\n        if x:\n            return x")

    assert features["indent_chars_max"] == 12
    assert features["words_loop"] == 1
    assert features["words_branch"] == 2
    assert features["option_count"] == 0
