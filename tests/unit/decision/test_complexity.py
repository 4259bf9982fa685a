from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import request
from kit.properties import examples
from pointsman_server.decision.complexity import (
    ADVANCED_FROM_SCORE,
    STANDARD_FROM_SCORE,
    judge_complexity,
    tier_of,
)
from pointsman_server.domain.request import GenerationConfig, ReasoningEffort, Tier, Tool

INTERCEPT = -1.6

LIGHT = ("What is the capital of France?", "Translate 'good morning' to German.", "hello")
STANDARD = (
    "Write a function that merges two sorted lists and explain its running time in two sentences.",
    "Summarize the following minutes in five bullet points and draft a reply to the customer.",
)
ADVANCED = (
    "Design a zero-downtime migration strategy for a distributed ledger. It must keep strict consistency, without a "
    "maintenance window, and at most 1 % of writes may be delayed. Compare the trade-offs of two architectures.",
    "Prove that the scheduling algorithm terminates, or give a counterexample; derive its complexity exactly.",
)


def factors_of(text: str, **generation: object) -> dict[str, float]:
    judged = judge_complexity(request(text, generation=GenerationConfig(**generation)))  # type: ignore[arg-type]
    return {factor.name: factor.value for factor in judged.factors}


class TestBands:
    @pytest.mark.parametrize("text", LIGHT)
    def test_light(self, text: str) -> None:
        assert judge_complexity(request(text)).tier is Tier.LIGHT

    @pytest.mark.parametrize("text", STANDARD)
    def test_standard(self, text: str) -> None:
        assert judge_complexity(request(text)).tier is Tier.STANDARD

    @pytest.mark.parametrize("text", ADVANCED)
    def test_advanced(self, text: str) -> None:
        assert judge_complexity(request(text)).tier is Tier.ADVANCED

    @pytest.mark.parametrize(
        ("score", "tier"),
        [
            (0.0, Tier.LIGHT),
            (STANDARD_FROM_SCORE - 1e-9, Tier.LIGHT),
            (STANDARD_FROM_SCORE, Tier.STANDARD),
            (ADVANCED_FROM_SCORE - 1e-9, Tier.STANDARD),
            (ADVANCED_FROM_SCORE, Tier.ADVANCED),
            (1.0, Tier.ADVANCED),
        ],
    )
    def test_edges(self, score: float, tier: Tier) -> None:
        assert tier_of(score) is tier


class TestFactors:
    def test_each_is_seen_where_it_is(self) -> None:
        assert set(factors_of("hello")) == {"length_of_ask"}
        assert "deep_words" in factors_of("prove it")
        assert "step_words" in factors_of("explain it")
        assert "constraints" in factors_of("it must")
        assert "code" in factors_of("def f(x)")
        assert "mathematics" in factors_of("3 + 4 = 7")

    @pytest.mark.parametrize("text", ["do\n- one", "do\n* one", "do\n1. one", "do\n1) one"])
    def test_items_of_a_list_are_constraints(self, text: str) -> None:
        assert "constraints" in factors_of(text)
        assert "constraints" not in factors_of(text.replace("\n", " "))

    @pytest.mark.parametrize("text", ["PROVE it.", "(prove) it", "Prove, then rest"])
    def test_words_count_whatever_stands_around_them(self, text: str) -> None:
        assert "deep_words" in factors_of(text)
        assert "deep_words" not in factors_of("improvements")

    def test_more_of_them_count_for_more(self) -> None:
        assert factors_of("prove the theorem")["deep_words"] > factors_of("prove it")["deep_words"]

    def test_what_the_request_carries(self) -> None:
        assert factors_of("hello", tools=(Tool("f", "", {}),))["tools"] == 0.3
        efforts = [factors_of("hello", reasoning_effort=effort).get("reasoning_effort") for effort in ReasoningEffort]
        assert efforts == [None, 0.2, 0.6, 1.2]

    def test_an_empty_request_has_none(self) -> None:
        judged = judge_complexity(request(messages=()))
        assert (judged.factors, judged.tier) == ((), Tier.LIGHT)

    def test_the_middle_of_a_long_text_is_material(self) -> None:
        filler = "word " * 2_000
        assert "deep_words" not in factors_of(f"{filler} prove the algorithm {filler}")
        assert "deep_words" in factors_of(f"prove the algorithm {filler}")
        assert "deep_words" in factors_of(f"{filler} prove the algorithm")


HOSTILE = {
    "line breaks": "\n" * 3_999 + "x",
    "spaces": " " * 3_999 + "x",
    "SELECT": "SELECT " * 570,
    "digits": "1" * 3_999 + "x",
    "braces": "{ " * 1_999 + "x",
    "backslashes": "\\" + "w" * 3_998,
    "a megabyte": "prove " * 170_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_text_costs_much_more_than_prose_of_its_length(name: str) -> None:
    """A pattern that backtracks needs hundreds of times as long for one of these."""
    prose = ("The quick brown fox jumps over the lazy dog. " * 100)[:4_000]
    assert cpu_seconds(HOSTILE[name]) < 60 * cpu_seconds(prose)


def cpu_seconds(text: str) -> float:
    """The least of some tries, so that a busy machine does not spoil the comparison."""
    spent = []
    for _ in range(5):
        started_at = time.process_time()
        judge_complexity(request(text))
        spent.append(time.process_time() - started_at)
    return min(spent)


texts = st.lists(
    st.sampled_from(("prove", "explain", "must", "def f(", "3 + 4", "{\n", "hello", "\n- ", "SELECT a FROM b", "日本")),
    max_size=60,
).map(" ".join) | st.text(max_size=200)


class TestProperties:
    @examples(150)
    @given(texts)
    def test_the_factors_add_up_to_the_score(self, text: str) -> None:
        judged = judge_complexity(request(text))
        assert 0.0 < judged.score < 1.0
        assert judged.tier is tier_of(judged.score)
        assert all(factor.value > 0 for factor in judged.factors)
        logit = INTERCEPT + sum(factor.value for factor in judged.factors)
        assert judged.score == pytest.approx(1 / (1 + math.exp(-logit)), abs=1e-4)

    @examples(50)
    @given(texts)
    def test_it_is_the_same_each_time(self, text: str) -> None:
        assert judge_complexity(request(text)) == judge_complexity(request(text))

    @examples(50)
    @given(texts, st.sampled_from(ReasoningEffort))
    def test_tools_and_effort_never_make_it_look_easier(self, text: str, effort: ReasoningEffort) -> None:
        harder = GenerationConfig(tools=(Tool("f", "", {}),), reasoning_effort=effort)
        assert judge_complexity(request(text, generation=harder)).score >= judge_complexity(request(text)).score
