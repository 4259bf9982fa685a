"""How much a streamed answer may bring, whatever its provider was told; more than that is cut off.

Providers are told how much they may write. One that does not keep to it is found out by counting what it sends: not
before there are more bytes than tokens are allowed, for no token is shorter than a byte, and then only as often as the
bytes that came since could be too many.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from pointsman_server.decision.scoring import affordable_output_tokens
from pointsman_server.decision.tokens import bytes_of, correction_of
from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.ports import TokenCounter
from pointsman_server.domain.reply import (
    CONTENT_DELTAS,
    PartKey,
    ReasoningDelta,
    ReplyEvent,
    TextDelta,
    ToolCallDelta,
    UsageReport,
)
from pointsman_server.execution.prepare import ON_LOOP_BYTES, get_ready

MARGIN_TOKENS = 16
"""So many tokens more than the limit are let through: vendors count the ends of parts and calls differently."""

OTHER_TOKENIZERS_MARGIN = 1 / 3
"""And so much of the limit where the model does not count as we do: what we take for its count can be off by that."""

_BLOCK_CHARACTERS = 2_048
_LONGEST_WORD = 256


class Cap(Enum):
    """What an answer was cut at."""

    OUTPUT_TOKENS = "its max_output_tokens"
    COST = "what this call may cost"


@dataclass(frozen=True, slots=True)
class Limit:
    """The most that may come of an answer, in tokens of the deployment's model, and why no more."""

    tokens: int
    cap: Cap


def limit_of(deployment: Deployment, max_output_tokens: int, input_tokens: int, left_micro_usd: int | None) -> Limit:
    """The limit of one attempt, which reads `input_tokens` of its model; it may cost `left_micro_usd`, None is no cap.

    The limit in tokens has a margin, so that nobody is cut who keeps to it; that in money has none.
    """
    is_ours = correction_of(deployment).most == 1.0
    margin = MARGIN_TOKENS + (0 if is_ours else int(max_output_tokens * OTHER_TOKENIZERS_MARGIN))
    by_tokens = Limit(max_output_tokens + margin, Cap.OUTPUT_TOKENS)
    if left_micro_usd is None:
        return by_tokens
    affordable = affordable_output_tokens(deployment.model.price, input_tokens, left_micro_usd)
    return min(by_tokens, Limit(affordable, Cap.COST), key=lambda limit: limit.tokens)


class Allowance:
    """Lets the events of one streamed answer through until its limit; after that it `is_used_up`.

    Text, visible reasoning and tool calls count. Blocks that only their provider can read do not: how many tokens they
    stand for cannot be seen.
    """

    __slots__ = (
        "_bytes",
        "_counter",
        "_factor",
        "_free_bytes",
        "_fresh",
        "_looked_bytes",
        "_most",
        "_parts",
        "is_used_up",
        "limit",
    )

    def __init__(self, limit: Limit, deployment: Deployment, counter: TokenCounter) -> None:
        self.limit = limit
        self.is_used_up = False
        self._counter = counter
        self._factor = correction_of(deployment).factor
        self._most = int(limit.tokens / self._factor)
        self._free_bytes = self._most
        self._bytes = self._looked_bytes = 0
        self._fresh: list[ReplyEvent] = []
        self._parts: dict[PartKey, _Part] = {}

    async def take(self, batch: Sequence[ReplyEvent]) -> Sequence[ReplyEvent]:
        """The batch, or what of it is within the limit: its last piece of content may be cut then."""
        self._bytes += sum([bytes_of(_text_of(event)) for event in batch])
        if self._bytes <= self._free_bytes:
            self._fresh.extend(batch)
            return batch
        await get_ready(self._counter)
        looks_at_bytes, self._looked_bytes = self._bytes - self._looked_bytes, self._bytes
        if looks_at_bytes > ON_LOOP_BYTES:
            return await asyncio.to_thread(self._count, batch)
        return self._count(batch)

    @property
    def seen_tokens(self) -> int:
        """Tokens of all that came, in those of the deployment's model; known when the allowance is used up."""
        return round(_total(self._parts) * self._factor)

    def _count(self, batch: Sequence[ReplyEvent]) -> Sequence[ReplyEvent]:
        self._fit(_pieces(self._fresh))
        self._fresh.clear()
        characters = sum(len(_text_of(event)) for event in batch)
        fitting = self._fit(_pieces(batch))
        if fitting == characters:
            self._free_bytes = self._bytes + self._most - _total(self._parts)
            return batch
        self.is_used_up = True
        return tuple(_cut(batch, fitting))

    def _fit(self, pieces: Iterable[_Piece]) -> int:
        """Takes the pieces in, and says how many characters of them, from the first on, are within the limit."""
        fitting, is_over = 0, False
        for block in _blocks(pieces):
            grown = self._grown(block)
            if not is_over:
                size = sum(len(piece.text) for piece in block)
                is_over = _total(grown) > self._most
                fitting += self._fitting(block, size) if is_over else size
            self._parts = grown
        return fitting

    def _fitting(self, block: Sequence[_Piece], size: int) -> int:
        return bisect_right(
            range(1, size + 1), self._most, key=lambda length: _total(self._grown(_beginning(block, length)))
        )

    def _grown(self, block: Iterable[_Piece]) -> dict[PartKey, _Part]:
        parts = dict(self._parts)
        texts: dict[PartKey, str] = {}
        for key, text in block:
            texts[key] = texts.get(key, "") + text
        for key, text in texts.items():
            parts[key] = _longer(parts.get(key, _EMPTY), text, self._counter)
        return parts


class _Piece(NamedTuple):
    key: PartKey
    text: str


class _Part(NamedTuple):
    """A part of the answer: its end is counted anew with what is added to it, all before that never again."""

    sealed_tokens: int
    end: str
    end_tokens: int


_EMPTY = _Part(0, "", 0)


def _longer(part: _Part, text: str, counter: TokenCounter) -> _Part:
    sealed, end = part.sealed_tokens, part.end + text
    if len(end) > 2 * _BLOCK_CHARACTERS:
        seam = _seam(end, len(end) - _BLOCK_CHARACTERS)
        sealed, end = sealed + counter.count(end[:seam]), end[seam:]
    return _Part(sealed, end, counter.count(end))


def _seam(text: str, near: int) -> int:
    """Where a text can be parted: after a word, since no token reaches from a word over the blank behind it."""
    places = range(near, near - _LONGEST_WORD, -1)
    return next((place for place in places if text[place].isspace() and text[place - 1].isalnum()), near)


def _total(parts: dict[PartKey, _Part]) -> int:
    return sum([part.sealed_tokens + part.end_tokens for part in parts.values()])


def _pieces(events: Iterable[ReplyEvent]) -> Iterator[_Piece]:
    for event in events:
        if isinstance(event, CONTENT_DELTAS):
            text = _text_of(event)
            for start in range(0, len(text), _BLOCK_CHARACTERS):
                yield _Piece(event.key, text[start : start + _BLOCK_CHARACTERS])


def _blocks(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """The pieces in blocks that are counted quickly, less than twice the size of a block each."""
    block: list[_Piece] = []
    size = 0
    for piece in pieces:
        block.append(piece)
        size += len(piece.text)
        if size >= _BLOCK_CHARACTERS:
            yield block
            block, size = [], 0
    if block:
        yield block


def _beginning(block: Iterable[_Piece], length: int) -> Iterator[_Piece]:
    for key, text in block:
        yield _Piece(key, text[:length])
        length -= len(text)
        if length <= 0:
            return


def _cut(batch: Iterable[ReplyEvent], length: int) -> Iterator[ReplyEvent]:
    """The batch with so many characters of its content; of what comes after the cut only what the provider counted."""
    is_cut = False
    for event in batch:
        size = len(_text_of(event))
        if is_cut:
            if isinstance(event, UsageReport):
                yield event
        elif size <= length:
            length -= size
            yield event
        else:
            is_cut = True
            yield from _shortened(event, length)


def _shortened(event: ReplyEvent, length: int) -> Iterator[ReplyEvent]:
    """A signature is good for the whole only; a tool whose name does not fit is not called."""
    if isinstance(event, (TextDelta, ReasoningDelta)) and length:
        yield replace(event, text=event.text[:length], signature="")
    elif isinstance(event, ToolCallDelta) and length >= len(event.name):
        yield replace(event, arguments_json=event.arguments_json[: length - len(event.name)], signature="")


def _text_of(event: ReplyEvent) -> str:
    """What counts of it."""
    if isinstance(event, TextDelta):
        return event.text
    if isinstance(event, ReasoningDelta):
        return "" if event.redacted else event.text
    return event.name + event.arguments_json if isinstance(event, ToolCallDelta) else ""
