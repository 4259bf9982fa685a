"""Answers without a model: the passages of a knowledge base, or of the request's documents, that fit a question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence

from pointsman_server.adapters.knowledge.index import KnowledgeIndex
from pointsman_server.adapters.knowledge.ranking import Found, find
from pointsman_server.adapters.knowledge.tasks import answer_task
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.knowledge import Knowledge, Passage, WhenUnknown, passages_of
from pointsman_server.domain.message import Role
from pointsman_server.domain.ports import ProviderCall
from pointsman_server.domain.reply import (
    Certainty,
    Citation,
    CitationFound,
    Finished,
    FinishReason,
    ReplyEvent,
    TextDelta,
    Usage,
    UsageReport,
)
from pointsman_server.domain.request import Document

NO_ANSWER = "I found no answer to this in the knowledge base, and no language model could be asked. Please try later."
WITHOUT_MODEL = "(Found in the knowledge base, without a language model.)"
SEE_ALSO = "See also:"

MOST_QUOTED = 3
NEARLY_AS_GOOD = 0.6
"""A passage with this share of the best one's match is quoted as well: words do not tell which one is meant."""

MOST_DOCUMENT_CHARACTERS = 2_000_000
"""So much of a request's documents is searched."""

_MOST_SEARCHED_ON_LOOP = 20_000
_MOST_RANKED = 50
_PIECE_CHARACTERS = 60
_CHARACTERS_PER_TOKEN = 4
_NO_TOKENS = UsageReport(Usage(input_tokens=0, output_tokens=0))
"""No model read or wrote anything."""


class LocalKnowledge:
    """A `ProviderAdapter` that calls nobody. Making it takes a while where the knowledge base is large."""

    def __init__(self, knowledge: Knowledge) -> None:
        self._knowledge = knowledge
        self._index = KnowledgeIndex(knowledge.passages, knowledge.synonyms)

    async def exchange(self, call: ProviderCall) -> AsyncGenerator[Sequence[ReplyEvent], None]:
        """See `ProviderAdapter.exchange`. Raises `ProviderFault` where there is no answer and the policy wants that."""
        characters = sum(len(document.text) for document in call.documents)
        if characters > _MOST_SEARCHED_ON_LOOP:
            events = await asyncio.to_thread(self._answer, call)
        else:
            events = self._answer(call)
        for batch in _in_pieces(events) if call.stream else [events]:
            yield batch

    async def close(self) -> None:
        """Nothing is open."""

    def _answer(self, call: ProviderCall) -> Sequence[ReplyEvent]:
        documents = _index_of(call.documents, self._knowledge) if call.documents else None
        task = self._answer_task(call, documents)
        if task is not None:
            return _events(call, task, (), None)
        if call.generation.response_schema is not None:
            raise _no_answer("a knowledge base answers in plain text, which does not fit a response_schema")
        found = self._find(_question_of(call), documents)
        if not found or found[0].match < self._knowledge.least_match:
            if self._knowledge.when_unknown is WhenUnknown.REFUSE:
                raise _no_answer("the knowledge base has no answer to this question")
            return _events(call, NO_ANSWER, (), 0.0)
        text, citations = _quoted([one for one in found if one.match >= NEARLY_AS_GOOD * found[0].match])
        return _events(call, text, citations, found[0].match)

    def _find(self, question: str, documents: KnowledgeIndex | None) -> list[Found]:
        found = find(self._index, question, MOST_QUOTED)
        if documents is not None:
            found = [*find(documents, question, MOST_QUOTED), *found]
        return sorted(found, key=lambda one: -one.match)[:MOST_QUOTED]

    def _answer_task(self, call: ProviderCall, documents: KnowledgeIndex | None) -> str | None:
        """The answer to a task that comes with pointsman, as JSON; None for everything else."""
        if not call.task:
            return None
        index = self._index if documents is None else documents
        offered = call.documents or [Document(one.document_id, one.text) for one in index.passages]

        def rank(text: str, among: Sequence[Document]) -> Sequence[tuple[Document, float]]:
            matches: dict[str, float] = {}
            for one in find(index, text, _MOST_RANKED):
                matches.setdefault(one.passage.document_id, one.match)
            return [(one, matches[one.id]) for one in among if one.id in matches]

        return answer_task(call.task, call.task_variables, offered, rank)


def _no_answer(detail: str) -> ProviderFault:
    # Nothing is broken, and the same question would get the same answer.
    return ProviderFault(FaultKind.UNAVAILABLE, detail, blameless=True)


def _question_of(call: ProviderCall) -> str:
    """What the user said last."""
    return next((one.text for one in reversed(call.messages) if one.role is Role.USER and one.text.strip()), "")


def _index_of(documents: Sequence[Document], knowledge: Knowledge) -> KnowledgeIndex:
    return KnowledgeIndex(_passages_of(documents), knowledge.synonyms)


def _passages_of(documents: Sequence[Document]) -> Iterator[Passage]:
    left = MOST_DOCUMENT_CHARACTERS
    for document in documents:
        yield from passages_of(document.text[:left], document.id, document.metadata.get("title", ""))
        left -= len(document.text[:left])


def _quoted(found: Sequence[Found]) -> tuple[str, list[Citation]]:
    """The best passage with its source, then the others, and where in that text each of them stands."""
    text, citations = "", []
    for place, (passage, _) in enumerate(found):
        start = len(text) + (len(SEE_ALSO) + 1 if place else 0)
        text += f"{SEE_ALSO} {passage.text}" if place else passage.text
        citations.append(
            Citation(
                title=passage.title,
                document_id=passage.document_id,
                quoted_text=passage.text,
                start_index=start,
                end_index=len(text),
            )
        )
        text += f"\n\nSource: {_source(passage)}\n\n"
    return text + WITHOUT_MODEL, citations


def _source(passage: Passage) -> str:
    return f"{passage.title} ({passage.document_id})" if passage.title else passage.document_id


def _events(
    call: ProviderCall, text: str, citations: Sequence[Citation], certainty: float | None
) -> Sequence[ReplyEvent]:
    stops = [text.find(stop) for stop in call.generation.stop_sequences if stop and stop in text]
    kept, reason = text[: min(stops, default=len(text))], FinishReason.STOP
    most_characters = call.max_output_tokens * _CHARACTERS_PER_TOKEN
    if len(kept) > most_characters:
        kept, reason = kept[:most_characters], FinishReason.LENGTH
    events: list[ReplyEvent] = [TextDelta(0, kept)]
    events += [CitationFound(one) for one in citations if one.end_index <= len(kept)]
    events += [_NO_TOKENS, *([] if certainty is None else [Certainty(certainty)]), Finished(reason, reason.value)]
    return events


def _in_pieces(events: Sequence[ReplyEvent]) -> Iterator[Sequence[ReplyEvent]]:
    for event in events:
        if not isinstance(event, TextDelta):
            yield (event,)
            continue
        start = 0
        while start < len(event.text):
            end = event.text.find(" ", start + _PIECE_CHARACTERS) + 1 or len(event.text)
            yield (TextDelta(event.key, event.text[start:end]),)
            start = end
