"""Trains the judge of the tier rubric from labelled requests.

Three models on top of each other: one finds the ask among the segments of a request, one judges the tier from words,
one weighs the second's views of the request together with a few counts. Each is trained on what the one before says
of requests that it has not seen, in folds over asks, passages and wrappers alike.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier
from training.compose import Composed, Labelled, Surroundings, compose
from training.sparse import Floats, Vocabulary, matrix, vocabulary, whole_numbers

from pointsman_server.decision.ask import Segment, take_apart
from pointsman_server.decision.rubric import request_counts
from pointsman_server.decision.wording import ask_features, asking_shares, looked_at, tier_features

FOLDS = 4
COPIES = 2
"""Requests composed of each ask: the first as plain as can be, the others with all that may be put around it."""

_LEAST_ASK_DOCUMENTS = 10
_LEAST_TIER_DOCUMENTS = 4
_BACKGROUND_SHARE = 0.5
_INVERSE_PENALTY = 10.0
_LARGEST_ASK, _LARGEST_TIER, _LARGEST_SQUARE = 999, 499, 999
_LEAST_WEIGHT = 17
"""Features that weigh less, in the units of the data file, are left out of it: the figures stay the same."""

_HIDDEN_UNITS = 12

Segments = Sequence[Segment]


@dataclass(frozen=True, slots=True)
class AskModel:
    """Finds the segments that ask."""

    known: Vocabulary
    weights: Floats
    bias: float

    def probabilities(self, segments: Segments) -> Floats:
        """For each segment, how probable it is that it asks."""
        totals = matrix([_ask_document(segment) for segment in segments], self.known) @ self.weights + self.bias
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(totals, -30, 30))))


@dataclass(frozen=True, slots=True)
class TierModel:
    """Judges the tier from words."""

    known: Vocabulary
    idf: Floats
    model: LogisticRegression

    def logits(self, views: Sequence[dict[str, float]], squares: Floats) -> Floats:
        """Evidence for the three tiers in each view."""
        return np.asarray(self.model.decision_function(self.rows(views, squares)))

    def rows(self, views: Sequence[dict[str, float]], squares: Floats) -> Any:
        """The views as rows of inverse document frequencies, over the lengths that `squares` are of."""
        scaled = matrix(views, self.known).multiply(self.idf)
        return scaled.multiply(1.0 / np.sqrt(np.maximum(squares, 1e-9))[:, None]).tocsr()


@dataclass(frozen=True, slots=True)
class Views:
    """The three views of many requests, and what else the last model sees of them."""

    asking: list[dict[str, float]]
    likeliest: list[dict[str, float]]
    everything: list[dict[str, float]]
    shares: list[tuple[Segments, Floats]]
    counts: Floats

    @classmethod
    def of(cls, requests: Sequence[Segments], model: AskModel) -> Views:
        """What the model of asks makes of these requests."""
        shares = [(segments, model.probabilities(segments)) for segments in requests]
        kept = [(segments, np.array(asking_shares(found.tolist()))) for segments, found in shares]
        return cls(
            asking=[_view(segments, weights) for segments, weights in kept],
            likeliest=[_view(segments, (found >= found.max()).astype(float)) for segments, found in shares],
            everything=[_view(segments, _read(weights)) for segments, weights in kept],
            shares=shares,
            counts=np.array([_counts(segments, found) for segments, found in shares]),
        )

    def squares(self, tiers: TierModel) -> tuple[Floats, Floats, Floats]:
        """The squared lengths of the three views."""
        each = [np.array([_square(segment, tiers) for segment in segments]) for segments, _ in self.shares]
        weights = [np.array(asking_shares(found.tolist())) for _, found in self.shares]
        return (
            np.array([float((kept**2 * squares).sum()) for kept, squares in zip(weights, each, strict=True)]),
            np.array([squares[int(np.argmax(found))] for (_, found), squares in zip(self.shares, each, strict=True)]),
            np.array([float((_read(kept) * squares).sum()) for kept, squares in zip(weights, each, strict=True)]),
        )

    def inputs(self, tiers: TierModel) -> Floats:
        """What the last model sees: the evidence of the three views, and the counts."""
        asking, likeliest, everything = self.squares(tiers)
        return np.hstack(
            [
                tiers.logits(self.asking, asking),
                tiers.logits(self.likeliest, likeliest),
                tiers.logits(self.everything, everything),
                self.counts,
            ]
        )


def requests_of(
    labelled: Sequence[Labelled], around: Surroundings, seed: int, copies: int = COPIES
) -> list[tuple[Composed, Segments]]:
    """Composed requests with their segments, `copies` of each ask."""
    rng = random.Random(seed)  # noqa: S311 - no secret is made
    composed = [compose(one, around, rng, plain=copy == 0) for one in labelled for copy in range(copies)]
    taken = [(request, take_apart(request.text)) for request in composed]
    return [(request, segments) for request, segments in taken if segments]


def train_ask_model(labelled: Sequence[Labelled], around: Surroundings, seed: int) -> AskModel:
    """In two rounds: asks of several segments teach only in the second, when the first can tell their background."""
    first = _fit_ask_model(requests_of(labelled, around, seed, copies=2)[1::2], None)
    return _fit_ask_model(requests_of(labelled, around, seed + 1, copies=3), first)


def train_tier_model(views: Views, tiers: Floats) -> TierModel:
    """One set of weights for all three views, each with its share of the examples."""
    known = vocabulary(views.asking, _LEAST_TIER_DOCUMENTS)
    rows = matrix(views.asking, known)
    documents = np.asarray((rows > 0).sum(axis=0)).ravel()
    idf = np.log((1.0 + rows.shape[0]) / (1.0 + documents)) + 1.0
    unfitted = TierModel(known, idf, LogisticRegression(C=_INVERSE_PENALTY, max_iter=200, tol=1e-5))
    asking, likeliest, everything = views.squares(unfitted)
    even, odd = np.arange(0, len(tiers), 2), np.arange(1, len(tiers), 2)
    pieces = [
        *views.asking,
        *[views.everything[place] for place in even],
        *[views.likeliest[place] for place in odd],
    ]
    squares = np.concatenate([asking, everything[even], likeliest[odd]])
    unfitted.model.fit(unfitted.rows(pieces, squares), np.concatenate([tiers, tiers[even], tiers[odd]]))
    return unfitted


def train_last_model(inputs: Floats, tiers: Floats, seed: int) -> MLPClassifier:
    """A small network over standardised inputs; `inputs` must come from models that had not seen the requests."""
    return MLPClassifier((_HIDDEN_UNITS,), alpha=0.01, max_iter=80, random_state=seed, early_stopping=True).fit(
        inputs, tiers
    )


def exported(ask: AskModel, tier: TierModel) -> dict[str, Any]:
    """The two models of words as the data file has them."""
    weights, ask_unit = whole_numbers(ask.weights, _LARGEST_ASK)
    by_name = {
        name: int(weights[number]) for name, number in ask.known.items() if abs(weights[number]) >= _LEAST_WEIGHT
    }
    marks = {name.removeprefix(_MARK): weight for name, weight in by_name.items() if name.startswith(_MARK)}
    words = {name: weight for name, weight in by_name.items() if not name.startswith(_MARK)}
    scaled = tier.model.coef_.T * tier.idf[:, None]
    tier_weights, unit = whole_numbers(scaled - scaled.mean(axis=1, keepdims=True), _LARGEST_TIER)
    squares, square_unit = whole_numbers(tier.idf**2, _LARGEST_SQUARE)
    kept = [name for name, number in tier.known.items() if np.abs(tier_weights[number]).max() >= _LEAST_WEIGHT]
    numbers = [tier.known[name] for name in kept]
    return {
        "ask": {"bias": round(ask.bias, 4), "unit": ask_unit, "marks": marks, "words": words},
        "tier": {
            "bias": [round(float(bias), 4) for bias in tier.model.intercept_],
            "unit": unit,
            "square_unit": square_unit,
            "features": "\n".join(kept),
            # In threes: two weights, whose third is what makes the sum zero, and the square.
            "numbers": [int(one) for number in numbers for one in (*tier_weights[number][:2], squares[number])],
        },
    }


_MARK = "mark:"


def _ask_document(segment: Segment) -> dict[str, float]:
    marks = {f"{_MARK}{mark}": 1.0 for mark in segment.marks}
    return marks | dict.fromkeys(ask_features(segment.words), 1.0)


def _fit_ask_model(requests: Sequence[tuple[Composed, Segments]], earlier: AskModel | None) -> AskModel:
    documents: list[dict[str, float]] = []
    labels: list[int] = []
    weights: list[float] = []
    for request, segments in requests:
        for segment, (label, weight) in zip(segments, _ask_labels(request, segments, earlier), strict=True):
            if weight:
                documents.append(_ask_document(segment))
                labels.append(label)
                weights.append(weight)
    known = vocabulary(documents, _LEAST_ASK_DOCUMENTS)
    model = SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=8, tol=None, random_state=0)
    model.fit(matrix(documents, known), labels, sample_weight=weights)
    return AskModel(known, model.coef_[0], float(model.intercept_[0]))


def _ask_labels(request: Composed, segments: Segments, earlier: AskModel | None) -> list[tuple[int, float]]:
    """For each segment whether it asks, and what it weighs in training; 0 for those of which that is not known."""
    inside = _inside_ask(request, segments)
    labelled = request.labelled
    if sum(inside) <= 1 or labelled.before or labelled.after:
        return [(1, 2.0) if asks else (0, 1.0) for asks in inside]
    if earlier is None:
        return [(1, 0.0) if asks else (0, 1.0) for asks in inside]
    found = earlier.probabilities(segments)
    most = max(probability for probability, asks in zip(found, inside, strict=True) if asks)
    told = [(1, 2.0) if probability >= _BACKGROUND_SHARE * most else (0, 0.3) for probability in found]
    return [told[place] if asks else (0, 1.0) for place, asks in enumerate(inside)]


def _inside_ask(request: Composed, segments: Segments) -> list[bool]:
    asks = [segment.words for segment in take_apart(request.text[request.start : request.end])]
    return [any(_same(segment.words, ask) for ask in asks) for segment in segments]


def _same(words: tuple[str, ...], ask: tuple[str, ...]) -> bool:
    """Whether two segments are the same but for what a frame put around one of them."""
    if words == ask:
        return True
    short, long = sorted((words, ask), key=len)
    if len(short) < 3 and long != short:
        return False
    return any(long[place : place + len(short)] == short for place in range(len(long) - len(short) + 1))


def _read(shares: Floats) -> Floats:
    read = np.zeros(len(shares))
    read[looked_at(shares.tolist())] = 1.0
    return read


def _view(segments: Segments, weights: Floats) -> dict[str, float]:
    view: dict[str, float] = {}
    for segment, weight in zip(segments, weights, strict=True):
        if weight:
            for feature in tier_features(segment.words):
                view[feature] = view.get(feature, 0.0) + float(weight)
    return view


def _square(segment: Segment, tiers: TierModel) -> float:
    numbers = [tiers.known.get(feature) for feature in tier_features(segment.words)]
    return float(sum(tiers.idf[number] ** 2 for number in numbers if number is not None))


def _counts(segments: Segments, found: Floats) -> tuple[float, ...]:
    kept = tuple(place for place, share in enumerate(asking_shares(found.tolist())) if share)
    return request_counts(segments, kept, int(np.argmax(found)), float(found.max()))
