"""Reads how a request is worded: which of its segments ask, and of which tier what they ask is.

Two linear models over words, learned from labelled requests. The first finds the ask: it weighs words and marks of
shape and place. The second judges the tier: it weighs words, their beginnings and endings, and pairs, each by its
inverse document frequency (K. Spärck Jones, 1972), in three views of the text: the segments that probably ask, the
one that most probably does, and these together with the first and last ones.

`ask_features`, `tier_features` and the marks of a `Segment` name what is weighed, and are what training learns from.
Here the same is added up without any names; a test holds the two against each other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

from pointsman_server.decision.ask import MOST_WORDS
from pointsman_server.decision.layout import lay_out
from pointsman_server.decision.marks import Marks, place_marks, shape_marks
from pointsman_server.decision.remembered import Remembered
from pointsman_server.decision.vocabulary import (
    BEGINNING_CHARS,
    ENDING_CHARS,
    FEATURE_SHIFT,
    STEM_CHARS,
    TierWeights,
    Vocabulary,
    Words,
)

LEAST_SHARE = 0.35
"""A segment counts as asking if its probability has at least this share of the most probable one's."""

MOST_ASKING, MOST_EDGES = 6, 4
"""Segments that count as asking, and segments at the beginning and end that are read besides: time is bounded."""

FIRST_WORDS, LAST_WORDS = 10, 4

MOST_REMEMBERED, MOST_REMEMBERED_CHARS = 2_000, 300
"""Segments that are remembered, and how long those may be: some 4 MB at most."""

_MOST_LOGIT = 30.0

Logits = tuple[float, float, float]
"""Evidence for simple, medium and complex; only differences mean something."""

_Row = tuple[int, int, int]
"""What a segment adds to the first two logits and to the squared length of the text. The logits sum to nothing."""


class Sentence:
    """A segment that was read. What its words say of the tier is worked out when it is first looked at closer."""

    __slots__ = ("asks", "chars", "row", "stems", "tallies", "tier_weights", "words")

    def __init__(self, chars: int, words: Words, start: int, end: int) -> None:
        self.chars = chars
        self.tallies = words.tallies[start:end]
        self.tier_weights = words.tier_weights[start:end]
        self.words = words.words[start:end]
        self.stems = words.stems[start:end]
        self.asks = 0
        self.row: _Row | None = None


class Heard(NamedTuple):
    """The segments of a text in their order, and of each the log-odds that it asks for something."""

    sentences: Sequence[Sentence]
    logits: Sequence[float]

    @property
    def asks_clearly(self) -> bool:
        """Whether some segment is more likely than not to ask for something."""
        return max(self.logits, default=0.0) > 0.0


class Reading(NamedTuple):
    """What the wording says. `kept` are the places of the segments that probably ask, `top` that of the likeliest."""

    asking: Logits
    likeliest: Logits
    everything: Logits
    kept: tuple[int, ...]
    top: int
    certainty: float
    """Probability that the likeliest segment asks."""


class Wording:
    """The learned weights, from the parsed data file: features with whole numbers, and the units of those.

    The features of the tier are lines of one text, their numbers come in threes: of the three weights two are there,
    because all sum to nothing, and the square.
    """

    def __init__(self, data: Mapping[str, Any]) -> None:
        ask, tier = data["ask"], data["tier"]
        self._ask_bias, self._ask_unit = ask["bias"], ask["unit"]
        self._marks = _weights_of_marks(ask["marks"])
        self._tier_bias: Logits = tuple(tier["bias"])
        self._unit, self._square_unit = tier["unit"], tier["square_unit"]
        self._tier = TierWeights(tier)
        self._vocabulary = Vocabulary(ask["words"], self._tier)
        self._remembered: Remembered[str, Sentence] = Remembered(MOST_REMEMBERED)

    def forget(self) -> None:
        """Forgets the segments that are remembered, as for a text of which none was seen before."""
        self._remembered.forget()

    def hear(self, text: str) -> Heard:
        """Takes a text apart and tells which of its segments ask. Time is bounded whatever the length."""
        layout = lay_out(text)
        sentences = self._sentences(layout.segments)
        places = place_marks(self._marks, layout)
        bias, unit = self._ask_bias, self._ask_unit
        return Heard(sentences, [bias + unit * (one.asks + place) for one, place in zip(sentences, places)])  # noqa: B905

    def _sentences(self, segments: Sequence[str]) -> Sequence[Sentence]:
        found = list(map(self._remembered.get, segments))
        if None not in found:
            return cast(list[Sentence], found)
        new = self._read_new([text for text, known in zip(segments, found, strict=True) if known is None])
        return [known or new[text] for text, known in zip(segments, found, strict=True)]

    def _read_new(self, segments: Iterable[str]) -> Mapping[str, Sentence]:
        new = dict.fromkeys(segments)
        texts = list(new)
        words, bounds = self._vocabulary.read(texts)
        read = {}
        for text, (start, end) in zip(texts, bounds, strict=True):
            if end - start > MOST_WORDS and not text.isascii():
                own = self._vocabulary.of_segment(text)
                sentence = self._sentence(text, own, 0, len(own.words))
            else:
                sentence = self._sentence(text, words, start, min(end, start + MOST_WORDS))
            read[text] = sentence
            if len(text) <= MOST_REMEMBERED_CHARS:
                self._remembered.keep(text, sentence)
        return read

    def _sentence(self, text: str, words: Words, start: int, end: int) -> Sentence:
        sentence = Sentence(len(text), words, start, end)
        asks, beginnings = words[:2]
        if end - start <= FIRST_WORDS + LAST_WORDS:
            features = {*asks[start:end], *beginnings[start:end]}
        else:
            first, last = start + FIRST_WORDS, end - LAST_WORDS
            features = {*asks[start:first], *asks[last:end], *beginnings[start:first], *beginnings[last:end]}
        shape = shape_marks(self._marks, text, sentence.words, sum(sentence.tallies))
        sentence.asks = (sum(features) >> FEATURE_SHIFT) + shape
        return sentence

    def read(self, heard: Heard) -> Reading:
        """Judges the segments of one request; there must be at least one."""
        sentences = heard.sentences
        found = _probabilities(heard.logits)
        shares = asking_shares(found)
        top = found.index(max(found))
        rows = {place: self._row(sentences[place]) for place in looked_at(shares)}
        kept = tuple([place for place, share in enumerate(shares) if share])
        likeliest = self._view([(rows[top], 1.0)])
        return Reading(
            asking=self._view([(rows[place], shares[place]) for place in kept]) if len(kept) > 1 else likeliest,
            likeliest=likeliest,
            everything=self._view([(row, 1.0) for row in rows.values()]),
            kept=kept,
            top=top,
            certainty=found[top],
        )

    def _row(self, sentence: Sentence) -> _Row:
        if sentence.row is None:
            sentence.row = self._tier.of_segment(sentence.words, sentence.tier_weights, sentence.stems)
        return sentence.row

    def _view(self, rows: Sequence[tuple[_Row, float]]) -> Logits:
        simple = medium = square = 0.0
        for row, share in rows:
            simple += share * row[0]
            medium += share * row[1]
            square += share * share * row[2]
        scale = self._unit / (math.sqrt(square * self._square_unit) or 1.0)
        bias = self._tier_bias
        return bias[0] + simple * scale, bias[1] + medium * scale, bias[2] - (simple + medium) * scale


def _weights_of_marks(weights: Mapping[str, int]) -> Marks[int]:
    def after(beginning: str) -> dict[str, int]:
        return {name.removeprefix(beginning): one for name, one in weights.items() if name.startswith(beginning)}

    return Marks(lambda name: weights.get(name, 0), after, 0)


def _probabilities(logits: Sequence[float]) -> list[float]:
    if min(logits) < -_MOST_LOGIT or max(logits) > _MOST_LOGIT:
        logits = [max(-_MOST_LOGIT, min(_MOST_LOGIT, logit)) for logit in logits]
    return [1.0 / (1.0 + math.exp(-logit)) for logit in logits]


def asking_shares(found: Sequence[float]) -> list[float]:
    """For each segment its probability of asking as a share of the highest; 0 for those that do not count as asking."""
    most = max(found)
    shares = [share if (share := probability / most) >= LEAST_SHARE else 0.0 for probability in found]
    if sum(map(bool, shares)) > MOST_ASKING:
        least = sorted(shares)[-MOST_ASKING]
        shares = [share if share >= least else 0.0 for share in shares]
    return shares


def looked_at(shares: Sequence[float]) -> list[int]:
    """The places of the segments whose words are read: those that ask, and the first and last ones around them."""
    edge, count = MOST_EDGES // 2, len(shares)
    return [place for place, share in enumerate(shares) if share or place < edge or place >= count - edge]


def ask_features(words: Sequence[str]) -> set[str]:
    """The first and last words of a segment and their beginnings, by which an ask is found."""
    ends = words if len(words) <= FIRST_WORDS + LAST_WORDS else (*words[:FIRST_WORDS], *words[-LAST_WORDS:])
    features = set(ends)
    features.update([f"{word[:BEGINNING_CHARS]}…" for word in ends if len(word) > BEGINNING_CHARS])
    return features


def tier_features(words: Sequence[str]) -> list[str]:
    """What the tier is judged by: words, beginnings, endings, pairs, and how the segment begins."""
    distinct = set(words)
    stems = [word[:STEM_CHARS] for word in words]
    return [
        *distinct,
        *[f"…{word[-ENDING_CHARS:]}" for word in distinct if len(word) > ENDING_CHARS + 1],
        *[f"{word[:BEGINNING_CHARS]}…" for word in distinct if len(word) > BEGINNING_CHARS],
        *{f"{first} {second}" for first, second in pairwise(stems)},
        *[f"^{stem}" for stem in stems[:3]],
    ]
