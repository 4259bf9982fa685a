"""The scanner of personal data and credentials."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import re2

from pointsman_server.adapters.guards import identifiers, internet, labelled, names, numbers, secrets
from pointsman_server.adapters.guards.normalise import Normalised
from pointsman_server.adapters.guards.rules import Candidate, Page, Rule, options
from pointsman_server.domain.sensitive import Finding

_RULES: tuple[Rule, ...] = (
    *secrets.RULES, *internet.RULES, *identifiers.RULES, *numbers.RULES, *labelled.RULES, *names.RULES,
)  # fmt: skip


class PatternScanner:
    """Finds personal data and credentials by their forms, their check digits and the words around them.

    One pass looks for signs of all rules at once, so that text with none of them costs next to nothing. Every further
    pass is linear too. Keeps nothing of what it has seen; may be shared by threads.
    """

    def __init__(self) -> None:
        self._signs = re2.Set.SearchSet(options())
        for rule in _RULES:
            self._signs.Add(rule.sign)
        self._signs.Compile()

    def scan(self, text: str) -> Sequence[Finding]:
        """All findings, by code points of `text`, in order, none overlapping another."""
        normalised = Normalised(text)
        page = Page(normalised)
        return [
            Finding(*normalised.original_span(found.start, found.end), found.kind)
            for found in _settled(self._candidates(page))
        ]

    def _candidates(self, page: Page) -> Iterator[Candidate]:
        for number in self._signs.Match(page.view) or ():
            yield from _RULES[number].apply(page)
        if page.has_foreign:
            yield from labelled.foreign_labels(page)
            yield from names.foreign_names(page)


def _settled(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Of candidates that overlap, the surer one stays, then the longer one."""
    settled: list[Candidate] = []
    for candidate in sorted(candidates):
        if not settled or candidate.start >= settled[-1].end:
            settled.append(candidate)
        elif _is_surer(candidate, settled[-1]):
            settled[-1] = candidate
    return settled


def _is_surer(one: Candidate, other: Candidate) -> bool:
    return (one.rank, one.start - one.end) < (other.rank, other.start - other.end)
