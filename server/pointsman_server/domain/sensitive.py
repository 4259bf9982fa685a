"""Sensitive data in a text: what was found where, never the data itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class Finding(NamedTuple):
    """Sensitive data from code point `start` to `end` (exclusive). `kind` is its type's name: EMAIL, IBAN, API_KEY."""

    start: int
    end: int
    kind: str


class SensitiveScanner(Protocol):
    """Finds personal data and credentials."""

    def scan(self, text: str) -> Sequence[Finding]:
        """All findings, in order, none overlapping another. Takes time linear in the text's length."""
        ...
