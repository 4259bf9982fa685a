"""What a call said, for operators to read: masked, whatever the policy does about sensitive data elsewhere."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pointsman_server.domain.call import Call
from pointsman_server.domain.message import ImagePart, OpaquePart, Part, ReasoningPart, ToolCallPart, ToolResultPart
from pointsman_server.domain.reply import Reply
from pointsman_server.domain.request import CompletionRequest
from pointsman_server.domain.sensitive import Finding, SensitiveScanner
from pointsman_server.execution.guarding import LOOK_SECONDS, LOOK_SECONDS_PER_CHARACTER, ON_LOOP_CHARACTERS
from pointsman_server.execution.masking import PLACEHOLDER, Masker
from pointsman_server.execution.request_texts import texts_of

MOST_CHARACTERS = 200_000
"""Of a call that says more, no text is kept: to mask it would take too long."""

MOST_VALUES = 500
"""The same holds where more than so many different values are sensitive."""

Line = tuple[str, str]
"""Who says something, in words of ours, and what."""


class Shown(NamedTuple):
    """What may be stored of a call's texts."""

    prompt: str = ""
    answer: str = ""


class TooMuchToMaskError(Exception):
    """The texts are too long, or too full of what is sensitive."""


class TraceMasker:
    """Makes texts fit to be stored. One for the process; remembers nothing."""

    def __init__(self, scanner: SensitiveScanner) -> None:
        self._scanner = scanner

    async def shown(self, call: Call, reply: Reply | None, most_characters: int) -> Shown:
        """Prompt and answer, masked, each with at most so many characters and a note of what was left out.

        Raises `TooMuchToMaskError`, and whatever the scanner raises: then nothing of the texts may be kept.
        """
        prompt, answer = list(_prompt(call.request)), list(_answer(reply))
        characters = sum(len(text) for _, text in (*prompt, *answer))
        if characters > MOST_CHARACTERS:
            raise TooMuchToMaskError
        if characters <= ON_LOOP_CHARACTERS:
            return self._masked(call, prompt, answer, most_characters)
        async with asyncio.timeout(LOOK_SECONDS + LOOK_SECONDS_PER_CHARACTER * characters):
            return await asyncio.to_thread(self._masked, call, prompt, answer, most_characters)

    def _masked(self, call: Call, prompt: Sequence[Line], answer: Sequence[Line], most_characters: int) -> Shown:
        # As it came: beside a placeholder the scanner may see what is not there, and miss what is.
        originals = call.guarded.originals
        prompt = [(who, _with_originals(text, originals)) for who, text in prompt]
        found = {text: tuple(self._scanner.scan(text)) for _, text in (*prompt, *answer)}
        kinds = {value: _kind_of(placeholder) for placeholder, value in originals.items()}
        kinds |= {text[one.start : one.end]: one.kind for text, its in found.items() for one in its}
        if len(kinds) > MOST_VALUES:
            raise TooMuchToMaskError
        masker = Masker(found)

        def told(lines: Iterable[Line]) -> str:
            masked = ((who, masker.mask(text, _all_places(text, found[text], kinds))) for who, text in lines)
            whole = "\n".join(f"{who}: {text}" if who else text for who, text in masked)
            return _cut(_storable(whole), most_characters)

        return Shown(told(prompt), told(answer))


def _prompt(request: CompletionRequest) -> Iterator[Line]:
    for message in request.messages:
        for part in message.parts:
            yield from _lines(message.role.value, part)
    for number, document in enumerate(request.documents, start=1):
        for text in (*document.metadata.values(), document.text):
            yield f"document {number}", text


def _answer(reply: Reply | None) -> Iterator[Line]:
    for part in () if reply is None else reply.parts:
        yield from _lines("", part)


def _lines(who: str, part: Part) -> Iterator[Line]:
    does = "answers" if isinstance(part, ToolResultPart) else "thinks" if isinstance(part, ReasoningPart) else ""
    match part:
        case ImagePart():
            yield who, "(an image)"
        case OpaquePart():
            yield who, "(a block that only its provider can read)"
        case ToolCallPart(name=name):
            yield f"{who} calls".strip(), name
            for text in texts_of(part):
                yield f"{who} calls with".strip(), text
        case _:
            for text in texts_of(part):
                yield f"{who} {does}".strip(), text


def _with_originals(text: str, originals: Mapping[str, str]) -> str:
    if not originals or "[" not in text:
        return text
    return PLACEHOLDER.sub(lambda match: originals.get(match.group(), match.group()), text)


def _kind_of(placeholder: str) -> str:
    return placeholder.strip("[]").rpartition("_")[0]


def _all_places(text: str, found: Iterable[Finding], kinds: Mapping[str, str]) -> list[Finding]:
    """What was found here, and what was found elsewhere and stands here in other surroundings; apart and in order."""
    folded = text.casefold()
    places = list(found)
    for value, kind in kinds.items():
        if value.casefold() in folded:
            places += (
                Finding(match.start(), match.end(), kind)
                for match in re.finditer(re.escape(value), text, re.IGNORECASE)
            )
    apart: list[Finding] = []
    for place in sorted(places):
        if apart and place.start < apart[-1].end:
            apart[-1] = apart[-1]._replace(end=max(apart[-1].end, place.end))
        else:
            apart.append(place)
    return apart


def _cut(text: str, most: int) -> str:
    """The beginning and the end: a conversation begins with its instructions and ends with its question."""
    if len(text) <= most:
        return text
    head = most // 2
    return f"{text[:head]}\n(… {len(text) - most} characters left out …)\n{text[len(text) - most + head :]}"


def _storable(text: str) -> str:
    """Without what a database cannot hold: NUL, and halves of surrogate pairs."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
