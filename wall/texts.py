"""Answers to be sent and compared: seeded, with characters that break easily, and recognisable from their start."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from random import Random
from typing import Any

START = "⟦"
"""Every answer begins with this; nothing else contains it."""

_MARKER = re.compile(r"\[wall ([A-Za-z0-9-]+)/([a-z0-9-]+) #(\d+)\]")
_WORDS = (
    "river", "stone", "copper", "lantern", "meadow", "naïve", "café", "שלום", "דלת", "😀", "👩‍🚀", "e\u0301tude",
    "quiet", "signal", "harbour", "ledger", "winter", "amber", "vessel", "orchard", "日本", "мир", "—", "(twelve)",
    "3.14", "\"quoted\"", "back\\slash", "tab\tbed", "line\nbreak", "two-fold", "🇮🇱", "end.",
)  # fmt: skip


def seeded(*parts: object) -> Random:
    """Chance that is the same for the same parts."""
    return Random("/".join(str(part) for part in parts))  # noqa: S311 - repeatable, nothing secret


def prompt(scenario: str, lane: str, number: int) -> str:
    """What is asked; the marker tells the upstream which call this is."""
    return f"[wall {scenario}/{lane} #{number}] Tell me a short story."


def marked(body: bytes) -> tuple[str, str, int] | None:
    """Scenario, lane and number of the call that the body belongs to."""
    found = _MARKER.search(body.decode("utf-8", "replace"))
    return None if found is None else (found[1], found[2], int(found[3]))


def answer(seed: int, scenario: str, number: int, characters: int = 200) -> str:
    """The answer to a call: about so many characters."""
    chance = seeded("text", seed, scenario, number)
    words = [f"{START}{scenario}.{number}⟧"]
    length = 0
    while length < characters:
        words.append(chance.choice(_WORDS))
        length += len(words[-1]) + 1
    return " ".join(words)


def in_pieces(text: str, chance: Random, largest: int = 12) -> list[str]:
    """The text in random pieces of code points."""
    pieces = []
    at = 0
    while at < len(text):
        size = chance.randint(1, largest)
        pieces.append(text[at : at + size])
        at += size
    return pieces


def told_so_far(body: Mapping[str, Any], text: str) -> int:
    """How many characters of this answer the request already holds, because it asks to go on from there."""
    return max((_beginning_in(content, text) for content in _contents(body.get("messages", ()))), default=0)


def _beginning_in(said: str, text: str) -> int:
    """The length of the longest beginning of the text that is said here."""
    if START not in said:
        return 0
    least, most = 0, len(text)
    while least < most:
        middle = (least + most + 1) // 2
        if text[:middle] in said:
            least = middle
        else:
            most = middle - 1
    return least


def _contents(messages: Iterable[Any]) -> Iterable[str]:
    for message in messages:
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, str):
            yield content
        elif isinstance(content, Sequence):
            yield "".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping))


def parsed(body: bytes) -> Mapping[str, Any]:
    """The request's JSON object; empty when it is none."""
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, Mapping) else {}
