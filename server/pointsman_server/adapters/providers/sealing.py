"""Sealed state of a provider, marked with the id of the provider it belongs to.

Signatures of reasoning and of tool calls must go back unchanged, but only to where they came from: another vendor
refuses them. Callers see them with a mark in front; on the way back the mark is taken off, and foreign ones stay out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pointsman_server.domain.message import Message, Part, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.reply import PartKey, ReasoningDelta, ReplyEvent, TextDelta, ToolCallDelta

_SIGNED_PARTS = (TextPart, ReasoningPart, ToolCallPart)
_SIGNED_DELTAS = (TextDelta, ReasoningDelta, ToolCallDelta)


def unseal(messages: tuple[Message, ...], provider_id: str) -> tuple[Message, ...]:
    """The messages as this provider may see them: own signatures without the mark, foreign ones gone.

    Reasoning whose signature is foreign is left out as a whole: without it no vendor would take the text.
    """
    if not any(_is_signed(part) for message in messages for part in message.parts):
        return messages
    mark = _mark(provider_id)
    return tuple(
        replace(message, parts=tuple(opened for part in message.parts if (opened := _open(part, mark)) is not None))
        for message in messages
    )


class Sealer:
    """Marks the signatures of one answer; a signature that comes in pieces is marked on its first."""

    __slots__ = ("_begun", "_mark")

    def __init__(self, provider_id: str) -> None:
        self._mark = _mark(provider_id)
        self._begun: set[PartKey] = set()

    def seal(self, events: Sequence[ReplyEvent]) -> Sequence[ReplyEvent]:
        """The same events with marked signatures."""
        if not any(isinstance(event, _SIGNED_DELTAS) and event.signature for event in events):
            return events
        return [self._seal_one(event) for event in events]

    def _seal_one(self, event: ReplyEvent) -> ReplyEvent:
        if not isinstance(event, _SIGNED_DELTAS) or not event.signature or event.key in self._begun:
            return event
        self._begun.add(event.key)
        return replace(event, signature=self._mark + event.signature)


def _mark(provider_id: str) -> str:
    return f"{provider_id}:"


def _is_signed(part: Part) -> bool:
    return isinstance(part, _SIGNED_PARTS) and bool(part.signature)


def _open(part: Part, mark: str) -> Part | None:
    if not isinstance(part, _SIGNED_PARTS) or not part.signature:
        return part
    if part.signature.startswith(mark):
        return replace(part, signature=part.signature.removeprefix(mark))
    return None if isinstance(part, ReasoningPart) else replace(part, signature="")
