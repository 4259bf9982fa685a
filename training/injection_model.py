"""The two steps of the injection detector, trained: weights of words, and a logistic regression over their sums."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from training.injection_rows import Row

from pointsman_server.adapters.guards.injection import LastStep, LearnedInjectionDetector
from pointsman_server.adapters.guards.injection_features import BUCKETS, LONGEST, buckets
from pointsman_server.adapters.guards.injection_normalise import views
from pointsman_server.domain.injection import Source

UNKNOWABLE = "indirect_plain"

_SCALES = (8, 24, 64)
_STRIDE = 2
_MOST_WINDOWS = 24
_LARGEST = 127
_INVERSE_PENALTY = 6.0
_UNTRUSTED_KINDS = ("indirect_injection", UNKNOWABLE, "benign_document", "document")
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


def train_weights(rows: Sequence[Row], rounds: int = 2) -> tuple[NDArray[np.int8], float]:
    """Weights of buckets as multiples of a unit.

    A long attack has harmless pieces too: from the second round on only its likeliest pieces count as attacks.
    """
    several = [(place, one) for place, row in enumerate(rows) for one in windows(row) if row.kind != UNKNOWABLE]
    matrix = _matrix([one for _, one in several])
    labels = np.array([one.attack for _, one in several])
    weights = np.array([one.weight for _, one in several])
    owners = np.array([place for place, _ in several])
    kept = np.ones(len(several), dtype=bool)
    coefficients = np.zeros(BUCKETS)
    for _ in range(rounds):
        model = LogisticRegression(C=_INVERSE_PENALTY, solver="liblinear", max_iter=200, tol=1e-3)
        balance = np.where(labels, 1.0, labels[kept].sum() / max((~labels[kept]).sum(), 1) * 1.5 + 0.5)
        model.fit(matrix[kept], labels[kept], sample_weight=(weights * balance)[kept])
        coefficients = model.coef_[0]
        kept = _likeliest(matrix @ coefficients, labels, owners)
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
    mean, scale = inputs.mean(axis=0), np.maximum(inputs.std(axis=0), 0.05)
    model = LogisticRegression(C=0.1, max_iter=500).fit((inputs - mean) / scale, labels)
    found = model.coef_[0] / scale
    return LastStep(found, float(model.intercept_[0] - found @ mean))


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
