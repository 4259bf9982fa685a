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

_Terms = tuple[tuple[str, re.Pattern[str]], ...]


def _terms(*patterns: str) -> _Terms:
    """Whole-word patterns, each with the letters it begins with; a text without those need not be searched.

    The word's beginning is asserted after its first letter: a pattern that starts with a letter is searched ten times
    faster than one that starts with an assertion.
    """
    return tuple(
        (re.split(r"[^a-z ]", word)[0], re.compile(rf"{word[0]}(?<!\w{word[0]}){word[1:]}\b")) for word in patterns
    )


_DEEP = _terms(
    "prove", "proof", "derive", "counterexample", r"trade-?offs?", "architecture", "root cause", "race condition",
    "deadlock", "distributed", r"consisten\w+", "zero[- ]downtime", "optimi[sz]e", r"schedul\w+", "threat model",
    "differential diagnosis", r"liabilit\w+", "experiment design", "strategy", "algorithm", "complexity",
)  # fmt: skip
_STEPS = _terms(
    "explain", "compare", "write", "implement", "refactor", "debug", "fix", "summari[sz]e", "plan", "analy[sz]e",
    "design", "solve", "calculate", "convert", "draft", "outline", "test", "query", "script", "function", "class",
)  # fmt: skip
_CONSTRAINTS = _terms(
    "must", "should", "at most", "at least", "without", "only", "no more than", "exactly", "except", "unless", "between"
)  # fmt: skip
_LIST_ITEM = re.compile(r"\n[ \t]*(?:[-*]|\d+[.)])(?=\s)")
_CODE = re.compile(r"```|\bdef \w+\(|\bclass \w+[:({]|\bSELECT\b.{1,300}?\bFROM\b|[;{}]\s*$", re.MULTILINE)
_CODE_SIGNS = ("```", "def ", "class ", "SELECT", ";", "{", "}")
"""Without one of these nothing can match `_CODE`."""
_MATHS = re.compile(r"[=<>≤≥∑∫√^]|\\\w+\{|\d\s*[-+*/]\s*\d")


def judge_complexity(request: CompletionRequest) -> Complexity:
    """Score, band and factors of this request. Time is bounded whatever the length of the text."""
    ask = _head_and_tail(last_user_text(request.messages))
    factors = tuple(Factor(name, round(value, 3)) for name, value in _weigh(request, ask) if value)
    score = round(1.0 / (1.0 + math.exp(-(_INTERCEPT + sum(factor.value for factor in factors)))), 4)
    return Complexity(score, tier_of(score), factors)


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
    words, text = len(ask.split()), ask.lower()
    generation = request.generation
    effort = {ReasoningEffort.HIGH: 1.2, ReasoningEffort.MEDIUM: 0.6, ReasoningEffort.LOW: 0.2}
    return (
        ("length_of_ask", min(math.log1p(words) * 0.22, 1.2)),
        ("deep_words", min(_count(_DEEP, text) * 0.8, 2.4)),
        ("step_words", min(_count(_STEPS, text) * 0.35, 1.05)),
        ("constraints", min((_count(_CONSTRAINTS, text) + len(_LIST_ITEM.findall(f"\n{text}"))) * 0.2, 1.2)),
        ("code", min(_count_code(ask) * 0.25, 0.75)),
        ("mathematics", min(len(_MATHS.findall(ask)) * 0.1, 0.6)),
        ("tools", 0.3 if generation.tools else 0.0),
        ("reasoning_effort", effort.get(generation.reasoning_effort, 0.0) if generation.reasoning_effort else 0.0),
    )


def _count(terms: _Terms, text: str) -> int:
    return sum(len(pattern.findall(text)) for beginning, pattern in terms if beginning in text)


def _count_code(ask: str) -> int:
    return len(_CODE.findall(ask)) if any(sign in ask for sign in _CODE_SIGNS) else 0
