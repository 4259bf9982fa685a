from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.decision.ask import MOST_WORDS, words_of
from pointsman_server.decision.layout import lay_out
from pointsman_server.decision.vocabulary import FEATURE_SHIFT, MOST_NEW_WORDS, TierWeights, Vocabulary
from pointsman_server.decision.wording import tier_features

FEATURES = {
    "sort": (5, -7, 9),
    "!": (1, 2, 3),
    "…": (-4, 0, 1),
    "^": (8, -8, 2),
    "…ate": (-100, 50, 30),
    "trans…": (400, -399, 999),
    "transl": (1, 1, 1),
    "^transl": (-20, -30, 40),
    "sort sort": (11, -13, 17),
    "transl sort": (2_000, -2_000, 4_000),
    "! !": (0, 0, 0),
}
ASKS = {"please": 6, "trans…": -5, "…": 2, "?": 999}


def tier_data(features: dict[str, tuple[int, int, int]]) -> dict[str, Any]:
    return {"features": "\n".join(features), "numbers": [one for row in features.values() for one in row]}


TIER = TierWeights(tier_data(FEATURES))


def vocabulary() -> Vocabulary:
    return Vocabulary(ASKS, TIER)


def words_read(segments: list[str], known: Vocabulary) -> list[tuple[str, ...]]:
    words, bounds = known.read(segments)
    return [tuple(words.words[start:end]) for start, end in bounds]


def weights_of(words: tuple[str, ...]) -> tuple[int, int, int]:
    known = vocabulary()
    return TIER.of_segment(words, [known[word][3] for word in words], [word[:6] for word in words])


class TestTierWeights:
    @examples(300)
    @given(
        st.lists(st.sampled_from(("sort", "translate", "translation", "rotate", "!", "…", "^", "late")), max_size=40)
    )
    def test_they_are_those_of_the_features_by_name(self, words: list[str]) -> None:
        found = [FEATURES[name] for name in tier_features(words) if name in FEATURES]
        expected = tuple(map(sum, zip(*found, strict=True))) if found else (0, 0, 0)
        assert weights_of(tuple(words)) == expected

    def test_the_largest_weights_of_the_longest_segment_fit(self) -> None:
        """As many distinct words as are looked at, of which the weights of none may spill over into another's."""
        words = tuple(f"w{chr(0x100 + number)}rd{chr(0x200 + number)}" for number in range(2 * MOST_WORDS))
        names = {name: (-2_000, 2_000, 4_000) for name in tier_features(words)}
        tier = TierWeights(tier_data(names))
        weights = [tier.of_word(word) for word in words]
        count = len(tier_features(words))
        found = tier.of_segment(words, weights, [word[:6] for word in words])
        assert found == (-2_000 * count, 2_000 * count, 4_000 * count)

    @pytest.mark.parametrize("numbers", [(2_001, 0, 0), (0, -2_001, 0), (0, 0, 4_001), (0, 0, -1)])
    def test_weights_that_would_not_fit_are_refused(self, numbers: tuple[int, int, int]) -> None:
        with pytest.raises(ValueError, match="weights go to 2000, squares to 4000; train it again"):
            TierWeights(tier_data({"sort": numbers}))


class TestWords:
    @examples(300)
    @given(
        st.text(max_size=400)
        | st.text("aZé9٣²東ไ_.!-“ \t' İßΣ\ud800", max_size=400)
        | st.lists(st.sampled_from(("it", "don't", "2x", "東京都庁", "“so”", "a_b", "3.1", "!!")), max_size=60).map(
            " ".join
        )
    )
    def test_they_are_the_words_that_the_pattern_finds(self, text: str) -> None:
        known = vocabulary()
        segments = lay_out(text).segments
        for _ in range(2 if segments else 0):  # as found at first, and as remembered
            for segment, words in zip(segments, words_read(segments, known), strict=True):
                expected = words_of(segment)
                if len(words) <= MOST_WORDS or segment.isascii():
                    assert words[:MOST_WORDS] == expected
                else:
                    assert tuple(known.of_segment(segment).words) == expected

    def test_what_is_known_of_a_word(self) -> None:
        known = vocabulary()
        asks, beginning, _, weights, word, stem = known["translate"]
        assert (asks, beginning >> FEATURE_SHIFT, word, stem) == (0, -5, "translate", "transl")
        assert TIER.of_segment((word,), [weights], (stem,)) == weights_of(("translate",))
        assert known["please"][0] >> FEATURE_SHIFT == 6

    def test_features_differ_even_if_their_weights_are_the_same(self) -> None:
        known = Vocabulary({"do": 5, "make": 5, "build…": 5}, TIER)
        features = {known["do"][0], known["make"][0], known["building"][1]}
        assert len(features) == 3
        assert sum(features) >> FEATURE_SHIFT == 15

    def test_new_words_are_remembered_for_a_while(self) -> None:
        known = vocabulary()
        size = len(known)
        for number in range(MOST_NEW_WORDS + 10):
            known[f"word{number}"]
        assert len(known) == size + MOST_NEW_WORDS
        assert "please" in known

    def test_long_ones_are_not(self) -> None:
        known = vocabulary()
        known["x" * 25]
        assert "x" * 25 not in known
