from __future__ import annotations

import math
from typing import Any

import pytest

from pointsman_server.decision.ask import Segment
from pointsman_server.decision.wording import (
    FIRST_WORDS,
    LAST_WORDS,
    LEAST_SHARE,
    MOST_ASKING,
    MOST_EDGES,
    Wording,
    ask_features,
    asking_shares,
    looked_at,
    tier_features,
)


def segment(text: str, *marks: str) -> Segment:
    return Segment(tuple(text.split()), marks, len(text))


def data(**changes: Any) -> dict[str, Any]:
    """Knows one mark, one word of asks, and three features of tiers whose squares are 4, 9 and 16."""
    ask = {"bias": -1.0, "unit": 0.5, "marks": {"last": 4}, "words": {"please": 6}}
    tier = {
        "bias": [0.1, 0.2, 0.3],
        "unit": 0.1,
        "square_unit": 1.0,
        "features": "sort\nprove\n^sort",
        "numbers": [20, 0, 4, -10, -20, 9, 10, 0, 16],
    }
    return {"ask": {**ask, **changes.get("ask", {})}, "tier": {**tier, **changes.get("tier", {})}}


WORDING = Wording.load(data())


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


class TestLoading:
    def test_whole_numbers_become_weights_by_their_unit(self) -> None:
        assert (WORDING.ask_bias, WORDING.ask_marks, WORDING.ask_words) == (-1.0, {"last": 2.0}, {"please": 3.0})
        assert WORDING.tier_bias == (0.1, 0.2, 0.3)
        assert WORDING.tier_rows["prove"] == pytest.approx((-1.0, -2.0, 3.0, 9.0))

    def test_the_three_weights_of_a_feature_sum_to_nothing(self) -> None:
        assert all(sum(row[:3]) == pytest.approx(0.0) for row in WORDING.tier_rows.values())

    @pytest.mark.parametrize("features", ["sort\nprove\n^sort\none more", "sort\nprove"])
    def test_features_and_numbers_that_do_not_match_are_refused(self, features: str) -> None:
        with pytest.raises(ValueError, match="zip"):
            Wording.load(data(tier={"features": features}))


class TestAsking:
    def test_one_segment_is_the_ask_however_unlikely(self) -> None:
        reading = WORDING.read([segment("nothing known")])
        assert (reading.kept, reading.top) == ((0,), 0)
        assert reading.certainty == pytest.approx(sigmoid(-1.0))

    def test_marks_and_words_add_up(self) -> None:
        reading = WORDING.read([segment("please sort"), segment("please sort", "last", "unknown mark")])
        assert reading.top == 1
        assert reading.certainty == pytest.approx(sigmoid(-1.0 + 3.0 + 2.0))

    def test_only_segments_nearly_as_likely_as_the_likeliest_are_kept(self) -> None:
        likely, unlikely, half = segment("please"), segment("prose"), segment("prose", "last")
        assert sigmoid(-1.0) < LEAST_SHARE * sigmoid(2.0) < sigmoid(1.0)
        assert WORDING.read([unlikely, likely, half]).kept == (1, 2)

    def test_of_equals_the_first_is_the_likeliest(self) -> None:
        assert WORDING.read([segment("please"), segment("please")]).top == 0

    def test_certainty_stays_a_probability_at_absurd_weights(self) -> None:
        absurd = Wording.load(data(ask={"unit": 1e9}))
        assert WORDING.read([segment("a")]).certainty < absurd.read([segment("please")]).certainty <= 1.0
        assert absurd.read([segment("please", "last")]).certainty == pytest.approx(1.0)


class TestShares:
    def test_they_are_of_the_highest(self) -> None:
        assert asking_shares([0.2, 0.8, 0.4]) == pytest.approx([0.0, 1.0, 0.5])
        assert asking_shares([1.0, LEAST_SHARE, LEAST_SHARE - 0.001]) == [1.0, LEAST_SHARE, 0.0]

    def test_of_many_the_highest_are_kept(self) -> None:
        found = [1.0 - 0.01 * place for place in range(MOST_ASKING + 5)]
        assert asking_shares(found) == pytest.approx([*found[:MOST_ASKING], *[0.0] * 5])

    def test_no_more_is_read_than_what_asks_and_the_edges(self) -> None:
        edge = MOST_EDGES // 2
        shares = [0.0] * (MOST_EDGES + 10)
        shares[edge + 3] = 1.0
        last = len(shares)
        assert looked_at(shares) == [*range(edge), edge + 3, *range(last - edge, last)]

    def test_of_few_segments_all_are_read(self) -> None:
        assert looked_at([0.0, 1.0]) == [0, 1]


class TestViews:
    def test_evidence_over_the_length_of_the_text(self) -> None:
        """`sort` and `^sort` weigh 2 + 1 for simple and -2 - 1 for complex; the length is √(4 + 16)."""
        reading = WORDING.read([segment("sort")])
        length = math.sqrt(20)
        expected = pytest.approx((0.1 + 3 / length, 0.2, 0.3 - 3 / length))
        assert reading.asking == reading.likeliest == reading.everything == expected

    def test_unknown_words_leave_the_bias(self) -> None:
        assert WORDING.read([segment("nothing known")]).asking == pytest.approx((0.1, 0.2, 0.3))

    def test_material_counts_in_the_last_view_only(self) -> None:
        material, ask = segment("we prove"), segment("please sort")
        reading = WORDING.read([material, ask])
        assert reading.kept == (1,)
        alone = WORDING.read([ask])
        assert reading.asking == reading.likeliest == alone.asking
        assert reading.everything[2] > reading.asking[2]

    def test_a_kept_segment_counts_by_its_share(self) -> None:
        """In the likeliest `prove` (squared length 9), in the other `sort` and, as one of its first stems, `^sort`."""
        first, second = segment("please prove"), segment("do sort", "last")
        share = sigmoid(1.0) / sigmoid(2.0)
        reading = WORDING.read([first, second])
        length = math.sqrt(9 + share * share * (4 + 16))
        assert reading.asking == pytest.approx(
            (0.1 + (-1 + share * 3) / length, 0.2 - 2 / length, 0.3 + (3 - share * 3) / length)
        )
        assert reading.likeliest == pytest.approx((0.1 - 1 / 3, 0.2 - 2 / 3, 0.3 + 3 / 3))


class TestFeatures:
    def test_of_asks(self) -> None:
        assert ask_features(("translate", "this", "this")) == {"translate", "trans…", "this"}
        assert ask_features(("words",)) == {"words"}

    def test_of_a_long_segment_only_its_ends_tell_whether_it_asks(self) -> None:
        words = [f"w{number}" for number in range(FIRST_WORDS + LAST_WORDS + 4)]
        assert ask_features(words) == {*words[:FIRST_WORDS], *words[-LAST_WORDS:]}
        assert ask_features(words[: FIRST_WORDS + LAST_WORDS]) == set(words[: FIRST_WORDS + LAST_WORDS])

    def test_of_tiers(self) -> None:
        assert sorted(tier_features(("translate", "into", "greek"))) == sorted(
            [
                *("translate", "…ate", "trans…", "into", "greek", "…eek"),
                *("transl into", "into greek", "^transl", "^into", "^greek"),
            ]
        )

    def test_of_no_words_there_are_none(self) -> None:
        assert list(tier_features(())) == []
        assert ask_features(()) == set()

    def test_a_repeated_word_or_pair_counts_once(self) -> None:
        found = list(tier_features(("go", "go", "go", "go")))
        assert sorted(found) == ["^go", "^go", "^go", "go", "go go"]
