from __future__ import annotations

import math
from typing import Any

import pytest

from pointsman_server.decision.judge import (
    CHEAP_QUALITY,
    LEAST_DISCRIMINATION,
    STRONG_QUALITY,
    SUCCESS_BY_TIER,
    UNSURE_BELOW,
    Judge,
    Outcomes,
)
from pointsman_server.decision.quality import quality_at
from pointsman_server.domain.plan import TaskType
from pointsman_server.domain.request import Tier

FAMILIAR, STRANGE = 6_000, -6_000
"""Thousandths: what the judge makes of them is 0.9975 and 0.0025."""


def outcomes(need: int = 0, cheap: int = 0, strong: int = 0, familiar: int = 0, **changes: Any) -> dict[str, Any]:
    """Forests of one leaf each, in thousandths, whatever the text."""
    values = {"need": need, "cheap": cheap, "strong": strong, "familiar": familiar}
    plain = {
        "forest": {
            "thresholds": [[0.0], *[[] for _ in range(60)]],
            "targets": {name: {"bias": 0.0, "scale": 0.001, "trees": [value]} for name, value in values.items()},
        },
        "need_knots": [-1.0, 0.0, 2.0],
        "tiers": {"cheap": [1.0, 0.0, 0.0, 0.0], "strong": [0.0, 1.0, 0.0, 0.0]},
    }
    return {**plain, **changes}


def judge(
    simple: float, medium: float, complex_: float, *, words: dict[str, int] | None = None, **of_outcomes: Any
) -> Judge:
    """A judge for which every request has these probabilities of its tiers."""
    biases = [[math.log(max(one, 1e-9)), [0.0]] for one in (simple, medium, complex_)]
    return Judge.load(
        {
            "wording": {
                "ask": {"bias": -1.0, "unit": 1.0, "marks": {}, "words": words or {}},
                "tier": {
                    "bias": [0.0, 0.0, 0.0],
                    "unit": 1.0,
                    "square_unit": 1.0,
                    "features": "unheard-of",
                    "numbers": [0, 0, 1],
                },
            },
            "rubric": {
                "means": [0.0] * 22,
                "scales": [1.0] * 22,
                "temperature": 1.0,
                "hidden": [[0.0, [0.0] * 22]],
                "outputs": biases,
            },
            "tasks": {"types": ["chat", "lookup"], "bias": [0.0, 0.0], "unit": 1.0, "rows": {"who": [1, 1]}},
            "outcomes": outcomes(**of_outcomes),
        }
    )


def logit(chance: float) -> float:
    return math.log(chance / (1 - chance))


class TestTier:
    @pytest.mark.parametrize(
        ("probabilities", "tier"),
        [
            ((0.6, 0.3, 0.1), Tier.LIGHT),
            ((0.1, 0.6, 0.3), Tier.STANDARD),
            ((0.1, 0.3, 0.6), Tier.ADVANCED),
            ((0.5, 0.4, 0.1), Tier.LIGHT),
            ((0.1, 0.42, 0.48), Tier.ADVANCED),
        ],
    )
    def test_the_likeliest_wins(self, probabilities: tuple[float, float, float], tier: Tier) -> None:
        judged = judge(*probabilities).judge("do it")
        assert judged.tier is tier
        assert judged.tier_probabilities == pytest.approx(probabilities)

    def test_doubt_is_told_and_changes_nothing(self) -> None:
        judged = judge(0.46, 0.1, 0.44).judge("do it")
        assert judged.tier is Tier.LIGHT
        assert dict(judged.factors)["unsure"] == pytest.approx(0.54)

    def test_who_is_sure_does_not_say_unsure(self) -> None:
        assert "unsure" not in dict(judge(UNSURE_BELOW + 0.01, 0.2, 0.24).judge("do it").factors)
        assert "unsure" in dict(judge(UNSURE_BELOW - 0.01, 0.3, 0.16).judge("do it").factors)


class TestScore:
    """By the need of a strong model as far as the request is like the recorded ones, else by the tier."""

    @pytest.mark.parametrize(
        ("need", "quantile"), [(-5_000, 0.0), (-1_000, 0.0), (-500, 0.25), (1_000, 0.75), (9_000, 1.0)]
    )
    def test_familiar_requests_go_by_the_need_of_a_strong_model(self, need: int, quantile: float) -> None:
        judged = judge(0, 1, 0, need=need, familiar=FAMILIAR).judge("do it")
        assert dict(judged.factors)["need_of_strong_model"] == quantile
        assert judged.score == pytest.approx(quantile, abs=0.01)

    def test_strange_requests_go_by_the_wording(self) -> None:
        """Expected are 0·0.1 + 1·0.7 + 2·0.2 = 1.1 tiers: (1.1 - 1 + 1) / 2 = 0.55 of the second third."""
        judged = judge(0.1, 0.7, 0.2, need=9_000, familiar=STRANGE).judge("do it")
        assert judged.score == pytest.approx((1 + 0.005 + 0.99 * 0.55) / 3, abs=0.01)
        assert dict(judged.factors)["wording"] == pytest.approx(0.55)

    def test_half_familiar_goes_half_by_either(self) -> None:
        judged = judge(0, 0, 1, need=-5_000, familiar=0).judge("do it")
        assert dict(judged.factors)["familiar"] == 0.5
        assert judged.score == pytest.approx(0.5 * 0.0 + 0.5 * (2 + 0.005 + 0.99 * 0.5) / 3, abs=1e-4)

    @pytest.mark.parametrize("sure", range(3))
    def test_that_of_a_strange_request_lies_in_the_third_of_its_tier(self, sure: int) -> None:
        judged = judge(*[float(place == sure) for place in range(3)], familiar=STRANGE).judge("do it")
        assert sure / 3 < judged.score < (sure + 1) / 3

    @pytest.mark.parametrize("need", [-9_000, 9_000])
    @pytest.mark.parametrize("familiar", [-99_000, 99_000])
    @pytest.mark.parametrize("sure", range(3))
    def test_it_stays_a_score_and_leaves_the_tier_alone(self, need: int, familiar: int, sure: int) -> None:
        judged = judge(*[float(place == sure) for place in range(3)], need=need, familiar=familiar).judge("do it")
        assert 0.0 <= judged.score <= 1.0
        assert judged.tier == sure + 1


class TestItem:
    """Difficulty and discrimination, with which the panels' own qualities get back what is known of them."""

    def test_of_a_strange_request(self) -> None:
        judged = judge(0, 1, 0, familiar=-99_000).judge("do it")
        share = 1 / (1 + math.exp(6.0))
        cheap = logit(SUCCESS_BY_TIER[0][1]) * (1 - share)
        strong = logit(SUCCESS_BY_TIER[1][1]) * (1 - share)
        assert logit(quality_at(CHEAP_QUALITY, judged.difficulty, judged.discrimination)) == pytest.approx(
            cheap, abs=1e-3
        )
        assert logit(quality_at(STRONG_QUALITY, judged.difficulty, judged.discrimination)) == pytest.approx(
            strong, abs=1e-3
        )

    def test_of_a_familiar_one(self) -> None:
        judged = judge(0, 1, 0, cheap=-1_000, strong=3_000, familiar=FAMILIAR).judge("do it")
        found = [
            logit(quality_at(one, judged.difficulty, judged.discrimination)) for one in (CHEAP_QUALITY, STRONG_QUALITY)
        ]
        assert found == pytest.approx([-1.0, 3.0], abs=0.02)

    def test_harder_tiers_are_more_difficult(self) -> None:
        found = [
            judge(*[float(place == tier) for place in range(3)], familiar=STRANGE).judge("do it").difficulty
            for tier in range(3)
        ]
        assert found == sorted(found)

    def test_a_strong_model_is_never_taken_for_the_worse_one(self) -> None:
        judged = judge(0, 1, 0, cheap=3_000, strong=-1_000, familiar=FAMILIAR).judge("do it")
        assert judged.discrimination == LEAST_DISCRIMINATION
        low, high = [
            quality_at(one, judged.difficulty, judged.discrimination) for one in (CHEAP_QUALITY, STRONG_QUALITY)
        ]
        assert low < high


class TestOutcomes:
    def test_abilities_weigh_both_scores_the_need_and_an_offset(self) -> None:
        tiers = {"cheap": [1.0, 0.0, -0.5, 0.25], "strong": [0.5, 0.5, 0.0, 1.0]}
        found = Outcomes.load(outcomes(need=1_000, cheap=2_000, strong=3_000, tiers=tiers)).judge("do it")
        assert found.cheap_logit == pytest.approx(2.0 - 0.5 + 0.25)
        assert found.strong_logit == pytest.approx(1.0 + 1.5 + 1.0)
        assert (found.need, found.familiar) == (0.75, 0.5)

    def test_scores_beyond_reason_are_bounded(self) -> None:
        found = Outcomes.load(outcomes(cheap=-50_000, strong=50_000, familiar=50_000)).judge("do it")
        assert (found.cheap_logit, found.strong_logit) == (-6.0, 6.0)
        assert found.familiar == pytest.approx(1 / (1 + math.exp(-6)))


class TestWords:
    def test_task_and_freshness_are_those_of_what_asks(self) -> None:
        """The material's own question counts for nothing where something else clearly asks."""
        material = "Nobody told who has the latest news."
        judged = judge(1, 0, 0, words={"answer": 9}).judge(f"{material}\n\nPlease answer")
        assert (judged.task, judged.needs_fresh_facts) == (TaskType.CHAT, False)
        alone = judge(1, 0, 0).judge("Who has the latest news")
        assert (alone.task, alone.needs_fresh_facts) == (TaskType.LOOKUP, True)

    def test_all_that_asks_is_read(self) -> None:
        assert judge(1, 0, 0, words={"please": 3}).judge("Please look. Please tell who.").task is TaskType.LOOKUP

    def test_a_text_without_anything_in_it_is_light(self) -> None:
        judged = judge(0, 0, 1).judge(" \n ")
        assert (judged.score, judged.tier, judged.factors) == (0.0, Tier.LIGHT, ())
        assert judged.tier_probabilities == (1.0, 0.0, 0.0)

    def test_asking_clearly_is_more_likely_than_not(self) -> None:
        hear = judge(1, 0, 0, words={"please": 3}).wording.hear
        assert hear("please").asks_clearly
        assert not hear("well").asks_clearly
        assert not hear(" ").asks_clearly


class TestMemory:
    """What was judged is remembered by a digest, which has to tell apart all that is judged differently."""

    LONG = "a" * 5_000

    def test_the_same_is_judged_once(self) -> None:
        one = judge(1, 0, 0)
        assert one.judge("do it", "be kind") is one.judge("do it", "be kind")

    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (("do it", ""), ("do it!", "")),
            (("do it", "be kind"), ("be kind", "do it")),
            (("do it", "be kind"), ("do itbe kind", "")),
            (("1", "2"), ("", "12")),
            ((LONG, ""), (f"{LONG}a", "")),
            ((LONG, ""), (f"b{LONG[1:]}", "")),
            ((LONG, ""), (f"{LONG[:1_199]}b{LONG[1_200:]}", "")),
            ((LONG, ""), (f"{LONG[1:]}b", "")),
            ((LONG, LONG), (LONG, f"{LONG[:-700]}b{LONG[-699:]}")),
            (("\ud800", ""), ("\ud801", "")),
        ],
    )
    def test_what_is_read_differently_is_told_apart(self, first: tuple[str, str], second: tuple[str, str]) -> None:
        one = judge(1, 0, 0)
        assert one.judge(*first) is not one.judge(*second)

    def test_forgetting_changes_no_judgement(self) -> None:
        one = judge(0.2, 0.5, 0.3, words={"please": 3})
        before = one.judge("Please look. Tell me who.")
        one.forget()
        after = one.judge("Please look. Tell me who.")
        assert (after, after is before) == (before, False)
