"""A regression guard: how well the shipped judge follows the rubric, and how little harmless edits move it."""

from __future__ import annotations

from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import pytest

from pointsman_server.adapters.embedders.sentence_encoder import SentenceEncoder
from pointsman_server.decision.complexity import in_doubt, judge_complexity
from pointsman_server.decision.encoder import ENCODER
from pointsman_server.domain.plan import Complexity
from pointsman_server.domain.request import CompletionRequest
from pointsman_server.evaluation.edits import EDITS
from pointsman_server.evaluation.judging import TIER_NAMES, judge_text
from pointsman_server.evaluation.tiers import Labelled, read_labelled

RECALL_FLOORS = {"simple": 0.82, "medium": 0.82, "complex": 0.90}
"""Least share of the requests of each tier that are judged to be of it."""

MOST_MOVED = 0.05
"""Largest share of tiers that may change under edits that leave the ask as it is."""

HARMLESS = (
    "whitespace",
    "lower case",
    "upper case",
    "politeness",
    "persona before it",
    "persona as system prompt",
    "frame around it",
)
LEAST_GAIN = 0.005
"""Least share of the requests that get their tier only by a second look, less those that lose it."""

REQUESTS = Path(__file__).parents[2] / "fixtures" / "rubric" / "requests.jsonl"


@pytest.fixture(scope="module")
def requests() -> list[Labelled]:
    return read_labelled(REQUESTS)


@pytest.fixture(scope="module")
def recalls(requests: list[Labelled]) -> dict[str, float]:
    """The share of each tier's requests that are judged to be of it."""
    of_tier = Counter(request.tier for request in requests)
    right = Counter(
        request.tier
        for request in requests
        if judge_text(judge_complexity, request.text, request.system).tier is request.tier
    )
    return {TIER_NAMES[tier]: right[tier] / count for tier, count in of_tier.items()}


@pytest.mark.parametrize("tier", RECALL_FLOORS)
def test_the_tier_follows_the_rubric(recalls: dict[str, float], tier: str) -> None:
    assert recalls[tier] >= RECALL_FLOORS[tier], recalls


@pytest.mark.slow
def test_harmless_edits_hardly_move_the_tier(requests: list[Labelled]) -> None:
    before = [judge_text(judge_complexity, request.text, request.system).tier for request in requests]
    moved: Counter[str] = Counter()
    for name in HARMLESS:
        for request, tier in zip(requests, before, strict=True):
            edited = EDITS[name](request.text)
            assert edited is not None
            system = "\n".join(filter(None, (edited.system, request.system)))
            moved[name] += judge_text(judge_complexity, edited.text, system).tier is not tier
    assert moved.total() <= MOST_MOVED * len(requests) * len(HARMLESS), moved


@pytest.mark.slow
@pytest.mark.skipif(find_spec(ENCODER.module) is None, reason=f"needs the optional package {ENCODER.package}")
def test_a_second_look_finds_more_tiers(requests: list[Labelled]) -> None:
    encoder = SentenceEncoder(ENCODER)

    def twice(request: CompletionRequest) -> Complexity:
        texts = in_doubt(request)
        return judge_complexity(request, dict(zip(texts, encoder.encode(texts), strict=True)) if texts else {})

    once_right, twice_right = (
        sum(judge_text(judge, one.text, one.system).tier is one.tier for one in requests)
        for judge in (judge_complexity, twice)
    )
    assert twice_right - once_right >= LEAST_GAIN * len(requests)
