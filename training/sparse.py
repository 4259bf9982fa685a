"""Sparse matrices from named features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Vocabulary = Mapping[str, int]
Floats = NDArray[np.float64]


def vocabulary(documents: Iterable[Iterable[str]], least_documents: int) -> dict[str, int]:
    """The features that at least so many documents have, numbered."""
    counts: Counter[str] = Counter()
    for document in documents:
        counts.update(set(document))
    kept = sorted(name for name, count in counts.items() if count >= least_documents)
    return {name: number for number, name in enumerate(kept)}


def matrix(documents: Sequence[Mapping[str, float]], known: Vocabulary) -> sp.csr_matrix:
    """One row for each document; features that are not known are left out."""
    columns: list[int] = []
    values: list[float] = []
    ends = [0]
    for document in documents:
        for name, value in document.items():
            number = known.get(name)
            if number is not None:
                columns.append(number)
                values.append(value)
        ends.append(len(columns))
    return sp.csr_matrix((values, columns, ends), shape=(len(documents), len(known)), dtype=np.float64)


def whole_numbers(weights: Floats, largest: int) -> tuple[NDArray[np.int64], float]:
    """The weights as multiples of a unit, so that none needs more than the digits of `largest`; and the unit."""
    unit = float(np.abs(weights).max()) / largest or 1.0
    return np.rint(weights / unit).astype(np.int64), unit
