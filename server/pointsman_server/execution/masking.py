"""Sensitive data leaves as placeholders and comes back as itself. What stands for what lives in the call alone.

The same value has the same placeholder wherever it stands in the request, and in later turns of the conversation as
long as they begin with the same messages: placeholders are numbered in the order of their first appearance.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from pointsman_server.domain.sensitive import Finding

PLACEHOLDER = re.compile(r"\[[A-Z][A-Z0-9_]{1,40}_[0-9]{1,6}\]")
"""What placeholders look like; a text that holds one already keeps it as it is."""

LONGEST_PLACEHOLDER_CHARACTERS = 50


class Masker:
    """The placeholders of one request; what looks like one in any of its `texts` is not used."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._taken = {found for text in texts if "[" in text for found in PLACEHOLDER.findall(text)}
        self._last_number: Counter[str] = Counter()
        self._placeholder_of: dict[tuple[str, str], str] = {}

    @property
    def originals(self) -> dict[str, str]:
        """What each placeholder stands for."""
        return {placeholder: value for (_, value), placeholder in self._placeholder_of.items()}

    def mask(self, text: str, findings: Sequence[Finding]) -> str:
        """The text with placeholders for the findings, which are in order and do not overlap."""
        pieces: list[str] = []
        at = 0
        for start, end, kind in findings:
            pieces += (text[at:start], self._placeholder(kind, text[start:end]))
            at = end
        return "".join((*pieces, text[at:]))

    def _placeholder(self, kind: str, value: str) -> str:
        known = self._placeholder_of.get((kind, value))
        if known is None:
            known = self._placeholder_of[kind, value] = self._fresh(kind)
        return known

    def _fresh(self, kind: str) -> str:
        while True:
            self._last_number[kind] += 1
            placeholder = f"[{kind}_{self._last_number[kind]}]"
            if placeholder not in self._taken:
                return placeholder
