"""Which passages answer a question, and how sure that is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from heapq import nlargest
from typing import NamedTuple

from rapidfuzz import fuzz

from pointsman_server.adapters.knowledge.index import IN_TEXT, KnowledgeIndex, Sought, Unit
from pointsman_server.domain.knowledge import Passage

LONGEST_QUESTION_CHARACTERS = 4_000
"""Of a longer text, so much from its two ends: questions stand before or after what they are about."""

_CONSIDERED = 16
_OF_ALL, _OF_SENTENCE, _OF_TITLE, _OF_WORDING = 0.5, 0.25, 0.15, 0.1
"""What the match is made of: how much of the question the passage has, how much of it its title or one sentence alone
has, how much of the title is asked for, and how alike question and title are worded."""

_SENTENCE = re.compile(r"(?<=[.!?:;])\s+|\n+")


class Found(NamedTuple):
    """A passage and how well it answers, 0..1."""

    passage: Passage
    match: float


def find(index: KnowledgeIndex, question: str, most: int = 3) -> list[Found]:
    """The best passages, best first; empty when none has a word of the question."""
    asked = _shortened(question)
    sought = index.sought(asked)
    total = sum(unit.weight for unit in sought)
    if not total:
        return []
    weights = index.weigh(sought)
    likely = nlargest(_CONSIDERED, weights, key=lambda number: (weights[number], -number))
    matcher = _Matcher(index, sought, total, index.units_of(asked))
    matches = [(matcher.match(number, weights[number] / total), -number) for number in likely]
    return [Found(index.passages[-place], match) for match, place in sorted(matches, reverse=True)[:most]]


def _shortened(question: str) -> str:
    if len(question) <= LONGEST_QUESTION_CHARACTERS:
        return question
    half = LONGEST_QUESTION_CHARACTERS // 2
    return f"{question[:half]}\n{question[-half:]}"


class _Matcher:
    """One question, held against passages."""

    def __init__(self, index: KnowledgeIndex, sought: Sequence[Sought], total: float, units: Sequence[Unit]) -> None:
        self._index = index
        self._sought = sought
        self._total = total
        self._features = {feature for one in sought for feature, _ in one.features}
        self._wording = _worded(units)

    def match(self, number: int, covered: float) -> float:
        titles = self._index.titles[number]
        sentences = [self._index.units_of(one) for one in _SENTENCE.split(self._index.passages[number].text)]
        told = max(
            max((self._covered(title) for title in titles), default=0.0),
            max((IN_TEXT * self._covered(sentence) for sentence in sentences), default=0.0),
        )
        asked_for = max((self._share_of(title) for title in titles), default=0.0)
        alike = max((fuzz.token_set_ratio(self._wording, _worded(title)) for title in titles), default=0.0) / 100.0
        return min(1.0, _OF_ALL * covered + _OF_SENTENCE * told + _OF_TITLE * asked_for + _OF_WORDING * alike)

    def _covered(self, units: Iterable[Unit]) -> float:
        """How much of the question these words have."""
        held = {feature for unit in units for feature in (unit.stem, *unit.marks)}
        return (
            sum(
                one.weight * max((share for feature, share in one.features if feature in held), default=0.0)
                for one in self._sought
            )
            / self._total
        )

    def _share_of(self, title: Sequence[Unit]) -> float:
        """How much of a title is in the question."""
        total = sum(self._index.weight_of(unit) for unit in title)
        held = sum(
            self._index.weight_of(unit)
            for unit in title
            if unit.stem in self._features or not self._features.isdisjoint(unit.marks)
        )
        return held / total if total else 0.0


def _worded(units: Iterable[Unit]) -> str:
    return " ".join(unit.stem for unit in units if unit.stem)
