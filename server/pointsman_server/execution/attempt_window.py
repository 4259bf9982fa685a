"""How many attempts of the last seconds failed, in a fixed number of cells."""

from __future__ import annotations

CELLS = 30
"""An attempt is forgotten when its cell is, so at an age between 29 and 30 thirtieths of the window."""


class AttemptWindow:
    """Attempts and failures within the last `seconds`. Each costs the same, however many there are."""

    __slots__ = ("_attempts", "_cell", "_cell_seconds", "_failures", "attempts", "failures", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._cell_seconds = seconds / CELLS
        self.clear()

    def clear(self) -> None:
        """Forgets all attempts."""
        self.attempts = 0
        self.failures = 0
        self._attempts = [0] * CELLS
        self._failures = [0] * CELLS
        self._cell = 0

    def add(self, now_seconds: float, *, failed: bool) -> None:
        """One more attempt ended; `attempts` and `failures` are those of the window that ends now."""
        self._move_to(int(now_seconds / self._cell_seconds))
        place = self._cell % CELLS
        self.attempts += 1
        self._attempts[place] += 1
        if failed:
            self.failures += 1
            self._failures[place] += 1

    def _move_to(self, cell: int) -> None:
        if cell - self._cell >= CELLS:
            self.clear()
            self._cell = cell
        while self._cell < cell:
            self._cell += 1
            place = self._cell % CELLS
            self.attempts -= self._attempts[place]
            self.failures -= self._failures[place]
            self._attempts[place] = self._failures[place] = 0
