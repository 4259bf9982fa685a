"""Prompt injection: text that wants to take over the model it is shown to."""

from __future__ import annotations

from enum import Enum
from typing import Protocol


class Source(Enum):
    """Where a text came from; documents and tool results have no business giving orders."""

    USER = "user"
    DOCUMENT = "document"
    TOOL_RESULT = "tool_result"

    @property
    def trusted(self) -> bool:
        """Whether it may say what is to be done at all."""
        return self is Source.USER


class InjectionDetector(Protocol):
    """Judges texts one by one; keeps nothing of them."""

    @property
    def threshold(self) -> float:
        """From which score on a text counts as an attack."""
        ...

    def score(self, text: str, source: Source) -> float:
        """How likely an attack it is, 0 to 1. Takes time linear in the length of the text, and never raises."""
        ...
