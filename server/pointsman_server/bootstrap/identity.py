"""The real clock and real randomness; tests put their own in their place."""

from __future__ import annotations

import os
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
    """Ids of 96 random bits."""

    def new(self, prefix: str) -> str:
        """See `Ids.new`."""
        return f"{prefix}_{os.urandom(12).hex()}"

    def new_hex(self, size_bytes: int) -> str:
        """See `Ids.new_hex`."""
        return os.urandom(size_bytes).hex()
