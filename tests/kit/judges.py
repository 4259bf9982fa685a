"""Judges for tests of the evaluation."""

from __future__ import annotations

from pointsman_server.domain.plan import Complexity
from pointsman_server.domain.request import CompletionRequest, Tier


def judge_by_length(request: CompletionRequest) -> Complexity:
    """The longer the last turn, the harder: a judge whose every word can be told beforehand."""
    score = min(len(request.messages[-1].text) / 250, 1.0)
    tier = Tier.LIGHT if score < 0.25 else Tier.STANDARD if score < 0.5 else Tier.ADVANCED
    return Complexity(score, tier, (), difficulty=6.0 * score - 2.0)


def judge_nothing(request: CompletionRequest) -> Complexity:
    """Says the same of everything."""
    return Complexity(0.5, Tier.STANDARD, ())
