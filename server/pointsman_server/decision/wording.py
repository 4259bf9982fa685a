"""Reads how a request is worded: which of its segments ask, and of which tier what they ask is.

Two linear models over words, learned from labelled requests. The first finds the ask: it weighs words and marks of
shape and place. The second judges the tier: it weighs words, their beginnings and endings, and pairs, each by its
inverse document frequency (K. Spärck Jones, 1972), in three views of the text: the segments that probably ask, the
one that most probably does, and these together with the first and last ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pointsman_server.decision.ask import Segment

LEAST_SHARE = 0.35
"""A segment counts as asking if its probability has at least this share of the most probable one's."""

MOST_ASKING, MOST_EDGES = 6, 4
"""Segments that count as asking, and segments at the beginning and end that are read besides: time is bounded."""

FIRST_WORDS, LAST_WORDS = 10, 4

STEM_CHARS, BEGINNING_CHARS, ENDING_CHARS = 6, 5, 3

Logits = tuple[float, float, float]
"""Evidence for simple, medium and complex; only differences mean something."""

_Row = tuple[float, float, float, float]
"""What one feature adds to the logits, and its squared weight, which the length of the text is measured by."""

_NOTHING: _Row = (0.0, 0.0, 0.0, 0.0)


class Reading(NamedTuple):
    """What the wording says. `kept` are the places of the segments that probably ask, `top` that of the likeliest."""

    asking: Logits
    likeliest: Logits
    everything: Logits
    kept: tuple[int, ...]
    top: int
    certainty: float
    """Probability that the likeliest segment asks."""


@dataclass(frozen=True, slots=True)
class Wording:
    """The learned weights; see `load`."""

    ask_bias: float
    ask_marks: Mapping[str, float]
    ask_words: Mapping[str, float]
    tier_bias: Logits
    tier_rows: Mapping[str, _Row]

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> Wording:
        """From the parsed data file: features with whole numbers, and the units of those.

        The features of the tier are lines of one text, their numbers come in threes: of the three weights two are
        there, because all sum to nothing, and the square.
        """
        ask, tier = data["ask"], data["tier"]
        rows: dict[str, _Row] = {}
        unit, square_unit = tier["unit"], tier["square_unit"]
        numbers = iter(tier["numbers"])
        for name, simple, medium, square in zip(tier["features"].split("\n"), numbers, numbers, numbers, strict=True):
            rows[name] = (simple * unit, medium * unit, -(simple + medium) * unit, square * square_unit)
        return cls(
            ask_bias=ask["bias"],
            ask_marks=_scaled(ask["marks"], ask["unit"]),
            ask_words=_scaled(ask["words"], ask["unit"]),
            tier_bias=tuple(tier["bias"]),
            tier_rows=rows,
        )

    def read(self, segments: Sequence[Segment]) -> Reading:
        """Judges the segments of one request; there must be at least one."""
        found = [self.asks(segment) for segment in segments]
        shares = asking_shares(found)
        top = found.index(max(found))
        rows = {place: self._row(segments[place].words) for place in looked_at(shares)}
        return Reading(
            asking=self._view([(row, shares[place]) for place, row in rows.items()]),
            likeliest=self._view([(rows[top], 1.0)]),
            everything=self._view([(row, 1.0) for row in rows.values()]),
            kept=tuple(place for place, share in enumerate(shares) if share),
            top=top,
            certainty=found[top],
        )

    def asks(self, segment: Segment) -> float:
        """How probable it is that this segment asks for something."""
        mark, word = self.ask_marks.get, self.ask_words.get
        total = self.ask_bias + sum([mark(name, 0.0) for name in segment.marks])
        total += sum([word(name, 0.0) for name in ask_features(segment.words)])
        return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, total))))

    def _row(self, words: Sequence[str]) -> _Row:
        known = self.tier_rows.get
        rows = [row for name in tier_features(words) if (row := known(name))]
        if not rows:
            return _NOTHING
        simple, medium, complex_, square = map(sum, zip(*rows, strict=True))
        return simple, medium, complex_, square

    def _view(self, rows: Sequence[tuple[_Row, float]]) -> Logits:
        simple = medium = complex_ = square = 0.0
        for row, share in rows:
            if share:
                simple += share * row[0]
                medium += share * row[1]
                complex_ += share * row[2]
                square += share * share * row[3]
        length = math.sqrt(square) or 1.0
        bias = self.tier_bias
        return bias[0] + simple / length, bias[1] + medium / length, bias[2] + complex_ / length


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
        *{f"{first} {second}" for first, second in zip(stems, stems[1:])},  # noqa: B905, RUF007 - the hot path
        *[f"^{stem}" for stem in stems[:3]],
    ]


def _scaled(weights: Mapping[str, int], unit: float) -> Mapping[str, float]:
    return {name: weight * unit for name, weight in weights.items()}
