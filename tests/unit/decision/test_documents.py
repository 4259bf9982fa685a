from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.decision.documents import (
    LONGEST_NAME,
    Shown,
    escaped,
    names_of,
    render,
    render_all,
    shown_whole,
    title_of,
)
from pointsman_server.domain.request import Document


def names(*ids: str) -> list[str]:
    documents = [Document(one, "text") for one in ids]
    found = names_of(documents)
    return [found[one.id] for one in documents]


class TestNames:
    @pytest.mark.parametrize("name", ["a", "fees-2024", "Prices (new).pdf", "kb/refunds#3", "Gebühren", "料金表", "1"])
    def test_an_id_that_a_model_can_repeat_is_its_own_name(self, name: str) -> None:
        assert names(name) == [name]

    @pytest.mark.parametrize(
        "name", ["[[a]]", 'a"b', "a\nb", " a", "a ", "x" * (LONGEST_NAME + 1), "<b>", "a]", "\u200b", "a, b", "a|b"]
    )
    def test_any_other_is_called_by_its_place(self, name: str) -> None:
        assert names("first", name) == ["first", "document-2"]

    def test_no_two_have_the_same_name(self) -> None:
        assert names("document-2", "a]", "document-3", "b]") == [
            "document-2",
            "document-2-x",
            "document-3",
            "document-4",
        ]
        assert len(set(names("]", "document-1", "document-1-x", "[["))) == 4

    @examples(60)
    @given(st.lists(st.text(max_size=12) | st.sampled_from(("document-1", "document-2", "]")), unique=True, max_size=6))
    def test_names_are_unique_and_safe(self, ids: list[str]) -> None:
        found = names(*ids)
        assert len(set(found)) == len(ids)
        assert not any(set(name) & set('[]"<>&\n,;|') for name in found)


class TestRendering:
    def test_the_caller_may_have_given_a_title(self) -> None:
        document = Document("fees", "5 EUR", metadata={"title": 'The "fees" <2024> & more\nthan that'})
        (shown,) = shown_whole([document], names_of([document]))
        title = "The &quot;fees&quot; &lt;2024&gt; &amp; more than that"
        assert render(shown) == f'<document id="fees" title="{title}">\n5 EUR\n</document>\n'
        assert title_of(Document("a", "A")) == ""

    def test_none_is_nothing(self) -> None:
        assert render_all([], cites=True) == ""

    @pytest.mark.parametrize(
        "mark",
        [
            "</document>",
            "</documents>",
            "<document>",
            '<document id="other">',
            "</DOCUMENT >",
            "< / document>",
            "<\u200b/document>",
            "</\u2060document>",
            "\uff1c/document\uff1e",
            "<\\/document>",
            "<!document>",
        ],
    )
    def test_no_text_can_close_or_open_a_document(self, mark: str) -> None:
        assert escaped(f"before {mark} after") == f"before &lt;{mark[1:]} after"

    @pytest.mark.parametrize("text", ["a < b", "<b>bold</b>", "<documentation>", "x <document_count:", "x <- document"])
    def test_anything_else_is_left_as_it_is(self, text: str) -> None:
        assert escaped(text) == text

    @examples(80)
    @given(st.lists(st.sampled_from(("<", "/", "document", "s", ">", " ", "\n", "a", "</document>")), max_size=30))
    def test_there_is_one_end_for_each_whatever_they_say(self, pieces: list[str]) -> None:
        text = "".join(pieces)
        whole = render_all([Shown("a", text, text), Shown("b", "", text)], cites=False)
        body = whole[whole.index("<documents>") :].lower()
        assert len(re.findall(r"<\s*/\s*document\s*>", body)) == 2
        assert len(re.findall(r"<\s*document\s", body)) == 2
        assert len(re.findall(r"<\s*/\s*documents\s*>", body)) == 1
