from __future__ import annotations

import math
from typing import Any

import pytest

from pointsman_server.decision.ask import Segment
from pointsman_server.decision.rubric import MOST_COUNTED_WORDS, Rubric, request_counts
from pointsman_server.decision.wording import Reading

INPUTS = 9 + 13
ASK = Segment(("sort", "these", ",", "then", "3", "more", "?"), (), 20)
MATERIAL = Segment(("data", ":"), (), 60)
READING = Reading((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (7.0, 8.0, 9.0), kept=(1,), top=1, certainty=0.75)


def weights(**at: float) -> list[float]:
    """All 0 but for those at `i<place>`."""
    found = [0.0] * INPUTS
    for place, weight in at.items():
        found[int(place[1:])] = weight
    return found


def data(hidden: list[Any], outputs: list[Any], **changes: Any) -> dict[str, Any]:
    plain = {"means": [0.0] * INPUTS, "scales": [1.0] * INPUTS, "temperature": 1.0}
    return {**plain, "hidden": hidden, "outputs": outputs, **changes}


def judged(loaded: dict[str, Any]) -> tuple[float, float, float]:
    return Rubric.load(loaded).judge(READING, [MATERIAL, ASK])


def softmax(*totals: float) -> tuple[float, ...]:
    powers = [math.exp(total) for total in totals]
    return tuple(power / sum(powers) for power in powers)


class TestNetwork:
    def test_by_hand(self) -> None:
        """Unit 0 is 0.5 + 2·(first view, complex = 3) = 6.5; unit 1 is 1 - 7 (third view, simple): shut."""
        hidden = [[0.5, weights(i2=2.0)], [1.0, weights(i6=-1.0)]]
        outputs = [[0.1, [0.0, 5.0]], [0.2, [0.1, 0.0]], [0.3, [0.2, 0.0]]]
        assert judged(data(hidden, outputs)) == pytest.approx(softmax(0.1, 0.2 + 0.65, 0.3 + 1.3))

    def test_standardisation_is_undone(self) -> None:
        """Input 2 is 3; (3 - 1) / 4 = 0.5 is what the weight is for."""
        means, scales = [0.0] * INPUTS, [1.0] * INPUTS
        means[2], scales[2] = 1.0, 4.0
        hidden = [[0.25, weights(i2=2.0)]]
        outputs = [[0.0, [1.0]], [0.0, [0.0]], [0.0, [0.0]]]
        assert judged(data(hidden, outputs, means=means, scales=scales)) == pytest.approx(softmax(1.25, 0, 0))

    def test_temperature_divides_the_totals(self) -> None:
        hidden = [[1.0, weights()]]
        outputs = [[1.0, [2.0]], [0.0, [0.0]], [0.0, [0.0]]]
        assert judged(data(hidden, outputs, temperature=2.0)) == pytest.approx(softmax(1.5, 0, 0))

    def test_huge_totals_do_not_overflow(self) -> None:
        outputs = [[9_000.0, [0.0]], [0.0, [0.0]], [-9_000.0, [0.0]]]
        assert judged(data([[0.0, weights()]], outputs)) == (1.0, 0.0, 0.0)

    def test_weights_for_another_number_of_inputs_are_refused(self) -> None:
        with pytest.raises(ValueError, match="argument 2"):
            Rubric.load(data([[0.0, [1.0]]], []))


class TestCounts:
    def test_by_hand(self) -> None:
        counts = request_counts([MATERIAL, ASK], kept=(1,), top=1, certainty=0.75)
        assert counts == pytest.approx(
            (
                math.log1p(2),  # segments
                math.log1p(1),  # those that ask
                math.log1p(20),  # their length
                math.log1p(20),  # that of the likeliest
                math.log1p(80),  # that of all
                math.log1p(1),  # the comma
                math.log1p(1),  # the number
                1.0,  # a question mark
                0.0,  # no colon in what asks
                0.75,
                20 / 80,
                7 / 7,  # all words differ
                (4 + 5 + 1 + 4 + 1 + 4 + 1) / 7,
            )
        )
        assert len(counts) == INPUTS - 9

    @pytest.mark.parametrize("word", ["and", "ohne", "sans", "pero", "или", "，", "、"])  # noqa: RUF001 - as written
    def test_what_joins_wishes_counts_in_several_languages(self, word: str) -> None:
        one = Segment((word, word), (), 5)
        assert request_counts([one], (0,), 0, 1.0)[5] == pytest.approx(math.log1p(2))

    @pytest.mark.parametrize(("word", "place"), [("？", 7), ("؟", 7), (":", 8), ("：", 8)])  # noqa: RUF001 - as written
    def test_signs_of_other_scripts_count(self, word: str, place: int) -> None:
        assert request_counts([Segment((word,), (), 1)], (0,), 0, 1.0)[place] == 1.0

    def test_of_many_words_the_first_are_counted(self) -> None:
        one = Segment(("and",) * 70, (), 280)
        counts = request_counts([one, one], kept=(0, 1), top=0, certainty=1.0)
        assert counts[5] == pytest.approx(math.log1p(MOST_COUNTED_WORDS))

    def test_a_segment_without_words_divides_nothing_by_zero(self) -> None:
        counts = request_counts([Segment((), (), 0)], (0,), 0, 1.0)
        assert counts[-3:] == (0.0, 0.0, 0.0)
