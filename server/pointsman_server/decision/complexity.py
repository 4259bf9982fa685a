"""How hard a request looks, by counted features and fixed rules.

The score is a logistic function of a weighted sum, so that each factor's contribution can be read. The weights were
set by hand from the written tier rubric (one operation, several steps, long reasoning); they are a transparent
starting point, not a learned model.
"""

from __future__ import annotations

import math

from pointsman_server.decision.tokens import last_user_text
from pointsman_server.domain.plan import Complexity, Factor
from pointsman_server.domain.request import CompletionRequest, ReasoningEffort, Tier

STANDARD_FROM_SCORE = 0.35
ADVANCED_FROM_SCORE = 0.70
"""Bands of the score: below the first is light, from the second on advanced."""

_INTERCEPT = -1.6
_MAX_ASK_CHARS = 4_000
"""Only this much of the ask is looked at, its head and its tail: the rest is material."""

_DEEP = frozenset(
    [
        "prove",
        "proof",
        "proofs",
        "derive",
        "derivation",
        "counterexample",
        "trade",
        "tradeoff",
        "tradeoffs",
        "architecture",
        "deadlock",
        "deadlocks",
        "race",
        "distributed",
        "consistency",
        "consistent",
        "consensus",
        "optimise",
        "optimize",
        "optimal",
        "optimum",
        "schedule",
        "scheduling",
        "differential",
        "diagnosis",
        "liability",
        "negligence",
        "hypothesis",
        "methodology",
        "strategy",
        "threat",
        "algorithm",
        "complexity",
        "concurrency",
        "concurrent",
        "downtime",
        "asymptotic",
        "root",
        "theorem",
    ]
)
_STEPS = frozenset(
    [
        "explain",
        "compare",
        "write",
        "implement",
        "refactor",
        "debug",
        "fix",
        "summarise",
        "summarize",
        "summary",
        "plan",
        "analyse",
        "analyze",
        "analysis",
        "design",
        "solve",
        "calculate",
        "compute",
        "draft",
        "outline",
        "test",
        "tests",
        "query",
        "script",
        "function",
        "class",
        "describe",
    ]
)
_CONSTRAINTS = frozenset(
    ["must", "should", "without", "only", "exactly", "except", "unless", "between", "least", "most", "never", "always"]
)
_ITEMS = ("\n- ", "\n* ", "\n1. ", "\n1) ")
_CODE = ("```", "def ", ";\n", "{\n")
_MATHS = ("=", "<", ">", "≤", "≥", "∑", "∫", "√", "^", "+")
"""Marks, looked for in the lower-cased ask; each counts once, however often it stands there."""

_TO_SPACES = str.maketrans(dict.fromkeys(".,;:!?()[]{}\"'`*/-", " "))


def judge_complexity(request: CompletionRequest) -> Complexity:
    """Score, band and factors of this request. Time is bounded whatever the length of the text."""
    ask = _head_and_tail(last_user_text(request.messages))
    factors = tuple(Factor(name, value) for name, value in _weigh(request, ask) if value)
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
    lowered = ask.lower()
    words = lowered.translate(_TO_SPACES).split()
    distinct = frozenset(words)
    generation = request.generation
    effort = {ReasoningEffort.HIGH: 1.2, ReasoningEffort.MEDIUM: 0.6, ReasoningEffort.LOW: 0.2}
    return (
        ("length_of_ask", min(math.log1p(len(words)) * 0.22, 1.2)),
        ("deep_words", min(len(_DEEP & distinct) * 0.8, 2.4)),
        ("step_words", min(len(_STEPS & distinct) * 0.35, 1.05)),
        ("constraints", min((len(_CONSTRAINTS & distinct) + _count(_ITEMS, "\n" + lowered)) * 0.25, 1.2)),
        ("code", min(_count(_CODE, lowered) * 0.25, 0.75)),
        ("mathematics", min(_count(_MATHS, lowered) * 0.15, 0.6)),
        ("tools", 0.3 if generation.tools else 0.0),
        ("reasoning_effort", effort.get(generation.reasoning_effort, 0.0) if generation.reasoning_effort else 0.0),
    )


def _count(marks: tuple[str, ...], text: str) -> int:
    return sum([mark in text for mark in marks])
