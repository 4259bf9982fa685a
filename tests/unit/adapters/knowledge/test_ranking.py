"""Finding: synonyms, compounds, misspellings, long texts, and how sure a match is."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.knowledge import KNOWN, UNKNOWN, is_source, knowledge
from pointsman_server.adapters.knowledge.index import MOST_UNITS, KnowledgeIndex
from pointsman_server.adapters.knowledge.ranking import LONGEST_QUESTION_CHARACTERS, find
from pointsman_server.adapters.knowledge.synonyms import Thesaurus
from pointsman_server.domain.knowledge import Passage

PASSAGES = (
    Passage("refunds", "When do I get a refund?", "Within five days after the parcel has come back."),
    Passage("ebooks", "Reading e-books", "An e-book can be opened on six devices."),
    Passage("audio", "Audiobooks", "There are 40,000 of them in the app."),
    Passage("toys", "Toys", "The puzzle shelf is behind the till. Ask for the key to the glass case there."),
    Passage("late", "", "Latecomers wait until the interval."),
)


def best(question: str, passages: Sequence[Passage] = PASSAGES, *synonyms: tuple[str, ...]) -> str:
    found = find(KnowledgeIndex(passages, synonyms), question)
    return found[0].passage.document_id if found else ""


@pytest.mark.parametrize(
    ("question", "document_id"),
    [
        ("Can I have my money back?", "refunds"),
        ("reimbursement??", "refunds"),
        ("When will I see my refnud", "refunds"),
        ("How many ebooks can I open?", "ebooks"),
        ("audio books", "audio"),
        ("Where are the puzzles?", "toys"),
        ("glass case key", "toys"),
        ("what of latecomers", "late"),
        ("Do you have dinosaurs?", ""),
        ("how is it that you are", ""),
        ("", ""),
    ],
)
def test_what_is_found(question: str, document_id: str) -> None:
    assert best(question) == document_id


def test_a_policy_adds_synonyms() -> None:
    assert best("How do I get a chargeback?") == ""
    assert best("How do I get a chargeback?", PASSAGES, ("refund", "chargeback")) == "refunds"


def test_other_wordings_of_a_question_count_as_much_as_the_first() -> None:
    passage = Passage("pin", "How do I reset my PIN?", "At any machine.", ("The card is blocked",))
    (found,) = find(KnowledgeIndex([passage, *PASSAGES]), "my card is blocked", most=1)
    assert (found.passage, found.match > 0.9) == (passage, True)


def test_an_empty_knowledge_base_finds_nothing() -> None:
    assert find(KnowledgeIndex([]), "anything") == []


def test_the_questions_own_words_are_as_sure_as_it_gets() -> None:
    index = KnowledgeIndex(knowledge().passages)
    for passage in index.passages:
        found = find(index, passage.title)[0]
        assert found.match > 0.8, passage.title


def test_a_question_at_either_end_of_a_long_text_is_found() -> None:
    padding = "lorem ipsum " * LONGEST_QUESTION_CHARACTERS
    assert best(f"refund {padding}") == "refunds"
    assert best(f"{padding} refund") == "refunds"


def test_of_a_question_with_very_many_words_the_rarest_are_sought() -> None:
    words = " ".join(f"strange{number}word" for number in range(80))
    index = KnowledgeIndex(PASSAGES)
    sought = index.sought(f"{words} refund")
    assert len(sought) == MOST_UNITS
    assert any(one.features for one in sought)


def test_it_stays_quick_with_many_passages() -> None:
    passages = [
        Passage(str(n), f"Question {n} of part {n % 97}", f"Answer {n} about matter {n % 1013}.") for n in range(5_000)
    ]
    index = KnowledgeIndex(passages)
    began = time.process_time()
    assert find(index, "What is the answer about matter 77 in qestion 1090?")[0].match > 0.3
    assert time.process_time() - began < 0.5


def test_words_that_overlap_share_their_marks() -> None:
    thesaurus = Thesaurus([("money back", "refund"), ("back", "rear"), ("",)])
    marks = thesaurus.marks_of(["money", "back"])
    assert marks[0] < marks[1]
    assert thesaurus.marks_of(["refund"])[0] == marks[0]
    assert thesaurus.marks_of(["nothing"]) == {}


@given(st.text(max_size=60), st.lists(st.text(max_size=30), max_size=4))
def test_any_question_and_any_passages_give_a_match_between_0_and_1(question: str, texts: list[str]) -> None:
    index = KnowledgeIndex([Passage(str(n), text[:9], text) for n, text in enumerate(texts)])
    found = find(index, question)
    assert all(0.0 <= one.match <= 1.0 for one in found)
    assert [one.match for one in found] == sorted((one.match for one in found), reverse=True)


def test_paraphrases_find_what_answers_them() -> None:
    base = knowledge()
    index = KnowledgeIndex(base.passages, base.synonyms)
    first = 0
    for question, source in KNOWN:
        found = find(index, question)
        first += bool(found) and is_source(source, found[0].passage.document_id, found[0].passage.title)
    sure = [found[0].match for question in UNKNOWN if (found := find(index, question))]
    assert first / len(KNOWN) >= 0.95
    assert sum(match >= 0.4 for match in sure) / len(UNKNOWN) <= 0.05, "unknown questions look known"
