from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.decision.ask import Segment, take_apart
from pointsman_server.decision.learned import learned, shipped_judge
from pointsman_server.decision.wording import (
    FIRST_WORDS,
    LAST_WORDS,
    LEAST_SHARE,
    MOST_ASKING,
    MOST_EDGES,
    MOST_REMEMBERED,
    Reading,
    Wording,
    ask_features,
    asking_shares,
    looked_at,
    tier_features,
)
from pointsman_server.evaluation.tiers import read_labelled

REQUESTS = Path(__file__).parents[2] / "fixtures" / "rubric" / "requests.jsonl"


def data(**changes: Any) -> dict[str, Any]:
    """Knows one mark, one word of asks, and three features of tiers whose squares are 4, 9 and 16."""
    ask = {"bias": -1.0, "unit": 0.5, "marks": {"capital": 4}, "words": {"please": 6}}
    tier = {
        "bias": [0.1, 0.2, 0.3],
        "unit": 0.1,
        "square_unit": 1.0,
        "features": "sort\nprove\n^sort",
        "numbers": [20, 0, 4, -10, -20, 9, 10, 0, 16],
    }
    return {"ask": {**ask, **changes.get("ask", {})}, "tier": {**tier, **changes.get("tier", {})}}


WORDING = Wording(data())


def read(*lines: str, wording: Wording = WORDING) -> Reading:
    return wording.read(wording.hear("\n".join(lines)))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


class TestLoading:
    @pytest.mark.parametrize("features", ["sort\nprove\n^sort\none more", "sort\nprove"])
    def test_features_and_numbers_that_do_not_match_are_refused(self, features: str) -> None:
        with pytest.raises(ValueError, match="zip"):
            Wording(data(tier={"features": features}))


class TestAsking:
    def test_one_segment_is_the_ask_however_unlikely(self) -> None:
        reading = read("nothing known")
        assert (reading.kept, reading.top) == ((0,), 0)
        assert reading.certainty == pytest.approx(sigmoid(-1.0))

    def test_marks_and_words_add_up(self) -> None:
        reading = read("please sort", "Now please sort")
        assert reading.top == 1
        assert reading.certainty == pytest.approx(sigmoid(-1.0 + 3.0 + 2.0))

    def test_only_segments_nearly_as_likely_as_the_likeliest_are_kept(self) -> None:
        assert sigmoid(-1.0) < LEAST_SHARE * sigmoid(2.0) < sigmoid(1.0)
        assert read("prose", "please", "Prose").kept == (1, 2)

    def test_of_equals_the_first_is_the_likeliest(self) -> None:
        assert read("please", "please").top == 0

    def test_certainty_stays_a_probability_at_absurd_weights(self) -> None:
        absurd = Wording(data(ask={"unit": 1e9}))
        assert read("a").certainty < read("please", wording=absurd).certainty <= 1.0
        assert read("Now please", wording=absurd).certainty == pytest.approx(1.0)
        assert 0.0 < read("a", wording=Wording(data(ask={"bias": -1e9}))).certainty < 1e-9

    def test_a_text_without_segments_asks_for_nothing(self) -> None:
        assert WORDING.hear(" \n").sentences == []
        assert not WORDING.hear(" \n").asks_clearly


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
        reading = read("sort")
        length = math.sqrt(20)
        expected = pytest.approx((0.1 + 3 / length, 0.2, 0.3 - 3 / length))
        assert reading.asking == reading.likeliest == reading.everything == expected

    def test_unknown_words_leave_the_bias(self) -> None:
        assert read("nothing known").asking == pytest.approx((0.1, 0.2, 0.3))

    def test_material_counts_in_the_last_view_only(self) -> None:
        reading = read("we prove", "please sort")
        assert reading.kept == (1,)
        alone = read("please sort")
        assert reading.asking == reading.likeliest == alone.asking
        assert reading.everything[2] > reading.asking[2]

    def test_a_kept_segment_counts_by_its_share(self) -> None:
        """In the likeliest `prove` (squared length 9), in the other `sort` and, as one of its first stems, `^sort`."""
        share = sigmoid(1.0) / sigmoid(2.0)
        reading = read("please prove", "Do sort")
        length = math.sqrt(9 + share * share * (4 + 16))
        assert reading.asking == pytest.approx(
            (0.1 + (-1 + share * 3) / length, 0.2 - 2 / length, 0.3 + (3 - share * 3) / length)
        )
        assert reading.likeliest == pytest.approx((0.1 - 1 / 3, 0.2 - 2 / 3, 0.3 + 3 / 3))


class TestMemory:
    def test_a_segment_that_was_read_before_says_the_same(self) -> None:
        known, fresh = Wording(data()), Wording(data())
        read("please prove", "Do sort", wording=known)
        assert read("Do sort", "please prove", "prove", wording=known) == read(
            "Do sort", "please prove", "prove", wording=fresh
        )

    def test_it_is_bounded_whatever_is_read(self) -> None:
        known = Wording(data())
        first = known.hear("please prove").sentences[0]
        assert known.hear("please prove").sentences[0] is first
        for number in range(MOST_REMEMBERED):
            known.hear(f"line {number}")
        assert known.hear("please prove").sentences[0] is not first

    def test_more_segments_than_are_remembered_are_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pointsman_server.decision.wording.MOST_REMEMBERED", 2)
        small = Wording(data())
        small.hear("one\ntwo")
        assert [one.words for one in small.hear("one\nthree\nfour\none").sentences] == [
            ("one",), ("three",), ("four",), ("one",),
        ]  # fmt: skip

    def test_long_segments_are_not_remembered(self) -> None:
        long = "please " * 60
        assert WORDING.hear(long).sentences[0] is not WORDING.hear(long).sentences[0]


@cache
def tier_rows() -> Mapping[str, tuple[int, int, int]]:
    tier = learned()["wording"]["tier"]
    numbers = iter(tier["numbers"])
    return {
        name: tuple(row) for name, *row in zip(tier["features"].split("\n"), numbers, numbers, numbers, strict=True)
    }


def read_by_names(segments: Sequence[Segment]) -> Reading:
    """The reading of these segments, from the data file and the names that training gives what it weighs."""
    ask, tier, rows = learned()["wording"]["ask"], learned()["wording"]["tier"], tier_rows()
    found = [_asks(segment, ask) for segment in segments]
    shares = asking_shares(found)

    def view(weights: Mapping[int, float]) -> tuple[float, float, float]:
        simple = medium = square = 0.0
        for place, weight in weights.items():
            for row in [rows[name] for name in tier_features(segments[place].words) if name in rows]:
                simple += weight * row[0] * tier["unit"]
                medium += weight * row[1] * tier["unit"]
                square += weight * weight * row[2] * tier["square_unit"]
        length = math.sqrt(square) or 1.0
        first, second, third = tier["bias"]
        return first + simple / length, second + medium / length, third - (simple + medium) / length

    top = found.index(max(found))
    return Reading(
        asking=view(dict(enumerate(shares))),
        likeliest=view({top: 1.0}),
        everything=view(dict.fromkeys(looked_at(shares), 1.0)),
        kept=tuple(place for place, share in enumerate(shares) if share),
        top=top,
        certainty=found[top],
    )


def _asks(segment: Segment, ask: Mapping[str, Any]) -> float:
    weights = [ask["marks"].get(name, 0) for name in segment.marks]
    weights += [ask["words"].get(name, 0) for name in ask_features(segment.words)]
    return sigmoid(ask["bias"] + ask["unit"] * sum(weights))


class TestNames:
    """What is added up without names is what training learned by name: else the weights would be those of others."""

    def check(self, text: str) -> None:
        segments = take_apart(text)
        heard = shipped_judge().wording.hear(text)
        assert [tuple(one.words) for one in heard.sentences] == [segment.words for segment in segments]
        assert [one.chars for one in heard.sentences] == [segment.chars for segment in segments]
        assert [tuple(one.tallies) for one in heard.sentences] == [segment.tallies for segment in segments]
        if segments:
            expected, reading = read_by_names(segments), shipped_judge().wording.read(heard)
            assert (reading.kept, reading.top) == (expected.kept, expected.top)
            for view, named in zip(reading[:3], expected[:3], strict=True):
                assert view == pytest.approx(named, abs=1e-9)
            assert reading.certainty == pytest.approx(expected.certainty, abs=1e-12)

    def test_of_labelled_requests(self) -> None:
        requests = read_labelled(REQUESTS)
        assert len(requests) > 400
        for request in requests:
            self.check(f"{request.system}\n\n{request.text}")

    @examples(200)
    @given(
        st.text(max_size=300)
        | st.lists(
            st.sampled_from(
                (
                    *(
                        "Prove",
                        "translate",
                        "transfer",
                        "please sort",
                        "and",
                        "must",
                        "User: ",
                        "- ",
                        "1) ",
                        "2048",
                        "3x",
                    ),
                    *(".\n", "? ", ":\n\n", "```\n", "東京都庁は", "؟ ", "“so”", "été", "   ", "What", "!"),
                )
            ),
            max_size=120,
        ).map(" ".join)
    )
    def test_of_any_text(self, text: str) -> None:
        self.check(text)


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
