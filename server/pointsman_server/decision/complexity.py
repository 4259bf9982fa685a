"""How hard a request looks: what is asked now, with light features of the history, the system prompt and tools."""

from __future__ import annotations

from dataclasses import replace

from pointsman_server.decision.ask import words_of
from pointsman_server.decision.learned import shipped_judge
from pointsman_server.domain.message import Message, Role
from pointsman_server.domain.plan import Complexity, Factor
from pointsman_server.domain.request import CompletionRequest, ReasoningEffort, Tier

_FOLLOW_UP_WORDS, _FOLLOW_UP_CHARS = 4, 60
"""An ask of fewer words, and not longer, is taken to continue the one before it ("and in 2019?")."""

_TIERS = len(Tier)


def judge_complexity(request: CompletionRequest) -> Complexity:
    """Score, tier, task and factors of this request. Time is bounded whatever the length of the text."""
    texts = _user_texts(request.messages)
    judged = shipped_judge().judge(*_ask_of(texts, request.messages))
    if len(texts) > 1 and _is_follow_up(texts[-1].strip()):
        judged = _at_least(judged, shipped_judge().judge(texts[-2]), "follow_up")
    return _for_effort(judged, request.generation.reasoning_effort)


def _user_texts(messages: tuple[Message, ...]) -> list[str]:
    texts = [message.text for message in messages if message.role is Role.USER]
    return [text for text in texts if text and not text.isspace()]


def _ask_of(texts: list[str], messages: tuple[Message, ...]) -> tuple[str, str]:
    """The last user message, and the system prompt, which counts where the message asks for nothing."""
    if not texts:
        return next((message.text for message in reversed(messages) if message.text), ""), ""
    system = next((message.text for message in messages if message.role is Role.SYSTEM and message.text), "")
    return texts[-1], system


def _is_follow_up(text: str) -> bool:
    if len(text) > _FOLLOW_UP_CHARS:
        return False
    return sum([word[0].isalnum() for word in words_of(text)]) < _FOLLOW_UP_WORDS


def _at_least(judged: Complexity, other: Complexity, why: str) -> Complexity:
    """The harder of the two by tier, then by score; the score is never less than it was."""
    if (other.tier, other.score) <= (judged.tier, judged.score):
        return judged
    score = max(other.score, judged.score)
    return replace(other, score=score, factors=(*other.factors, Factor(why, score - judged.score)))


def _for_effort(judged: Complexity, effort: ReasoningEffort | None) -> Complexity:
    """Who wants long reasoning has more than a light request; the judgement is raised, never lowered."""
    if effort is not ReasoningEffort.HIGH or judged.tier is not Tier.LIGHT:
        return judged
    score = min(judged.score + 1.0 / _TIERS, 1.0)
    factors = (*judged.factors, Factor("reasoning_effort", score - judged.score))
    return replace(judged, score=score, tier=Tier.STANDARD, factors=factors)
