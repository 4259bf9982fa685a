"""Finds out which documents an answer leans on, from the marks that models were asked to set (`[[id]]`).

The marks stay in the text: what was streamed and what is told at the end are the same, and whoever shows the answer can
turn them into links. A mark that names no document the model was shown is text like any other.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from pointsman_server.decision.documents import title_of
from pointsman_server.domain.reply import Citation, Reply
from pointsman_server.domain.request import Document

MOST_CITATIONS = 256
LONGEST_QUOTE = 1_000
"""Characters; of a longer sentence the end is quoted. Both so that no answer, however odd, makes a huge account."""

_MARK = re.compile(r"\[\[([^\[\]\n]{1,600})\]\]")
_SEPARATOR = re.compile(r"\s*[,;|]\s*")
_BLANKED = "\0"
"""Stands for every character of a mark while sentences are looked for."""

_SENTENCE_END = re.compile(
    "(?:[.!?\u2026][\"')\\]\u201d\u2019]{0,3}(?=[\\s\0])|[\u3002\uff01\uff1f]|\n)(?:\\s*\0+)*\\s*"
)
"""A mark right behind a sentence still belongs to it."""

_LEAD = re.compile(r"[\s\0]*(?:[-*+\u2022>]\s+|\d{1,3}[.)]\s+|#{1,6}\s+)?[\s\0]*")
"""What stands before the words of a list's item or a heading."""

_URL = "url"


def cite(reply: Reply, documents: Sequence[Document], shown: Mapping[str, str]) -> Reply:
    """The answer with a citation for every mark, behind those of the provider. `shown` are ids of documents by name.

    Each is about the sentence before its mark: `quoted_text` are its words, the indices its place in the answer.
    """
    if not shown:
        return reply
    found: dict[Citation, None] = {}
    for citation in _citations(reply.text, {one.id: one for one in documents}, shown):
        found[citation] = None
        if len(found) == MOST_CITATIONS:
            break
    return replace(reply, citations=(*reply.citations, *found)) if found else reply


def _citations(text: str, documents: Mapping[str, Document], shown: Mapping[str, str]) -> Iterator[Citation]:
    marks = [(mark, ids) for mark in _MARK.finditer(text) if (ids := _ids_in(mark[1], shown))]
    if not marks:
        return
    plain = _blank_out(text, [mark.span() for mark, _ in marks])
    starts = [0, *(end.end() for end in _SENTENCE_END.finditer(plain))]
    for mark, ids in marks:
        sentence = starts[bisect_right(starts, mark.start()) - 1]
        start, end = _words_between(plain, max(sentence, mark.start() - LONGEST_QUOTE), mark.start())
        for document_id in ids:
            document = documents[document_id]
            yield Citation(
                url=document.metadata.get(_URL, ""),
                title=title_of(document),
                document_id=document_id,
                quoted_text=text[start:end],
                start_index=start if end > start else -1,
                end_index=end if end > start else -1,
            )


def _ids_in(inside: str, shown: Mapping[str, str]) -> list[str]:
    """The documents that a mark names: one, or several with commas between them."""
    whole = inside.strip()
    names = [whole] if whole in shown else _SEPARATOR.split(whole)
    return [shown[name] for name in names if name in shown]


def _blank_out(text: str, spans: Sequence[tuple[int, int]]) -> str:
    pieces: list[str] = []
    behind = 0
    for start, end in spans:
        pieces.extend((text[behind:start], _BLANKED * (end - start)))
        behind = end
    return "".join((*pieces, text[behind:]))


def _words_between(plain: str, start: int, end: int) -> tuple[int, int]:
    """The same stretch without what only leads in, and without blanks and marks at its end."""
    lead = _LEAD.match(plain, start, end)
    start = lead.end() if lead else start
    return start, start + len(plain[start:end].rstrip(" \t\r\n\0"))
