"""An answer that one deployment began and another goes on with, as one text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from pointsman_server.domain.message import ReasoningPart, TextPart
from pointsman_server.domain.reply import (
    CitationFound,
    ContentDelta,
    OpaqueDelta,
    ReasoningDelta,
    Reply,
    ReplyBuilder,
    ReplyEvent,
    TextDelta,
    ToolCallDelta,
)
from pointsman_server.execution.continuation import Seam


class ContinuedAnswer:
    """Takes the new attempt's events and gives what the caller is told of them; `builder` holds the whole answer.

    The text goes on in the last text part; what the new model thinks before it goes on is left out, since the caller
    already reads the answer; its other parts come after those that are there.
    """

    def __init__(self, kept: Reply, seam: Seam) -> None:
        self.builder = ReplyBuilder()
        self._seam = seam
        self._text_key = 0
        # What comes after the text is dropped by callers too, who go by the number of characters kept.
        last = max(place for place, part in enumerate(kept.parts) if isinstance(part, TextPart) and part.text)
        for place, part in enumerate(kept.parts[: last + 1]):
            if isinstance(part, TextPart):
                self._text_key = place
                self.builder.add(TextDelta(place, part.text))
            elif isinstance(part, ReasoningPart):
                self.builder.add(ReasoningDelta(place, part.text))
        for citation in kept.citations:
            self.builder.add(CitationFound(citation))

    def take(self, events: Iterable[ReplyEvent]) -> list[ContentDelta]:
        """What these events add to the answer."""
        added: list[ContentDelta] = []
        for event in events:
            if isinstance(event, TextDelta):
                added.extend(self._text(self._seam.feed(event.text)))
            elif isinstance(event, (ToolCallDelta, OpaqueDelta)):
                added.extend(self._text(self._seam.flush()))
                added.append(replace(event, key=f"continued {event.key}"))
            elif isinstance(event, CitationFound):
                # Its places count from where the new model began, which need not be where the text goes on.
                self.builder.add(CitationFound(replace(event.citation, start_index=-1, end_index=-1)))
        return self._added(added)

    def end(self) -> list[ContentDelta]:
        """What was still held back at the seam."""
        return self._added(self._text(self._seam.flush()))

    def _text(self, text: str) -> list[ContentDelta]:
        return [TextDelta(self._text_key, text)] if text else []

    def _added(self, deltas: list[ContentDelta]) -> list[ContentDelta]:
        for delta in deltas:
            self.builder.add(delta)
        return deltas
