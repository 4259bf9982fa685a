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
    whole_tokens = counted_tokens(request, count)
    if whole_tokens <= room_tokens:
        return fit_whole(request, cites=cites)
    parts = divide(request, trim)
    core_tokens = counted_tokens(parts.core, count)
    left = max(0, room_tokens - core_tokens)
    sizes = [counted_tokens_of_messages([request.messages[place] for place in group], count) for group in parts.groups]
    _, for_history = shared_room(left, whole_tokens - core_tokens - sum(sizes), sum(sizes))
    gone = _oldest_beyond(for_history, sizes)
    names = names_of(request.documents)
    ranked = _ranked(request, names)
    if parts.documents:
        left -= sum(sizes[gone:])
        ranked = _Packer(request, count, cites=cites).pack(ranked, left)
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


def _tokens_of(shown: Sequence[Shown], count: Count, *, cites: bool) -> int:
    return count(render_all(shown, cites=cites)) + FRAMING_TOKENS_PER_MESSAGE if shown else 0


class _Packer:
    """Takes as much of the documents as there is room for."""

    def __init__(self, request: CompletionRequest, count: Count, *, cites: bool) -> None:
        self._ask = _ask_of(request)
        self._count = count
        self._cites = cites

    def pack(self, ranked: Sequence[Shown], room_tokens: int) -> list[Shown]:
        """The documents that fit together, one of them cut if need be."""
        target = room_tokens
        for _ in range(3):
            kept = self._take(ranked, target)
            excess = self._size(kept) - room_tokens
            if excess <= 0:
                return kept
            # Parts of a text have, by a token here and there, not the same tokens as the whole.
            target -= excess
        while self._size(kept) > room_tokens:
            kept.pop()
        return kept

    def _size(self, shown: Sequence[Shown]) -> int:
        return _tokens_of(shown, self._count, cites=self._cites)

    def _take(self, ranked: Sequence[Shown], room_tokens: int) -> list[Shown]:
        kept: list[Shown] = []
        left = room_tokens - self._size([Shown(ranked[0].name, "", "")]) if ranked else 0
        has_cut = False
        for shown in ranked:
            size = self._count(render(shown))
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
