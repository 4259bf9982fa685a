from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.decision.confidence import (
    AGREEMENT_SHIFT,
    CITED_SHIFT,
    DOUBT_SHIFT,
    FINISH_SHIFTS,
    MOST_CERTAINTY_SHIFT,
    REFUSAL_SHIFT,
    RELEVANT_SHIFT,
    REPAIR_SHIFT,
    TYPICAL_CERTAINTY,
    UNCITED_SHIFT,
    Evidence,
    confidence_of,
)
from pointsman_server.domain.experience import Verdicts
from pointsman_server.domain.reply import FinishReason


def factors(**known: Any) -> dict[str, float]:
    """The factors beside the expectation."""
    evidence = Evidence(**{"expected_quality": 0.8, "finish_reason": FinishReason.STOP, "text": "Paris.", **known})
    found = confidence_of(evidence)
    named = {factor.name: factor.value for factor in found.factors}
    assert found.score == pytest.approx(1 / (1 + math.exp(-sum(named.values()))))
    assert named.pop("expected_quality") == pytest.approx(
        math.log(evidence.expected_quality / (1 - evidence.expected_quality))
    )
    return named


def score(**known: Any) -> float:
    return confidence_of(
        Evidence(**{"expected_quality": 0.8, "finish_reason": FinishReason.STOP, "text": "Paris.", **known})
    ).score


def test_an_answer_that_shows_nothing_is_as_good_as_was_expected() -> None:
    assert factors() == {}
    assert score() == pytest.approx(0.8)


@pytest.mark.parametrize("reason", FinishReason)
def test_an_answer_that_did_not_end_by_itself(reason: FinishReason) -> None:
    whole = reason in (FinishReason.STOP, FinishReason.TOOL_CALLS)
    assert factors(finish_reason=reason) == ({} if whole else {"finish": FINISH_SHIFTS[reason]})
    assert (score(finish_reason=reason) < 0.8) is not whole


@pytest.mark.parametrize(
    ("text", "shift"),
    [
        ("I'm sorry, but I can't help with that.", REFUSAL_SHIFT),
        ("I\u2019m sorry, I cannot do this.", REFUSAL_SHIFT),
        ("As an AI, I have no opinions.", REFUSAL_SHIFT),
        ("I cannot help you there.", REFUSAL_SHIFT),
        ("I'm unable to open links.", REFUSAL_SHIFT),
        ("I don't know.", DOUBT_SHIFT),
        ("Hm. I am not sure, but perhaps 7.", DOUBT_SHIFT),
        ("I do not have enough information to say.", DOUBT_SHIFT),
        ("Sorry for the delay. The answer is 4.", None),
        ("You cannot help it.", None),
        ("x" * 200 + " I don't know", None),
    ],
)
def test_what_the_model_says_of_its_own_answer(text: str, shift: float | None) -> None:
    assert factors(text=text) == ({} if shift is None else {"wording": shift})


def test_how_sure_the_model_is_of_its_words() -> None:
    assert factors(certainty=TYPICAL_CERTAINTY) == {}
    assert factors(certainty=0.95)["model_certainty"] > 0 > factors(certainty=0.6)["model_certainty"]
    assert factors(certainty=1.0) == {"model_certainty": MOST_CERTAINTY_SHIFT}
    assert factors(certainty=0.0) == {"model_certainty": -MOST_CERTAINTY_SHIFT}


def test_sources() -> None:
    assert factors(documents=2) == {"sources": UNCITED_SHIFT}
    assert factors(documents=2, cited=(1.0, 0.5)) == {"sources": pytest.approx(CITED_SHIFT + 0.75 * RELEVANT_SHIFT)}
    assert factors(other_sources=1) == factors(documents=1, other_sources=1) == {"sources": CITED_SHIFT}


def test_another_model_s_answer() -> None:
    assert factors(agreement=1.0) == {"cross_validation": AGREEMENT_SHIFT}
    assert factors(agreement=0.0) == {"cross_validation": -AGREEMENT_SHIFT}
    assert factors(agreement=0.5) == {}


def test_a_repaired_answer() -> None:
    assert factors(repaired=True) == {"repaired": REPAIR_SHIFT}


def test_the_tenant_s_own_verdicts_win_in_the_end() -> None:
    assert score(own=Verdicts(0.0, 0.0)) == pytest.approx(0.8)
    assert score(own=Verdicts(0.0, 20.0)) == pytest.approx(0.4)
    assert score(own=Verdicts(0.0, 2_000.0)) < 0.01
    assert score(own=Verdicts(2_000.0, 2_000.0)) > 0.99


@examples(200)
@given(
    expected=st.floats(0, 1),
    certainty=st.none() | st.floats(0, 1),
    agreement=st.none() | st.floats(0, 1),
    weight=st.floats(0, 1e6),
    mean=st.floats(0, 1),
    text=st.text(max_size=300),
)
def test_it_is_always_a_chance(
    expected: float, certainty: float | None, agreement: float | None, weight: float, mean: float, text: str
) -> None:
    found = score(
        expected_quality=expected,
        certainty=certainty,
        agreement=agreement,
        own=Verdicts(mean * weight, weight),
        text=text,
    )
    assert 0.0 < found < 1.0
