"""The real clock and real randomness; tests put their own in their place."""

from __future__ import annotations

import random
import time


class SystemClock:
    """The system's clocks."""

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return time.monotonic()

    def now(self) -> float:
        """See `Clock.now`."""
        return time.time()


class RandomIds:
    """Ids of 96 random bits: unique, but no secrets. The generator is seeded by the system."""

    def __init__(self) -> None:
        self._random = random.Random()  # noqa: S311 - ids are names, not secrets

    def new(self, prefix: str) -> str:
        """See `Ids.new`."""
        return f"{prefix}_{self._random.getrandbits(96):024x}"
