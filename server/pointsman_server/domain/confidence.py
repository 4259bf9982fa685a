"""How far an answer can be trusted, and what speaks for and against it."""

from __future__ import annotations

from dataclasses import dataclass

from pointsman_server.domain.plan import Factor


@dataclass(frozen=True, slots=True)
class Confidence:
    """`score` 0..1 is the chance that the answer is good. The factors are log-odds and add up to those of the score."""

    score: float
    factors: tuple[Factor, ...]
