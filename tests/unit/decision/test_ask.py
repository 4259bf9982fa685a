from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.decision.ask import MOST_WORDS, Segment, take_apart, words_of
from pointsman_server.decision.layout import HEAD_CHARS, MOST_SEGMENTS, TAIL_CHARS


def texts(text: str) -> list[str]:
    """What each segment says, by its words."""
    return [" ".join(segment.words) for segment in take_apart(text)]


def marks(text: str, place: int = 0) -> tuple[str, ...]:
    return take_apart(text)[place].marks


class TestSegments:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Sort them. Then stop!", ["sort them .", "then stop !"]),
            ("one\ntwo\n\n three ", ["one", "two", "three"]),
            ("What is 3.14? Tell me", ["what is 3 . 14 ?", "tell me"]),
            ("これは何？教えて。", ["これ れは は何 ？", "教え えて 。"]),  # noqa: RUF001 - as it is written
            ("نص؟ كلمة", ["نص ؟", "كلمة"]),
            ("", []),
            (" \n\t\n ", []),
        ],
    )
    def test_they_are_sentences_and_lines(self, text: str, expected: list[str]) -> None:
        assert texts(text) == expected

    def test_chars_are_those_of_the_sentence_without_blanks_around_it(self) -> None:
        assert [segment.chars for segment in take_apart("  Sort them.   Stop \n")] == [10, 4]

    def test_the_middle_of_a_long_text_is_left_out(self) -> None:
        middle = "m" * 50
        text = "a" * HEAD_CHARS + middle + "z" * TAIL_CHARS
        assert [segment.chars for segment in take_apart(text)] == [HEAD_CHARS, TAIL_CHARS]
        assert [segment.chars for segment in take_apart(text.replace(middle, ""))] == [HEAD_CHARS + TAIL_CHARS]

    def test_of_many_segments_the_first_and_the_last_are_kept(self) -> None:
        found = texts("\n".join(str(number) for number in range(MOST_SEGMENTS + 40)))
        half = MOST_SEGMENTS // 2
        assert found == [str(number) for number in (*range(half), *range(half + 40, MOST_SEGMENTS + 40))]


class TestWords:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("Don't STOP, 2 go", ("don", "'", "t", "stop", ",", "2", "go")),
            ("snake_case", ("snake", "case")),
            ("Größe ÉTÉ", ("größe", "été")),
            ("東京", ("東京",)),
            ("東京都庁", ("東京", "京都", "都庁")),
            ("ประเทศ", ("ปร", "ระ", "ะเ", "เท", "ทศ")),
            ("a🙂b", ("a", "🙂", "b")),
            (" _ ", ()),
        ],
    )
    def test_they_are_words_numbers_and_signs(self, text: str, expected: tuple[str, ...]) -> None:
        assert words_of(text) == expected

    def test_only_so_many_are_looked_at(self) -> None:
        assert len(words_of("word " * 500)) == MOST_WORDS
        assert len(words_of("東" * 500)) == 2 * MOST_WORDS


class TestMarks:
    def test_places_are_told_from_both_ends(self) -> None:
        first, second, last = take_apart("One.\n\nTwo. Three.")
        assert {"from start 0 of 3", "from end 2 of 3", "paragraph 0 1 of 1"} <= set(first.marks)
        assert {"from start 1 of 3", "from end 1 of 3", "paragraph 1 0 of 2", "in paragraph 0 1"} <= set(second.marks)
        assert {"from start 2 of 3", "from end 0 of 3", "in paragraph 1 0"} <= set(last.marks)

    def test_counts_are_rough_and_bounded(self) -> None:
        found = take_apart("\n".join("line" for _ in range(MOST_SEGMENTS)))
        assert "from start 6 of 6" in found[-1].marks
        assert "from start 5 of 6" in found[10].marks

    def test_a_paragraph_is_told_where_it_stands_against_the_biggest(self) -> None:
        before, big, after = take_apart("Do it.\n\n" + "x" * 300 + "\n\nNow.")
        assert "biggest -1 3" in before.marks
        assert "biggest 0 3" in big.marks
        assert "biggest 1 3" in after.marks
        assert "paragraph length 1 2" in big.marks
        assert "share 5" in big.marks

    @pytest.mark.parametrize(
        ("text", "mark"),
        [
            ("Capital letter", "capital"),
            ("> quoted", "begins >"),
            ("is it?", "ends ?"),
            ("no end", "ends"),
            ("User: hello", "speaker"),
            ("- an item", "bullet"),
            ("2) an item", "bullet"),
            ("a" * 60, "length 2"),
            ("a" * 900, "length 8"),
            ("how many", "first how"),
            ("how many", "last many"),
            ("how many", "first two how many"),
            ("12 + 3", "digits 5"),
            ("## hi", "signs 5"),
        ],
    )
    def test_shape(self, text: str, mark: str) -> None:
        assert mark in marks(text)

    def test_a_text_without_words_has_no_marks_of_words(self) -> None:
        assert not [mark for mark in marks("___") if mark.startswith(("first", "last", "signs", "digits"))]

    def test_one_word_has_no_pair(self) -> None:
        assert "first hello" in marks("hello")
        assert "first two hello" not in " ".join(marks("hello"))

    @pytest.mark.parametrize("fence", ["```", "~~~", '"""', "'''"])
    def test_what_is_inside_a_fence_is_told(self, fence: str) -> None:
        before, opening, inside, closing, after = take_apart(f"Fix this\n{fence}py\nx = 1\n{fence}\nthanks")
        assert ["fenced" in one.marks for one in (before, opening, inside, closing, after)] == [
            False, True, True, False, False,
        ]  # fmt: skip

    def test_what_follows_a_colon_is_told(self) -> None:
        assert "after colon" in marks("Translate:\nthe house", 1)
        assert "below colon" in marks("Translate:\n\nthe house", 1)
        assert "below colon" in marks("翻译：\n\n房子", 1)  # noqa: RUF001 - as it is written
        assert not [mark for mark in marks("Translate\n\nthe house", 1) if "colon" in mark]


@examples(150)
@given(st.text(max_size=400) | st.text("a.\n!`: 東?-", max_size=4_000))
def test_any_text_gives_bounded_segments_of_its_own_words(text: str) -> None:
    found = take_apart(text)
    assert len(found) <= MOST_SEGMENTS
    assert bool(found) == bool(text.strip()) or len(text) > HEAD_CHARS + TAIL_CHARS
    for segment in found:
        assert isinstance(segment, Segment)
        assert 0 < segment.chars <= HEAD_CHARS + TAIL_CHARS
        assert len(segment.words) <= 2 * MOST_WORDS
        assert all(word and not re.search(r"\s", word) for word in segment.words)


@examples(50)
@given(st.text(max_size=300))
def test_blank_lines_around_a_text_change_nothing(text: str) -> None:
    assert take_apart(f"\n\n{text}\n \n") == take_apart(text)
