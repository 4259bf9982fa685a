from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.domain.message import Part, ReasoningPart, TextPart
from pointsman_server.domain.reply import Citation, FinishReason, Reply, Usage
from pointsman_server.domain.request import Document
from pointsman_server.execution.citing import LONGEST_QUOTE, MOST_CITATIONS, cite

DOCUMENTS = (
    Document("fees", "A refund costs 5 EUR.", metadata={"title": "Fees", "url": "https://shop.example/fees"}),
    Document("terms, 2024", "Within 14 days."),
    Document("[[odd]]", "Never."),
)
SHOWN = {"fees": "fees", "terms, 2024": "terms, 2024", "document-3": "[[odd]]"}


def reply(*parts: Part, citations: tuple[Citation, ...] = ()) -> Reply:
    return Reply(parts, FinishReason.STOP, "stop", Usage(), citations, "id", "m")


def cited(text: str) -> list[tuple[str, str]]:
    """Which document is cited for which words."""
    found = cite(reply(TextPart(text)), DOCUMENTS, SHOWN).citations
    for one in found:
        if one.start_index >= 0:
            assert text[one.start_index : one.end_index] == one.quoted_text
        else:
            assert one.quoted_text == ""
    return [(one.document_id, one.quoted_text) for one in found]


class TestSentences:
    @pytest.mark.parametrize(
        "text",
        [
            "First this. A refund costs 5 EUR [[fees]].",
            "First this. A refund costs 5 EUR [[fees]]. And more. ",
            "First this.\nA refund costs 5 EUR[[fees]]\nAnd more.",
            "# Costs\n\n- A refund costs 5 EUR [[fees]]",
            "# Costs\n12. A refund costs 5 EUR [[ fees ]]",
            "First this [[nobody]]. A refund costs 5 EUR [[fees]], nothing else.",
            "先に。A refund costs 5 EUR [[fees]]。",
        ],
    )
    def test_a_mark_is_about_the_sentence_before_it(self, text: str) -> None:
        assert cited(text) == [("fees", "A refund costs 5 EUR")]

    @pytest.mark.parametrize("blank", ["", " ", "\n"])
    def test_it_may_stand_behind_the_full_stop(self, blank: str) -> None:
        text = f"First. It costs 5.50 EUR.{blank}[[fees]] And then? [[document-3]] The end."
        assert cited(text) == [("fees", "It costs 5.50 EUR."), ("[[odd]]", "And then?")]

    def test_several_marks_are_about_the_same(self) -> None:
        both = [("fees", "It costs 5 EUR"), ("[[odd]]", "It costs 5 EUR")]
        assert cited("Yes. It costs 5 EUR [[fees]][[document-3]].") == both
        assert cited("Yes. It costs 5 EUR [[fees]] [[document-3]].") == both
        assert cited("Yes. It costs 5 EUR [[fees, document-3]].") == both
        assert cited("Yes. It costs 5 EUR [[fees; document-3]].") == both

    def test_an_id_with_a_comma_is_one(self) -> None:
        assert cited("Soon [[terms, 2024]].") == [("terms, 2024", "Soon")]

    def test_a_sentence_with_two_is_cited_up_to_each(self) -> None:
        text = "It costs 5 EUR [[fees]] and never more [[document-3]]."
        assert cited(text) == [("fees", "It costs 5 EUR"), ("[[odd]]", "It costs 5 EUR [[fees]] and never more")]

    def test_a_mark_about_nothing_has_no_place(self) -> None:
        assert cited("[[fees]] It costs 5 EUR.") == [("fees", "")]

    def test_of_a_long_sentence_the_end_is_quoted(self) -> None:
        ((_, words),) = cited("word " * 1_000 + "[[fees]]")
        assert LONGEST_QUOTE - 10 < len(words) <= LONGEST_QUOTE


class TestMarks:
    def test_there_is_an_end_to_citations(self) -> None:
        assert len(cited("".join(f"It is {number} [[fees]]. " for number in range(1_000)))) == MOST_CITATIONS

    @pytest.mark.parametrize(
        "text", ["", "No mark.", "[[nobody]]", "[fees]", "[[fees]", "[[]]", "[[fe\nes]]", "a[[0]]"]
    )
    def test_what_names_no_document_is_text(self, text: str) -> None:
        assert cited(text) == []

    def test_only_what_the_model_was_shown_counts(self) -> None:
        one = reply(TextPart("Yes [[fees]]."))
        assert cite(one, DOCUMENTS, {}) is one
        assert cite(one, DOCUMENTS, {"document-3": "[[odd]]"}) is one

    def test_the_same_twice_is_one(self) -> None:
        assert cited("Yes [[fees]][[fees]].") == [("fees", "Yes")]

    def test_the_text_and_what_the_provider_cites_stay(self) -> None:
        own = Citation(url="https://a.example", quoted_text="Yes")
        before = reply(ReasoningPart("Hm [[fees]]"), TextPart("Yes "), TextPart("[[fees]]."), citations=(own,))
        after = cite(before, DOCUMENTS, SHOWN)
        assert replace(after, citations=before.citations) == before
        first, second = after.citations
        assert first == own
        assert second == Citation("https://shop.example/fees", "Fees", "fees", "Yes", 0, 3)


@examples(80)
@given(
    st.lists(
        st.sampled_from(("Yes", ". ", "[[fees]]", "[[x]]", "\n", " ", "[[document-3]]", "é", "。", "- ")), max_size=25
    )
)
def test_places_are_always_those_of_the_words(pieces: list[str]) -> None:
    text = "".join(pieces)
    found = cited(text)
    assert {document_id for document_id, _ in found} <= {"fees", "[[odd]]"}
    assert bool(found) is ("[[fees]]" in text or "[[document-3]]" in text)


@pytest.mark.parametrize("piece", ["[[", "[[fees]]", "\n ", ". ", "]]", "a. [[fees]] ", "a [[fees]] ", '.")'])
def test_time_grows_with_the_length_alone(piece: str) -> None:
    started = time.process_time()
    cite(reply(TextPart(piece * (300_000 // len(piece)))), DOCUMENTS, SHOWN)
    assert time.process_time() - started < 5
