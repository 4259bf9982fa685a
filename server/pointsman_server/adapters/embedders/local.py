"""Vectors of short questions, made in this process out of their plain words: no model, no download, no waiting.

A vector counts the words that carry the question, and each word with its neighbours, the last word's neighbour being
the first: so halves may change places and other orders make a difference. What one text has and the other has not
weighs the less the longer they are, so longer texts have no vector: at the most words allowed a single other word
keeps two texts below 0.95.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import numpy as np

from pointsman_server.decision.plain_words import content_words
from pointsman_server.domain.embedder import Vector

DIMENSIONS = 1024
MOST_WORDS = 20
LONGEST_NEIGHBOURHOOD = 3

_SIGN = 1 << 63


class LocalEmbedder:
    """See `Embedder`. The same text has the same vector in every process."""

    name = "local-1"

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        """See `Embedder.embed`."""
        return [vector_of(text) for text in texts]


def vector_of(text: str) -> Vector:
    """The vector of a text; none for one without plain words, or with too many."""
    words = content_words(text)
    if not words or len(words) > MOST_WORDS:
        return b""
    counts = np.zeros(DIMENSIONS, dtype=np.float64)
    for feature in _features(words):
        number = int.from_bytes(blake2b(feature.encode(), digest_size=8, person=b"words").digest(), "big")
        counts[number % DIMENSIONS] += 1.0 if number & _SIGN else -1.0
    length = float(np.linalg.norm(counts))
    if not length:
        return b""
    return (counts / length).astype("<f4").tobytes()


def _features(words: Sequence[str]) -> Iterator[str]:
    """The words, and runs of them around the circle that they form."""
    for size in range(1, min(LONGEST_NEIGHBOURHOOD, len(words)) + 1):
        for begin in range(len(words)):
            yield " ".join(words[(begin + step) % len(words)] for step in range(size))
