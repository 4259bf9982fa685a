"""How hard a request looks: what is asked now, with light features of the history, the system prompt and tools."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pointsman_server.decision.ask import words_of
from pointsman_server.decision.learned import shipped_judge, shipped_second_look
from pointsman_server.domain.embedder import Vector
from pointsman_server.domain.message import Message, Role
from pointsman_server.domain.plan import Complexity, Factor
from pointsman_server.domain.request import CompletionRequest, ReasoningEffort, Tier

_FOLLOW_UP_WORDS, _FOLLOW_UP_CHARS = 4, 60
"""An ask of fewer words, and not longer, is taken to continue the one before it ("and in 2019?")."""

_TIERS = len(Tier)

NO_MEANINGS: Mapping[str, Vector] = {}


def judge_complexity(request: CompletionRequest, meanings: Mapping[str, Vector] = NO_MEANINGS) -> Complexity:
    """Score, tier, task and factors of this request. Time is bounded whatever the length of the text.

    `meanings` are the vectors of what `in_doubt` gave; where one is missing, the words decide alone.
    """
    texts = _user_texts(request.messages)
    judged = _judged(*_ask_of(texts, request.messages), meanings)
    if len(texts) > 1 and _is_follow_up(texts[-1].strip()):
        judged = _at_least(judged, _judged(texts[-2], "", meanings), "follow_up")
    return _for_effort(judged, request.generation.reasoning_effort)


def in_doubt(request: CompletionRequest) -> tuple[str, ...]:
    """The texts of bounded length that a second look reads, where the words of the request leave its tier in doubt."""
    texts = _user_texts(request.messages)
    found = shipped_judge().in_doubt(*_ask_of(texts, request.messages))
    if len(texts) > 1 and _is_follow_up(texts[-1].strip()):
        found += shipped_judge().in_doubt(texts[-2])
    return tuple(dict.fromkeys(found))


def _judged(text: str, background: str, meanings: Mapping[str, Vector]) -> Complexity:
    judge = shipped_judge()
    vectors = [meanings.get(one, b"") for one in judge.in_doubt(text, background)] if meanings else []
    if not vectors or not all(vectors):
        return judge.judge(text, background)
    return judge.judge_again(text, background, shipped_second_look(), vectors)


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
