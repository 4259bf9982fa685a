"""Puts documents into a conversation and cuts both to a window: documents by relevance, history by recency.

The system prompt, the last turn of the user with all that follows it, tools and schemas are never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import NamedTuple

from pointsman_server.decision.documents import (
    GAP,
    Shown,
    escaped,
    names_of,
    render,
    render_all,
    shown_whole,
)
from pointsman_server.decision.history import Group, groups_of, place_of_ask
from pointsman_server.decision.passages import passages_of
from pointsman_server.decision.relevance import relevances
from pointsman_server.decision.room import shared_room
from pointsman_server.decision.tokens import FRAMING_TOKENS_PER_MESSAGE, counted_tokens, counted_tokens_of_messages
from pointsman_server.domain.context import Trim
from pointsman_server.domain.message import Message, Role, TextPart
from pointsman_server.domain.request import CompletionRequest, Document

LEAST_CUT_TOKENS = 48
"""Less of a document than this says nothing; it is left out instead."""

_CHUNK_CHARACTERS = 4_096
_SEAM_TOKENS = 8
"""A text that is counted in chunks has a few tokens more at each seam."""

Count = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a model was not sent: so many turns and messages of the conversation, and documents by their ids."""

    turns: int = 0
    messages: int = 0
    cut: tuple[str, ...] = ()
    """Documents of which only a part was sent."""
    documents: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.messages or self.cut or self.documents)


@dataclass(frozen=True, slots=True)
class Fitted:
    """The messages that a model is sent, what is not among them, and the ids of documents by their names in it.

    `tokens` of o200k_base is what the request has with these messages; None where nobody needed to count it.
    """

    messages: tuple[Message, ...]
    left_out: LeftOut = field(default_factory=LeftOut)
    shown: Mapping[str, str] = field(default_factory=dict)
    tokens: int | None = None


class Parts(NamedTuple):
    """A request by what may be left out of it: `core` is all that may not be."""

    core: CompletionRequest
    groups: Sequence[Group] = ()
    """Earlier turns, oldest first, as places among the request's messages."""
    documents: tuple[Document, ...] = ()


def divide(request: CompletionRequest, trim: Trim) -> Parts:
    """What of the request may be left out."""
    documents = () if trim is Trim.NEVER else request.documents
    groups = groups_of(request.messages) if trim is Trim.ALL else ()
    if not (documents or groups):
        return Parts(request)
    core = replace(
        request, messages=_without(request.messages, groups), documents=() if documents else request.documents
    )
    return Parts(core, groups, documents)


def fit_whole(request: CompletionRequest, *, cites: bool) -> Fitted:
    """All of the request, with the documents in its messages."""
    if not request.documents:
        return Fitted(request.messages)
    names = names_of(request.documents)
    return _assemble(request, _ranked(request, names), names, cites=cites)


def fit(request: CompletionRequest, trim: Trim, room_tokens: int, count: Count, *, cites: bool) -> Fitted:
    """As much of the request as has at most `room_tokens`, and never less than what may not be left out.

    `count` gives the tokens of a text. Takes time linear in the request.
    """
    count = cache(count)
    parts = divide(request, trim)
    core_tokens = counted_tokens(parts.core, count)
    left = max(0, room_tokens - core_tokens)
    sizes = [counted_tokens_of_messages([request.messages[place] for place in group], count) for group in parts.groups]
    names = names_of(request.documents)
    ranked = _ranked(request, names)
    packer = _Packer(request, count, cites=cites)
    document_tokens = packer.size(ranked, left) if parts.documents else 0
    if core_tokens + sum(sizes) + document_tokens <= room_tokens:
        return _assemble(request, ranked, names, cites=cites)
    _, for_history = shared_room(left, document_tokens, sum(sizes))
    gone = _oldest_beyond(for_history, sizes)
    if parts.documents:
        ranked = packer.pack(ranked, left - sum(sizes[gone:]))
    fitted = _assemble(request, ranked, names, parts.groups[:gone], cites=cites)
    return replace(fitted, tokens=counted_tokens(with_messages(request, fitted), count))


def with_messages(request: CompletionRequest, fitted: Fitted) -> CompletionRequest:
    """The request as it is sent: its documents are in its messages."""
    return replace(request, messages=fitted.messages, documents=())


def _oldest_beyond(room_tokens: int, sizes: Sequence[int]) -> int:
    """How many of the oldest have to go so that the rest fits."""
    for gone in range(len(sizes), 0, -1):
        room_tokens -= sizes[gone - 1]
        if room_tokens < 0:
            return gone
    return 0


def _ranked(request: CompletionRequest, names: Mapping[str, str]) -> list[Shown]:
    """The most relevant first; what the caller says goes before what the words say."""
    documents = request.documents
    told = [document.relevance for document in documents]
    if None in told:
        guessed = relevances(_ask_of(request), [document.text for document in documents])
        told = [guess if one is None else one for one, guess in zip(told, guessed, strict=True)]
    order = sorted(range(len(documents)), key=lambda place: -(told[place] or 0.0))
    return shown_whole([documents[place] for place in order], names)


def _ask_of(request: CompletionRequest) -> str:
    return " ".join(message.text for message in request.messages[place_of_ask(request.messages) :])


def _count_up_to(limit_tokens: int, text: str, count: Count) -> int:
    """The tokens of a text; of one that has more than the limit only so much is counted that this is sure."""
    least = 0
    if len(text) > _CHUNK_CHARACTERS:
        for start in range(0, len(text), _CHUNK_CHARACTERS):
            least += count(text[start : start + _CHUNK_CHARACTERS]) - _SEAM_TOKENS
            if least > limit_tokens:
                return least
    return count(text)


class _Packer:
    """Takes as much of the documents as there is room for."""

    def __init__(self, request: CompletionRequest, count: Count, *, cites: bool) -> None:
        self._ask = _ask_of(request)
        self._count = count
        self._cites = cites

    def pack(self, ranked: Sequence[Shown], room_tokens: int) -> list[Shown]:
        """The documents that fit together, one of them cut if need be."""
        kept, target = self._take(ranked, room_tokens), room_tokens
        # Parts of a text have, by a token here and there, not the same tokens as the whole.
        while (excess := self.size(kept, room_tokens) - room_tokens) > 0:
            target -= excess + LEAST_CUT_TOKENS
            kept = self._take(ranked, target)
        return kept

    def size(self, shown: Sequence[Shown], limit_tokens: int) -> int:
        """What these documents add to a request; if that is more than the limit, any number above it."""
        if not shown:
            return 0
        return (
            _count_up_to(limit_tokens, render_all(shown, cites=self._cites), self._count) + FRAMING_TOKENS_PER_MESSAGE
        )

    def _take(self, ranked: Sequence[Shown], room_tokens: int) -> list[Shown]:
        kept: list[Shown] = []
        left = room_tokens - self.size([Shown(ranked[0].name, "", "")], room_tokens)
        has_cut = False
        for shown in ranked:
            size = _count_up_to(left, render(shown), self._count)
            if size > left and not has_cut and left >= LEAST_CUT_TOKENS:
                has_cut = True
                shown = self._cut(shown, left)
                size = self._count(render(shown))
            if size <= left and shown.text:
                kept.append(shown)
                left -= size
        return kept

    def _cut(self, shown: Shown, room_tokens: int) -> Shown:
        """The passages of a document that have most to do with what is asked, in their own order."""
        passages = passages_of(shown.text)
        texts = [shown.text[start:end] for start, end in passages]
        scores = relevances(self._ask, texts)
        gap_tokens = self._count(GAP)
        left = room_tokens - self._count(render(shown._replace(text=""))) - gap_tokens
        kept: set[int] = set()
        for place in sorted(range(len(texts)), key=lambda place: -scores[place]):
            size = self._count(escaped(texts[place])) + gap_tokens
            if size <= left:
                kept.add(place)
                left -= size
            elif left < LEAST_CUT_TOKENS:
                break
        return shown._replace(text=_joined(texts, kept))


def _joined(texts: Sequence[str], kept: Collection[int]) -> str:
    """The texts that are kept, with a sign where others stood; "" when none is."""
    pieces: list[str] = []
    last = -1
    for place in sorted(kept):
        if place > last + 1:
            pieces.append(GAP)
        pieces.append(texts[place])
        last = place
    if kept and last < len(texts) - 1:
        pieces.append(GAP)
    return "".join(pieces).strip()


def _without(messages: Sequence[Message], groups: Sequence[Group]) -> tuple[Message, ...]:
    gone = {place for group in groups for place in group}
    return tuple(message for place, message in enumerate(messages) if place not in gone)


def _assemble(
    request: CompletionRequest,
    shown: Sequence[Shown],
    names: Mapping[str, str],
    gone: Sequence[Group] = (),
    *,
    cites: bool,
) -> Fitted:
    messages = _without(request.messages, gone)
    if shown:
        ask = place_of_ask(messages)
        material = Message(Role.USER, (TextPart(render_all(shown, cites=cites)),))
        messages = (*messages[:ask], material, *messages[ask:])
    texts = {one.name: one.text for one in shown}
    turns = sum(request.messages[place].role is Role.USER for group in gone for place in group)
    return Fitted(
        messages=messages,
        left_out=LeftOut(
            turns=max(turns, len(gone)),
            messages=sum(map(len, gone)),
            cut=tuple(one.id for one in request.documents if texts.get(names[one.id], one.text) != one.text),
            documents=tuple(one.id for one in request.documents if names[one.id] not in texts),
        ),
        shown={name: document_id for document_id, name in names.items() if name in texts},
    )
