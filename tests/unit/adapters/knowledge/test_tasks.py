"""The tasks' local answers: of the form that the templates demand, ranked, limited, and honest about what they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.adapters.knowledge.tasks import (
    INTELLIGENT_SEARCH,
    RECOMMENDATIONS,
    SEMANTIC_SEARCH,
    answer_task,
)
from pointsman_server.config.templates import built_in_templates
from pointsman_server.domain.request import Document

TASKS = {
    SEMANTIC_SEARCH: {"query": "refund an order", "limit": 5},
    INTELLIGENT_SEARCH: {"query": "refund an order", "context": "", "limit": 5},
    RECOMMENDATIONS: {"profile": "refund an order", "items_seen": (), "limit": 5},
}
DOCUMENTS = [
    Document("shipping", "Orders are shipped within two days."),
    Document("refunds", "Refunds: how orders are paid back."),
    Document("jobs", "We are hiring."),
]


def rank(wanted: str, documents: Sequence[Document]) -> Sequence[tuple[Document, float]]:
    """How much of what is wanted is there, to the letter."""
    words = wanted.lower().split()
    return [(one, sum(word in one.text.lower() for word in words) / len(words)) for one in documents]


def answered(task: str, **changes: Any) -> dict[str, Any]:
    text = answer_task(task, {**TASKS[task], **changes}, DOCUMENTS, rank)
    assert text is not None
    answer: dict[str, Any] = json.loads(text)
    return answer


def ids(answer: dict[str, Any]) -> list[str]:
    return [result["document_id"] for result in answer["results"]]


@pytest.mark.parametrize("task", TASKS)
def test_the_best_comes_first_and_says_what_it_shares(task: str) -> None:
    answer = answered(task)
    assert ids(answer) == ["refunds", "shipping"]
    assert [result["score"] for result in answer["results"]] == [0.667, 0.333]
    assert answer["results"][0]["reason"].startswith("Has 'refund', 'order' in common with ")


def test_an_intelligent_search_says_that_nobody_understood_it() -> None:
    assert answered(INTELLIGENT_SEARCH)["interpretation"] == "Taken word for word: no model has read it."


def test_what_was_seen_is_not_recommended_again() -> None:
    assert ids(answered(RECOMMENDATIONS, items_seen=("refunds",))) == ["shipping"]
    assert ids(answered(SEMANTIC_SEARCH, items_seen=("refunds",))) == ["refunds", "shipping"]


def test_no_more_than_the_limit() -> None:
    assert ids(answered(SEMANTIC_SEARCH, limit=1)) == ["refunds"]


@pytest.mark.parametrize("limit", [None, 0, "many"])
def test_a_limit_that_is_none_is_the_usual_one(limit: Any) -> None:
    assert len(answered(SEMANTIC_SEARCH, limit=limit)["results"]) == 2


def test_nothing_that_matches_is_an_answer_too() -> None:
    assert answered(SEMANTIC_SEARCH, query="elephants") == {"results": []}


def test_a_match_without_a_common_word_says_so() -> None:
    text = answer_task(SEMANTIC_SEARCH, {"query": "vacancies"}, DOCUMENTS[2:], lambda _, found: [(found[0], 3.0)])
    assert json.loads(text or "") == {
        "results": [{"document_id": "jobs", "score": 1.0, "reason": "Is worded much like the query."}]
    }


def test_a_document_is_told_once() -> None:
    twice = answer_task(SEMANTIC_SEARCH, {"query": "order"}, DOCUMENTS, lambda _, found: [*rank("order", found)] * 2)
    assert ids(json.loads(twice or "")) == ["shipping", "refunds"]


@pytest.mark.parametrize(
    ("task", "variables"),
    [("greet", {"query": "x"}), ("", {"query": "x"}), (SEMANTIC_SEARCH, {}), (SEMANTIC_SEARCH, {"query": " "})],
)
def test_what_is_no_task_or_has_nothing_to_go_by_is_left_to_others(task: str, variables: dict[str, Any]) -> None:
    assert answer_task(task, variables, DOCUMENTS, rank) is None


@given(
    task=st.sampled_from(list(TASKS)),
    wanted=st.text(min_size=1, max_size=40).filter(str.strip),
    limit=st.integers(1, 100),
    texts=st.dictionaries(
        st.text(min_size=1, max_size=8), st.tuples(st.text(max_size=60), st.floats(-1, 2)), max_size=8
    ),
)
def test_every_answer_has_the_form_of_the_task(
    task: str, wanted: str, limit: int, texts: dict[str, tuple[str, float]]
) -> None:
    documents = [Document(name, text) for name, (text, _) in texts.items()]
    variables = {"query": wanted, "profile": wanted, "limit": limit}
    answer = answer_task(task, variables, documents, lambda _, found: [(one, texts[one.id][1]) for one in found])
    schema = built_in_templates()[task].versions[1].response_schema
    assert schema is not None
    read = json.loads(answer or "")
    jsonschema_rs.validate(dict(schema), read)
    scores = [result["score"] for result in read["results"]]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) <= limit
    assert all(0 <= score <= 1 for score in scores)
