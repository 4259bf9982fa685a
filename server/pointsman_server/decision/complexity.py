"""How hard a request looks, by counted features and fixed rules.

The score is a logistic function of a weighted sum, so that each factor's contribution can be read. The weights were
set by hand from the written tier rubric (one operation, several steps, long reasoning); they are a transparent
starting point, not a learned model.
"""

from __future__ import annotations

import math
import re

from pointsman_server.decision.tokens import last_user_text
from pointsman_server.domain.plan import Complexity, Factor
from pointsman_server.domain.request import CompletionRequest, ReasoningEffort, Tier

STANDARD_FROM_SCORE = 0.35
ADVANCED_FROM_SCORE = 0.70
"""Bands of the score: below the first is light, from the second on advanced."""

_INTERCEPT = -1.6
_MAX_ASK_CHARS = 4_000
"""Only this much of the ask is looked at, its head and its tail: the rest is material."""

_DEEP = re.compile(
    r"\b(prove|proof|derive|counterexample|trade-?offs?|architecture|root cause|race condition|deadlock|distributed|"
    r"consisten\w+|zero[- ]downtime|optimi[sz]e|schedul\w+|differential diagnosis|liabilit\w+|experiment design|"
    r"strategy|threat model|algorithm|complexity)\b",
    re.IGNORECASE,
)
_STEPS = re.compile(
    r"\b(explain|compare|write|implement|refactor|debug|fix|summari[sz]e|plan|analy[sz]e|design|solve|calculate|"
    r"convert|draft|outline|test|query|script|function|class)\b",
    re.IGNORECASE,
)
_CONSTRAINTS = re.compile(
    r"\b(must|should|at most|at least|without|only|no more than|exactly|except|unless|between)\b"
    r"|^[ \t]*(?:[-*]|\d+[.)])\s",
    re.IGNORECASE | re.MULTILINE,
)
_CODE = re.compile(r"```|\bdef \w+\(|\bclass \w+[:({]|\bSELECT\b.+\bFROM\b|[;{}]\s*$", re.MULTILINE)
_MATHS = re.compile(r"[=<>≤≥∑∫√^]|\\\w+\{|\d\s*[-+*/]\s*\d")


def judge_complexity(request: CompletionRequest) -> Complexity:
    """Score, band and factors of this request. Time is bounded whatever the length of the text."""
    ask = _head_and_tail(last_user_text(request.messages))
    factors = tuple(Factor(name, round(value, 3)) for name, value in _weigh(request, ask) if value)
    score = 1.0 / (1.0 + math.exp(-(_INTERCEPT + sum(factor.value for factor in factors))))
    return Complexity(round(score, 4), tier_of(score), factors)


def tier_of(score: float) -> Tier:
    """The tier in whose band the score falls."""
    if score >= ADVANCED_FROM_SCORE:
        return Tier.ADVANCED
    return Tier.STANDARD if score >= STANDARD_FROM_SCORE else Tier.LIGHT


def _head_and_tail(text: str) -> str:
    if len(text) <= _MAX_ASK_CHARS:
        return text
    half = _MAX_ASK_CHARS // 2
    return f"{text[:half]}\n{text[-half:]}"


def _weigh(request: CompletionRequest, ask: str) -> tuple[tuple[str, float], ...]:
    words = len(ask.split())
    generation = request.generation
    effort = {ReasoningEffort.HIGH: 1.2, ReasoningEffort.MEDIUM: 0.6, ReasoningEffort.LOW: 0.2}
    return (
        ("length_of_ask", min(math.log1p(words) * 0.22, 1.2)),
        ("deep_words", min(_count(_DEEP, ask) * 0.8, 2.4)),
        ("step_words", min(_count(_STEPS, ask) * 0.35, 1.05)),
        ("constraints", min(_count(_CONSTRAINTS, ask) * 0.2, 1.2)),
        ("code", min(_count(_CODE, ask) * 0.25, 0.75)),
        ("mathematics", min(_count(_MATHS, ask) * 0.1, 0.6)),
        ("tools", 0.3 if generation.tools else 0.0),
        ("reasoning_effort", effort.get(generation.reasoning_effort, 0.0) if generation.reasoning_effort else 0.0),
    )


def _count(pattern: re.Pattern[str], text: str) -> int:
    return sum(1 for _ in pattern.finditer(text))
