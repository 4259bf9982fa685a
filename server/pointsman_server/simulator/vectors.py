"""Simulated vectors: the same text always gives the same one, and texts that share words lie close to each other."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator
from functools import lru_cache

DEFAULT_DIMENSIONS = 256
MOST_DIMENSIONS = 4_096
_WORDS = re.compile(r"\w+")
_PIECE_CHARACTERS = 3
_WEIGHT_OF_PIECES = 0.3
"""A word counts for 1, and each of its pieces for this: so that `invoice` and `invoices` have much in common."""


def vector_of(text: str, dimensions: int) -> list[float]:
    """A vector of length 1."""
    vector = [0.0] * dimensions
    for feature, weight in _features(text):
        place = _hash(feature)
        vector[(place >> 1) % dimensions] += weight if place & 1 else -weight
    length = math.hypot(*vector)
    if not length:
        vector[_hash(text) % dimensions] = length = 1.0
    return [round(component / length, 8) for component in vector]


def _features(text: str) -> Iterator[tuple[str, float]]:
    for word in _WORDS.findall(text.lower()):
        yield word, 1.0
        for start in range(len(word) - _PIECE_CHARACTERS + 1):
            yield f"~{word[start : start + _PIECE_CHARACTERS]}", _WEIGHT_OF_PIECES


@lru_cache(maxsize=16_384)
def _hash(feature: str) -> int:
    return int.from_bytes(hashlib.blake2b(feature.encode("utf-8", "replace"), digest_size=8).digest(), "big")
