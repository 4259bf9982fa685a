"""Sources in a Gemini answer: grounding and recitation metadata, with byte offsets turned into code points."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pointsman_server.adapters.providers.json_reading import as_list, as_object, as_text
from pointsman_server.domain.reply import Citation

_Span = tuple[int, int]
_UNKNOWN: _Span = (-1, -1)
_NOTHING = Citation()


class _Answer:
    """The answer's text beside its bytes, which the provider counts in."""

    __slots__ = ("text", "utf8")

    def __init__(self, text: str) -> None:
        self.text = text
        self.utf8 = text.encode("utf-8", "replace")

    def span(self, said: Mapping[str, Any]) -> _Span:
        """The code points between `startIndex` and `endIndex`, which count bytes; unknown if they split a character."""
        start, end = said.get("startIndex", 0), said.get("endIndex")
        if not isinstance(start, int) or not isinstance(end, int) or not 0 <= start < end <= len(self.utf8):
            return _UNKNOWN
        try:
            first = len(self.utf8[:start].decode("utf-8"))
            return first, first + len(self.utf8[start:end].decode("utf-8"))
        except UnicodeDecodeError:
            return _UNKNOWN

    def locate(self, segment: Mapping[str, Any]) -> _Span:
        """Where a segment stands.

        Its offsets count within one of the provider's parts, and a stream has other parts than a whole answer; the
        segment's own text tells whether they also hold for the text as a whole.
        """
        text = as_text(segment.get("text"))
        if not text:
            return _UNKNOWN
        first, last = self.span(segment)
        if self.text[first:last] == text:
            return first, last
        if self.text.count(text) == 1:
            first = self.text.index(text)
            return first, first + len(text)
        return _UNKNOWN


def read_citations(candidate: Mapping[str, Any], text: str) -> Iterator[Citation]:
    """The sources that a candidate names; `text` is the whole text of the answer so far."""
    answer = _Answer(text)
    yield from _read_grounding(as_object(candidate.get("groundingMetadata")), answer)
    yield from _read_recitations(as_object(candidate.get("citationMetadata")), answer)


def _read_grounding(grounding: Mapping[str, Any], answer: _Answer) -> Iterator[Citation]:
    sources = [_source(as_object(chunk)) for chunk in as_list(grounding.get("groundingChunks"))]
    used: set[int] = set()
    for entry in as_list(grounding.get("groundingSupports")):
        support = as_object(entry)
        span = answer.locate(as_object(support.get("segment")))
        for index in as_list(support.get("groundingChunkIndices")):
            if isinstance(index, int) and 0 <= index < len(sources) and sources[index] != _NOTHING:
                used.add(index)
                yield _cite(sources[index], span)
    yield from (source for index, source in enumerate(sources) if index not in used and source != _NOTHING)


def _source(chunk: Mapping[str, Any]) -> Citation:
    kind = next((kind for kind in ("web", "retrievedContext", "maps", "image") if kind in chunk), "")
    said = as_object(chunk.get(kind))
    return Citation(
        url=as_text(said.get("uri")) or as_text(said.get("sourceUri")),
        title=as_text(said.get("title")),
        document_id=as_text(said.get("documentName")) or as_text(said.get("placeId")),
        quoted_text=as_text(said.get("text")),
    )


def _cite(source: Citation, span: _Span) -> Citation:
    return Citation(source.url, source.title, source.document_id, source.quoted_text, *span)


def _read_recitations(said: Mapping[str, Any], answer: _Answer) -> Iterator[Citation]:
    for entry in as_list(said.get("citationSources") or said.get("citations")):
        source = as_object(entry)
        first, last = answer.span(source)
        yield Citation(as_text(source.get("uri")), as_text(source.get("title")), start_index=first, end_index=last)
