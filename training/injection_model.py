"""The two steps of the injection detector, trained: weights of words, and a logistic regression over their sums."""

from __future__ import annotations

import base64
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.optimize import minimize
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from training.injection_rows import Row

from pointsman_server.adapters.guards.injection import SIGNS, WINDOWS, LastStep, LearnedInjectionDetector
from pointsman_server.adapters.guards.injection_features import BUCKETS, LONGEST, buckets
from pointsman_server.adapters.guards.injection_normalise import views
from pointsman_server.adapters.guards.injection_patterns import FAMILIES, Family
from pointsman_server.domain.injection import Source

_UNTELLING = ("indirect_plain", "buried")
"""Kinds of attacks most of whose words are harmless: they teach the last step only."""

_SCALES = (8, 24, 64)
_STRIDE = 2
_MOST_WINDOWS = 10
_LARGEST = 127
_INVERSE_PENALTY = 6.0
_STEPS = (25, 12)
"""Of the solver in each round: it is stopped early, which is a penalty too."""
_BENIGN_WEIGHT = 1.5
"""All benign windows together, against all windows of attacks."""
_LAST_INVERSE_PENALTY = 0.1
_LEAST_WEIGHT = {Family.OVERRIDE_AND_ORDER: 3.0}
"""What is plain enough to count for so much (in logits), in whatever surroundings it stands."""
_HARMLESS = (Family.TALK_ABOUT, Family.EVERYDAY_OBJECT)
_UNTRUSTED_KINDS = ("indirect_injection", *_UNTELLING, "benign_document", "document")
_DOCUMENT_WEIGHT = 4

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Window:
    """A run of words: the buckets of what begins in it."""

    found: Numbers
    words: int
    attack: bool
    weight: float


def windows(row: Row) -> Iterator[Window]:
    """The whole of each reading if it is short, and pieces of a few sizes."""
    for view in views(row.text):
        if view.disguised and not row.attack:
            continue
        found = buckets(view.text[:LONGEST])
        words = found.shape[1]
        if not words:
            continue
        pieces = [(0, words)] if words <= _SCALES[-1] else []
        for size in _SCALES:
            if words > size:
                starts = range(0, words - size + 1, max(size // _STRIDE, (words - size) // _MOST_WINDOWS, 1))
                pieces += [(start, start + size) for start in starts]
        for start, end in pieces:
            yield Window(found[:, start:end].ravel(), end - start, row.attack, 1.0 / len(pieces) ** 0.6)


def _matrix(several: Sequence[Window]) -> sp.csr_matrix:
    columns = np.concatenate([one.found for one in several])
    values = np.concatenate([np.full(len(one.found), max(one.words, 3) ** -0.5) for one in several])
    ends = np.concatenate([[0], np.cumsum([len(one.found) for one in several])])
    matrix = sp.csr_matrix((values, columns, ends), shape=(len(several), BUCKETS))
    matrix.sum_duplicates()
    return matrix


def train_weights(rows: Sequence[Row]) -> tuple[NDArray[np.int8], float]:
    """Weights of buckets as multiples of a unit.

    A long attack has harmless pieces too: in the second round only its likeliest pieces count as attacks.
    """
    several = [(place, one) for place, row in enumerate(rows) for one in windows(row) if row.kind not in _UNTELLING]
    matrix = _matrix([one for _, one in several]).astype(np.float32)
    labels = np.array([one.attack for _, one in several])
    weights = np.array([one.weight for _, one in several])
    owners = np.array([place for place, _ in several])
    kept = np.ones(len(several), dtype=bool)
    model = LogisticRegression(C=_INVERSE_PENALTY, solver="lbfgs", warm_start=True)
    for steps in _STEPS:
        benign = weights[kept & labels].sum() / weights[~labels].sum() * _BENIGN_WEIGHT
        model.max_iter = steps
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(matrix[kept], labels[kept], sample_weight=(weights * np.where(labels, 1.0, benign))[kept])
        kept = _likeliest(matrix @ model.coef_[0], labels, owners)
    coefficients = model.coef_[0]
    unit = float(np.quantile(np.abs(coefficients), 0.99995)) / _LARGEST
    return np.clip(np.rint(coefficients / unit), -_LARGEST, _LARGEST).astype(np.int8), unit


def _likeliest(scores: Floats, labels: NDArray[np.bool_], owners: Numbers) -> NDArray[np.bool_]:
    kept = ~labels
    for owner in np.unique(owners[labels]):
        places = np.flatnonzero(owners == owner)
        most = max(1, int(len(places) * 0.5))
        kept[places[np.argsort(-scores[places])[:most]]] = True
    return kept


def inputs_of(detector: LearnedInjectionDetector, row: Row) -> Floats:
    """Shape (pieces, INPUTS)."""
    return np.array(list(detector.inputs(row.text)))


def without_last(weights: NDArray[np.int8], unit: float) -> LearnedInjectionDetector:
    """Good for its inputs only."""
    return LearnedInjectionDetector(weights, unit, {}, 1.0)


@dataclass(frozen=True, slots=True)
class Judged:
    """Rows, and what the first step says of their pieces when it has not seen them."""

    rows: Sequence[Row]
    inputs: Sequence[Floats]


def train_last(judged: Judged, source: Source, rounds: int = 2) -> LastStep:
    """The logistic regression, on the piece of each row that it finds likeliest."""
    known = _as_from(judged, source)
    labels = np.array([row.attack for row in known.rows])
    chosen = np.array([pieces[np.argmax(pieces[:, :4].sum(axis=1))] for pieces in known.inputs])
    step = _fitted(chosen, labels)
    for _ in range(rounds - 1):
        step = _fitted(np.array([max(pieces, key=step.logit) for pieces in known.inputs]), labels)
    return step


def _as_from(judged: Judged, source: Source) -> Judged:
    """Untrusted texts are more often documents, in which orders are to be found."""
    if source.trusted:
        return judged
    places = [
        place
        for place, row in enumerate(judged.rows)
        for _ in range(_DOCUMENT_WEIGHT if row.kind in _UNTRUSTED_KINDS else 1)
    ]
    return Judged([judged.rows[place] for place in places], [judged.inputs[place] for place in places])


def _fitted(inputs: Floats, labels: NDArray[np.bool_]) -> LastStep:
    """A logistic regression, both classes alike, in which signs of attacks cannot speak for a text."""
    weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum()) * len(labels)
    mean, scale = np.average(inputs, axis=0, weights=weights), np.maximum(inputs.std(axis=0), 0.05)
    scaled, signs, count = (inputs - mean) / scale, np.where(labels, 1.0, -1.0), inputs.shape[1]

    def loss(found: Floats) -> tuple[float, Floats]:
        margins = signs * (scaled @ found[:count] + found[count])
        slopes = -signs * weights / (1.0 + np.exp(np.clip(margins, -50.0, 50.0)))
        penalty = found[:count] @ found[:count] / (2 * _LAST_INVERSE_PENALTY)
        gradient = np.append(scaled.T @ slopes + found[:count] / _LAST_INVERSE_PENALTY, slopes.sum())
        return float(weights @ np.logaddexp(0.0, -margins) + penalty), gradient

    best = minimize(
        loss, np.zeros(count + 1), jac=True, method="L-BFGS-B", bounds=_bounds(scale), options={"maxiter": 300}
    ).x
    found = best[:count] / scale
    return LastStep(found, float(best[count] - found @ mean))


def _bounds(scale: Floats) -> list[tuple[float | None, float | None]]:
    """Windows, length and families count for an attack or not at all, harmless families against it."""
    sums = [(0.0, None)] * (len(WINDOWS) + 2)
    others = [(None, None)] * (SIGNS - len(sums))
    families = [
        (None, 0.0) if family in _HARMLESS else (_LEAST_WEIGHT.get(family, 0.0) * float(scale[SIGNS + place]), None)
        for place, family in enumerate(FAMILIES)
    ]
    return [*sums, *others, *families, (None, None)]


def best_logits(step: LastStep, inputs: Sequence[Floats]) -> Floats:
    """The likeliest piece of each row."""
    return np.array([(pieces @ step.weights).max() + step.bias for pieces in inputs])


def exported(weights: NDArray[np.int8], unit: float, last: Mapping[Source, LastStep]) -> dict[str, Any]:
    """As the data file has it."""
    return {
        "weights": base64.b64encode(zlib.compress(weights.tobytes(), 9)).decode(),
        "unit": unit,
        "last": {
            source.value: {"weights": np.round(step.weights, 5).tolist(), "bias": round(step.bias, 5)}
            for source, step in last.items()
        },
    }
