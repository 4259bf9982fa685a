"""Answers as their callers get them: placeholders are what they stood for, and what else is sensitive may be left out.

What a caller reads while it streams and what he gets in the end are the same text, because it is restored once, piece
by piece; only as much is held back as could still turn out to be something else.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from pointsman_server.domain.call import FailedOver, Relay
from pointsman_server.domain.message import OpaquePart, Part, ReasoningPart, TextPart, ToolCallPart
from pointsman_server.domain.reply import (
    Citation,
    ContentDelta,
    OpaqueDelta,
    ReasoningDelta,
    Reply,
    TextDelta,
    ToolCallDelta,
)
from pointsman_server.domain.safety import AnswerMode, Guarded
from pointsman_server.domain.sensitive import Finding, SensitiveScanner

HELD_BACK_CHARACTERS = 64
"""How far behind the model a stream is from which sensitive data is taken out.

Of what is longer and shows only at its end what it is, the beginning may have been told.
"""

_CONTEXT_CHARACTERS = 64
"""What was sent already and is looked at again: words before a number say what it is."""

Redact = Callable[[str], Sequence[Finding]]


class _Replacement(NamedTuple):
    start: int
    end: int
    text: str
    kind: str = ""
    """What was taken out; "" where something is put back."""


class TextRestorer:
    """Restores one part of an answer, piece by piece. `edits` tell what was replaced, for what points into the text."""

    def __init__(self, originals: Mapping[str, str], redact: Redact | None = None) -> None:
        self._originals = originals
        self._pattern = re.compile("|".join(map(re.escape, originals))) if originals else None
        self._redact = redact
        self._waiting = ""
        self._context = ""
        self._read = 0
        self.restored: list[str] = []
        self.edits: list[tuple[int, int, int]] = []
        """Where in the model's text something was replaced, from, to, and by how many characters."""
        self.redactions: Counter[str] = Counter()

    def feed(self, piece: str) -> str:
        """What can be told now that this came as well."""
        self._waiting += piece
        return self._tell(self._safe_length())

    def end(self) -> str:
        """The rest."""
        return self._tell(len(self._waiting))

    @property
    def text(self) -> str:
        """Everything told so far."""
        return "".join(self.restored)

    def _safe_length(self) -> int:
        if self._redact is not None:
            # Longer than any placeholder, so that none is cut in two either.
            return len(self._waiting) - HELD_BACK_CHARACTERS
        opening = self._waiting.rfind("[") if self._pattern is not None else -1
        if opening >= 0 and self._may_begin_a_placeholder(self._waiting[opening:]):
            return opening
        return len(self._waiting)

    def _may_begin_a_placeholder(self, tail: str) -> bool:
        return any(len(tail) < len(one) and one.startswith(tail) for one in self._originals)

    def _tell(self, length: int) -> str:
        if length <= 0:
            return ""
        replacements = self._replacements(length)
        if replacements and replacements[-1].end > length:
            # What reaches into the part that is held back stays behind as a whole.
            length = replacements.pop().start
        told = self._replaced(length, replacements)
        self._context = (self._context + self._waiting[:length])[-_CONTEXT_CHARACTERS:]
        self._waiting = self._waiting[length:]
        self._read += length
        self.restored.append(told)
        return told

    def _replacements(self, length: int) -> list[_Replacement]:
        """What stands for what among that which begins before `length`; in order, apart."""
        found = [_Replacement(start, end, f"[{kind}]", kind) for start, end, kind in self._findings()]
        if self._pattern is not None:
            for match in self._pattern.finditer(self._waiting):
                found.append(_Replacement(match.start(), match.end(), self._originals[match.group()]))
        apart: list[_Replacement] = []
        for one in sorted(found):
            if one.start < length and (not apart or one.start >= apart[-1].end):
                apart.append(one)
        return apart

    def _findings(self) -> list[Finding]:
        if self._redact is None:
            return []
        before = len(self._context)
        found = self._redact(self._context + self._waiting)
        return [Finding(max(start - before, 0), end - before, kind) for start, end, kind in found if end > before]

    def _replaced(self, length: int, replacements: Sequence[_Replacement]) -> str:
        pieces: list[str] = []
        at = 0
        for start, end, text, kind in replacements:
            pieces += (self._waiting[at:start], text)
            self.edits.append((self._read + start, self._read + end, len(text)))
            self.redactions.update([kind] if kind else [])
            at = end
        return "".join((*pieces, self._waiting[at:length]))


class AnswerRestorer:
    """Restores one answer: its events while it streams, and the whole of it in the end."""

    def __init__(self, guarded: Guarded, scanner: SensitiveScanner) -> None:
        self._guarded = guarded
        self._scanner = scanner
        self._in_json = {name: json.dumps(value, ensure_ascii=False)[1:-1] for name, value in guarded.originals.items()}
        self._parts: dict[int, _OpenPart] = {}

    def relay(self, event: Relay) -> Relay | None:
        """What of it can be told now; None is nothing yet."""
        told = [(index, now) for index, delta in event.deltas if (now := self._told(index, delta)) is not None]
        return Relay(tuple(told)) if told else None

    def moved(self, event: FailedOver) -> FailedOver:
        """The same in terms of what the caller was sent."""
        if event.characters_kept == 0:
            self._parts.clear()
            return event
        last = max(index for index, part in self._parts.items() if isinstance(part.first, TextDelta))
        self._parts = {index: part for index, part in self._parts.items() if index <= last}
        texts = (part.restorer.text for part in self._parts.values() if isinstance(part.first, TextDelta))
        return replace(event, characters_kept=sum(map(len, texts)))

    def rest(self) -> Relay | None:
        """What was held back until the answer's end."""
        held = [
            (index, _with_content(part.first, text))
            for index, part in self._parts.items()
            if (text := part.restorer.end())
        ]
        return Relay(tuple(held)) if held else None

    def whole(self, reply: Reply) -> Reply:
        """The whole answer, of which all that was streamed is as it was told."""
        for index, part in enumerate(reply.parts):
            if index not in self._parts and not isinstance(part, OpaquePart):
                self._told(index, _as_delta(index, part))
        self.rest()
        parts = tuple(self._restored(index, part) for index, part in enumerate(reply.parts))
        edits = self._edits_of_text(reply)
        citations = tuple(self._citation(citation, edits) for citation in reply.citations)
        return replace(reply, parts=parts, citations=citations)

    def text(self, text: str) -> str:
        """A text of the answer that is told by itself, in an error for example."""
        restorer = self._restorer(for_json=False)
        return restorer.feed(text) + restorer.end()

    @property
    def redactions(self) -> Counter[str]:
        """What was taken out of the answer."""
        return sum((part.restorer.redactions for part in self._parts.values()), Counter())

    def _told(self, index: int, delta: ContentDelta) -> ContentDelta | None:
        if isinstance(delta, OpaqueDelta):
            return delta
        part = self._parts.get(index)
        if part is None:
            part = self._parts[index] = _OpenPart(delta, self._restorer(for_json=isinstance(delta, ToolCallDelta)))
        now = part.restorer.feed(_content_of(delta))
        says_more = delta.signature or (isinstance(delta, ToolCallDelta) and (delta.id or delta.name))
        return _changed(delta, now) if now or says_more or not _content_of(delta) else None

    def _restorer(self, *, for_json: bool) -> TextRestorer:
        if for_json:  # what a tool is called with is left whole: it would not work otherwise
            return TextRestorer(self._in_json)
        masks = self._guarded.answers is AnswerMode.MASK
        return TextRestorer(self._guarded.originals, self._new_findings if masks else None)

    def _new_findings(self, text: str) -> list[Finding]:
        return new_findings(self._scanner, self._guarded, text)

    def _restored(self, index: int, part: Part) -> Part:
        if isinstance(part, ToolCallPart):
            return replace(part, arguments_json=self._parts[index].restorer.text)
        if isinstance(part, (TextPart, ReasoningPart)):
            return replace(part, text=self._parts[index].restorer.text)
        return part

    def _edits_of_text(self, reply: Reply) -> list[tuple[int, int, int]]:
        edits: list[tuple[int, int, int]] = []
        begins_at = 0
        for index, part in enumerate(reply.parts):
            if isinstance(part, TextPart):
                its = self._parts[index].restorer.edits
                edits += ((begins_at + start, begins_at + end, length) for start, end, length in its)
                begins_at += len(part.text)
        return edits

    def _citation(self, citation: Citation, edits: Sequence[tuple[int, int, int]]) -> Citation:
        # Title and address of a document may have been masked as well.
        citation = replace(
            citation,
            quoted_text=self.text(citation.quoted_text),
            title=self.text(citation.title),
            url=self.text(citation.url),
        )
        if citation.start_index < 0:
            return citation
        start, end = _moved(citation.start_index, edits, to_end=False), _moved(citation.end_index, edits, to_end=True)
        return replace(citation, start_index=start, end_index=end)


def new_findings(scanner: SensitiveScanner, guarded: Guarded, text: str) -> list[Finding]:
    """What is sensitive in a text of the model's and was not in the request."""
    return [
        one
        for one in scanner.scan(text)
        if one.kind not in guarded.ignored
        and text[one.start : one.end] not in guarded.values
        and text[one.start : one.end] not in guarded.originals
    ]


class _OpenPart(NamedTuple):
    first: TextDelta | ReasoningDelta | ToolCallDelta
    restorer: TextRestorer


def _content_of(delta: TextDelta | ReasoningDelta | ToolCallDelta) -> str:
    return delta.arguments_json if isinstance(delta, ToolCallDelta) else delta.text


def _changed(delta: TextDelta | ReasoningDelta | ToolCallDelta, content: str) -> ContentDelta:
    if isinstance(delta, ToolCallDelta):
        return replace(delta, arguments_json=content)
    return replace(delta, text=content)


def _with_content(first: TextDelta | ReasoningDelta | ToolCallDelta, content: str) -> ContentDelta:
    if isinstance(first, ToolCallDelta):
        return ToolCallDelta(first.key, arguments_json=content)
    return replace(first, text=content, signature="")


def _as_delta(index: int, part: Part) -> ContentDelta:
    match part:
        case ToolCallPart(arguments_json=arguments):
            return ToolCallDelta(index, arguments_json=arguments)
        case ReasoningPart(text=text):
            return ReasoningDelta(index, text)
        case TextPart(text=text):
            return TextDelta(index, text)
        case _:
            raise TypeError(f"a model does not answer with {type(part).__name__}")


def _moved(position: int, edits: Sequence[tuple[int, int, int]], *, to_end: bool) -> int:
    """Where a place of the model's text is in the restored one; within a replacement, its beginning or its end."""
    shift = 0
    for start, end, length in edits:
        if position <= start:
            break
        if position < end:
            return start + shift + (length if to_end else 0)
        shift += length - (end - start)
    return position + shift
