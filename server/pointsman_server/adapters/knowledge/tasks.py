"""Answers to the tasks that come with pointsman, made of ranked documents alone: for when no model can be asked.

They have the form that the tasks' templates demand of a model (`data/templates.yaml`), and say what they are: matches
of words. Nobody has understood anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from pointsman_server.adapters.knowledge.words import FILLERS, stem, words_of
from pointsman_server.domain.request import Document

Rank = Callable[[str, Sequence[Document]], Sequence[tuple[Document, float]]]
"""The documents that match a text, each with how well (0..1)."""

SEMANTIC_SEARCH, INTELLIGENT_SEARCH, RECOMMENDATIONS = "semantic_search", "intelligent_search", "recommendations"

_USUAL_LIMIT = 10
_MOST_WORDS_NAMED = 3
_SCORE_DIGITS = 3
_OF_WHAT = {
    SEMANTIC_SEARCH: "the query",
    INTELLIGENT_SEARCH: "what was typed",
    RECOMMENDATIONS: "what is known of you",
}
"""The task's name and what a result is said to share words with."""


def answer_task(task: str, variables: Mapping[str, Any], documents: Sequence[Document], rank: Rank) -> str | None:
    """The answer as JSON text in the task's form; None where it is no such task or there is nothing to go by.

    An answer without results says that nothing matches.
    """
    wanted = variables.get("profile" if task == RECOMMENDATIONS else "query")
    if task not in _OF_WHAT or not isinstance(wanted, str) or not wanted.strip():
        return None
    seen = frozenset(variables.get("items_seen", ())) if task == RECOMMENDATIONS else frozenset()
    offered = [document for document in documents if document.id not in seen]
    results = list(_results(wanted, rank(wanted, offered), _OF_WHAT[task]))[: _limit(variables)]
    answer: dict[str, object] = {"results": results}
    if task == INTELLIGENT_SEARCH:
        answer = {"interpretation": "Taken word for word: no model has read it.", **answer}
    return orjson.dumps(answer).decode()


def _limit(variables: Mapping[str, Any]) -> int:
    limit = variables.get("limit", _USUAL_LIMIT)
    return limit if isinstance(limit, int) and limit > 0 else _USUAL_LIMIT


def _results(wanted: str, ranked: Sequence[tuple[Document, float]], of_what: str) -> Iterator[dict[str, object]]:
    told: set[str] = set()
    words = {stem(word): word for word in words_of(wanted) if word not in FILLERS}
    for document, score in sorted(ranked, key=lambda pair: -pair[1]):
        if score > 0 and document.id not in told:
            told.add(document.id)
            yield {
                "document_id": document.id,
                "score": round(min(1.0, score), _SCORE_DIGITS),
                "reason": _reason(words, document, of_what),
            }


def _reason(words: Mapping[str, str], document: Document, of_what: str) -> str:
    there = frozenset(map(stem, words_of(document.text)))
    shared = [f"'{word}'" for stemmed, word in words.items() if stemmed in there][:_MOST_WORDS_NAMED]
    return f"Has {', '.join(shared)} in common with {of_what}." if shared else f"Is worded much like {of_what}."
