from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman_server.adapters.providers.gemini_citations import read_citations
from pointsman_server.domain.reply import Citation

TEXT = "Zürich ist schön. 🙂 Bern auch."
WEB = {"web": {"uri": "https://a.example/", "title": "A"}}
OTHER = {"web": {"uri": "https://b.example/", "title": "B"}}


def segment(text: str, whole: str = TEXT, **extra: Any) -> dict[str, Any]:
    start = len(whole[: whole.index(text)].encode())
    return {"startIndex": start, "endIndex": start + len(text.encode()), "text": text, **extra}


def grounded(chunks: Any, *supports: Any) -> dict[str, Any]:
    return {"groundingMetadata": {"groundingChunks": chunks, "groundingSupports": list(supports)}}


def cite(candidate: dict[str, Any], text: str = TEXT) -> list[Citation]:
    return list(read_citations(candidate, text))


def test_bytes_become_code_points() -> None:
    support = {"segment": segment("Bern auch."), "groundingChunkIndices": [0]}
    (found,) = cite(grounded([WEB], support))
    assert TEXT[found.start_index : found.end_index] == "Bern auch."
    assert (found.url, found.title, found.quoted_text) == ("https://a.example/", "A", "")


def test_of_several_places_the_offsets_choose() -> None:
    text = "Für ja, ja, ja"
    (found,) = cite(
        grounded([WEB], {"segment": {"startIndex": 9, "endIndex": 11, "text": "ja"}, "groundingChunkIndices": [0]}),
        text,
    )
    assert (found.start_index, found.end_index) == (8, 10)


def test_an_absent_start_is_the_beginning() -> None:
    said = {"segment": {"endIndex": 7, "text": "Zürich"}, "groundingChunkIndices": [0]}
    assert [(one.start_index, one.end_index) for one in cite(grounded([WEB], said))] == [(0, 6)]


def test_every_source_of_every_claim_in_order_and_then_the_unused() -> None:
    found = cite(
        grounded(
            [WEB, OTHER, {"retrievedContext": {"title": "C", "text": "said so", "documentName": "docs/7"}}],
            {"segment": segment("Zürich"), "groundingChunkIndices": [1, 0]},
            {"segment": segment("Bern"), "groundingChunkIndices": [0]},
        )
    )
    assert [(one.title, TEXT[one.start_index : one.end_index]) for one in found[:3]] == [
        ("B", "Zürich"), ("A", "Zürich"), ("A", "Bern"),
    ]  # fmt: skip
    assert found[3:] == [Citation(title="C", document_id="docs/7", quoted_text="said so")]


def test_offsets_within_a_later_part_are_found_by_their_text() -> None:
    support = {"segment": {"partIndex": 2, "endIndex": 4, "text": "Bern"}, "groundingChunkIndices": [0]}
    (found,) = cite(grounded([WEB], support))
    assert TEXT[found.start_index : found.end_index] == "Bern"


@pytest.mark.parametrize(
    "said",
    [
        {"startIndex": 0, "endIndex": 7},
        {"startIndex": 0, "endIndex": 4, "text": "not in there"},
        {"startIndex": 2, "endIndex": 7, "text": "c"},
        {"startIndex": -1, "endIndex": 10**12, "text": "h"},
        {"startIndex": "0", "endIndex": None, "text": "i"},
        {},
        None,
        "text",
    ],
)
def test_what_cannot_be_placed_has_no_place(said: Any) -> None:
    (found,) = cite(grounded([WEB], {"segment": said, "groundingChunkIndices": [0]}))
    assert found == Citation("https://a.example/", "A")


@pytest.mark.parametrize("indices", [[5], [-1], ["0"], None, [None]])
def test_indices_that_point_nowhere_are_skipped(indices: Any) -> None:
    found = cite(grounded([WEB], {"segment": segment("Bern"), "groundingChunkIndices": indices}))
    assert found == [Citation("https://a.example/", "A")]


def test_maps_and_images_and_what_is_not_known() -> None:
    chunks = [
        {"maps": {"uri": "https://maps.example/", "title": "Place", "placeId": "places/1"}},
        {"image": {"sourceUri": "https://img.example/", "imageUri": "https://x", "title": "Picture"}},
        {"unheardOf": {"uri": "https://x"}},
        None,
    ]
    claim = {"segment": segment("Bern"), "groundingChunkIndices": [2, 3]}
    assert cite(grounded(chunks, claim)) == [
        Citation("https://maps.example/", "Place", "places/1"),
        Citation("https://img.example/", "Picture"),
    ]


def test_recitations() -> None:
    sources = [
        {"startIndex": 0, "endIndex": 7, "uri": "https://a.example/", "license": "mit"},
        {"startIndex": 2, "endIndex": 7, "uri": "https://b.example/", "title": "B"},
        {"startIndex": 8, "endIndex": 11, "uri": "https://c.example/"},
    ]
    expected = [
        Citation("https://a.example/", start_index=0, end_index=6),
        Citation("https://b.example/", "B"),
        Citation("https://c.example/", start_index=7, end_index=10),
    ]
    assert cite({"citationMetadata": {"citationSources": sources}}) == expected
    assert cite({"citationMetadata": {"citations": sources}}) == expected


@pytest.mark.parametrize("odd", [None, [], "x", {"groundingChunks": "x", "groundingSupports": {}}])
def test_other_shapes_say_nothing(odd: Any) -> None:
    assert cite({"groundingMetadata": odd, "citationMetadata": odd}) == []


@given(st.text("aä🙂", min_size=1), st.data())
def test_any_segment_of_any_text_is_found_where_it_stands(text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    said = {
        "startIndex": len(text[:start].encode()), "endIndex": len(text[:end].encode()), "text": text[start:end],
    }  # fmt: skip
    (found,) = cite(grounded([WEB], {"segment": said, "groundingChunkIndices": [0]}), text)
    assert (found.start_index, found.end_index) == (start, end)
