from __future__ import annotations

from kit.leakage import eight_word_shingles, leaked

TEXT = "a farmer sells twelve eggs a day and keeps three of them for his own breakfast table"
WORDS = TEXT.split()


def test_shingles_ignore_casing_and_punctuation() -> None:
    assert eight_word_shingles("One, two three four five six seven EIGHT nine!") == eight_word_shingles(
        "one two three four five six seven eight nine"
    )
    assert len(eight_word_shingles(TEXT)) == len(WORDS) - 7 == 10


def test_a_short_text_is_one_shingle_and_an_empty_one_none() -> None:
    assert len(eight_word_shingles("two words")) == 1
    assert eight_word_shingles("  ... ") == frozenset()


def test_half_of_the_shingles_is_a_leak_and_less_is_none() -> None:
    other = "entirely different words stand here and share nothing with the eggs at all today"
    assert leaked([" ".join(WORDS[:12])], [other, TEXT]) == [1]  # 5 of 10
    assert leaked([" ".join(WORDS[:11])], [other, TEXT]) == []  # 4 of 10


def test_a_common_frame_is_no_leak_but_the_same_prompt_in_it_is() -> None:
    frame = "answer the following multiple choice question by naming the letter of the right option and no more: "
    evaluation = [f"{frame} what is the colour of thing number {number} in the box" for number in range(300)]
    assert leaked([frame + "who wrote the second symphony in the list below"], evaluation) == []
    assert leaked([evaluation[7]], evaluation) == [7]
