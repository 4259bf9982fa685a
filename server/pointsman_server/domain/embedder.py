"""From texts to vectors that are alike where the texts ask the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeAlias

Vector: TypeAlias = bytes
"""Numbers of 32 bits, little-endian, of length 1 in all; empty where a text has no vector."""


class Embedder(Protocol):
    """Turns texts into vectors. Vectors of two embedders cannot be compared, nor can those of two `name`s."""

    @property
    def name(self) -> str:
        """What made the vectors: another model, or another version of it, has another name."""
        ...

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        """A vector for each text, in order. May raise anything; nobody who calls it may fail for that."""
        ...
