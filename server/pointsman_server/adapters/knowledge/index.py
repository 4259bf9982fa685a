"""An inverted index of passages: which of them hold a word, or a synonym of it."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from rapidfuzz import fuzz, process

from pointsman_server.adapters.knowledge.synonyms import USUAL, Thesaurus
from pointsman_server.adapters.knowledge.words import COMMON, FILLERS, stem, words_of
from pointsman_server.domain.knowledge import Passage

IN_TEXT = 0.85
"""What a word counts that stands in a passage's text, where one of its title counts 1."""
BY_SYNONYM = 0.7
BY_SYNONYM_ALONE = 0.9
"""The same for a word that itself is nowhere."""
OF_COMMON = 0.6
"""What a word weighs that is usual everywhere, as a share of what it would weigh for how rare it is here."""
OF_UNKNOWN = 0.7
"""What a word that is nowhere weighs, as a share of the rarest that is: paraphrases have some of these as well."""
MOST_UNITS = 60
"""Words of a question that are looked for; of a longer one, the rarest."""

_LEAST_ALIKE = 82.0
_LEAST_TYPO_LETTERS = 4
_COMPOUND = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)+")
_SAME_BEGINNING = 5
_MOST_UNKNOWN = 12


class Unit(NamedTuple):
    """A word that says something of what is asked: its stem, "" for a phrase of fillers, and its synonyms' marks."""

    stem: str
    marks: frozenset[str]


class Sought(NamedTuple):
    """A unit of a question as the index knows it: which features it has with what share, and what it weighs."""

    features: tuple[tuple[str, float], ...]
    weight: float


class KnowledgeIndex:
    """Passages by their words. Immutable once made; making takes about a second for 10,000 passages."""

    def __init__(self, passages: Iterable[Passage], synonyms: Iterable[Sequence[str]] = ()) -> None:
        self.passages = tuple(passages)
        self._thesaurus = Thesaurus((*USUAL, *synonyms))
        self.titles: list[tuple[tuple[Unit, ...], ...]] = []
        self._postings: dict[str, dict[int, float]] = defaultdict(dict)
        for number, passage in enumerate(self.passages):
            titles = tuple(tuple(self.units_of(one)) for one in (passage.title, *passage.also) if one)
            self.titles.append(titles)
            self._post(number, (unit for title in titles for unit in title), 1.0)
            self._post(number, self.units_of(passage.text), IN_TEXT)
        self._vocabulary = [one for one in self._postings if not one.startswith("§")]
        self._beginnings: dict[str, list[str]] = defaultdict(list)
        for word in self._vocabulary:
            self._beginnings[word[:_SAME_BEGINNING]].append(word)

    def units_of(self, text: str) -> list[Unit]:
        """What of a text says something, each unit once."""
        words = words_of(text)
        stems = [stem(word) for word in words]
        marks = self._thesaurus.marks_of(stems)
        units: dict[Unit, None] = {}
        for place, word in enumerate(words):
            is_filler = word.partition("'")[0] in FILLERS
            if not is_filler:
                units[Unit(stems[place], frozenset(marks.get(place, ())))] = None
            elif place in marks:
                units[Unit("", frozenset(marks[place]))] = None
        units.update(dict.fromkeys(_compounds(text)))
        return list(units)

    def sought(self, question: str) -> list[Sought]:
        """The question's units with what the index has for them; units that occur nowhere have no features."""
        compounds = [unit for unit in _compounds(question) if unit.stem in self._postings]
        units = dict.fromkeys((*self.units_of(self._rejoined(question)), *compounds))
        found = [self._sought(unit) for unit in units]
        known = [one for one in found if one is not None]
        unknown = sum(not one.features for one in known)
        if unknown > _MOST_UNKNOWN or len(known) > MOST_UNITS:
            known.sort(key=lambda one: (not one.features, -one.weight))
        return known[:MOST_UNITS]

    def weigh(self, sought: Sequence[Sought]) -> Mapping[int, float]:
        """For every passage that has anything of it, the weight of the question's units that it has."""
        weights: dict[int, float] = defaultdict(float)
        for unit in sought:
            best: dict[int, float] = {}
            for feature, share in unit.features:
                for number, place in self._postings.get(feature, {}).items():
                    best[number] = max(best.get(number, 0.0), share * place)
            for number, value in best.items():
                weights[number] += value * unit.weight
        return weights

    def weight_of(self, unit: Unit) -> float:
        """How rare a unit is: the more, the more it tells."""
        names = [unit.stem] if unit.stem else list(unit.marks)
        holders = min((len(self._postings[name]) for name in names if name in self._postings), default=0)
        return self._rarity(holders) * (OF_COMMON if unit.stem in COMMON else 1.0)

    def _rejoined(self, question: str) -> str:
        """The question with "audio books" as "audiobooks", where only that is in the passages."""
        words = words_of(question)
        joined: list[str] = []
        for word in words:
            both = f"{joined[-1]}{word}" if joined else ""
            if stem(both) in self._postings and stem(word) not in self._postings:
                joined[-1] = both
            else:
                joined.append(word)
        return " ".join(joined)

    def _post(self, number: int, units: Iterable[Unit], share: float) -> None:
        for unit in units:
            for feature in (unit.stem, *unit.marks) if unit.stem else unit.marks:
                self._postings[feature].setdefault(number, share)

    def _sought(self, unit: Unit) -> Sought | None:
        marks = tuple((mark, BY_SYNONYM) for mark in unit.marks if mark in self._postings)
        if not unit.stem:
            return Sought(marks, self.weight_of(unit) / 2) if marks else None
        if unit.stem in self._postings:
            return Sought(((unit.stem, 1.0), *marks), self.weight_of(unit))
        if marks:
            marks = tuple((mark, BY_SYNONYM_ALONE) for mark, _ in marks)
            weight = max(self._rarity(len(self._postings[mark])) for mark, _ in marks)
            return Sought(marks, weight * (OF_COMMON if unit.stem in COMMON else 1.0))
        if unit.stem in COMMON:
            return Sought((), OF_UNKNOWN * self.weight_of(unit))
        return self._misspelt(unit.stem)

    def _misspelt(self, word: str) -> Sought:
        """A word that is nowhere: one that is spelt or begins alike, else nothing, which speaks against an answer."""
        alike = [one for one in self._beginnings.get(word[:_SAME_BEGINNING], ()) if len(word) >= _SAME_BEGINNING]
        best = process.extractOne(word, alike, scorer=fuzz.ratio, score_cutoff=60.0)
        if best is None and len(word) >= _LEAST_TYPO_LETTERS and not word.isdigit():
            best = process.extractOne(word, self._vocabulary, scorer=fuzz.ratio, score_cutoff=_LEAST_ALIKE)
        if best is None:
            return Sought((), OF_UNKNOWN * self._rarity(0))
        return Sought(((best[0], 0.85),), self._rarity(len(self._postings[best[0]])))

    def _rarity(self, holders: int) -> float:
        return math.log(1.0 + (len(self.passages) - holders + 0.5) / (holders + 0.5)) + 0.25


def _compounds(text: str) -> Iterator[Unit]:
    """What is written with a hyphen, without it: "pre-order" is found as "preorder" too."""
    for compound in _COMPOUND.findall(text.casefold()):
        yield Unit(stem(compound.replace("-", "")), frozenset())
