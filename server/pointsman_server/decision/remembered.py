"""A bounded memory of what a pure function gave."""

from __future__ import annotations

from collections import deque
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Remembered(dict[Key, Value]):
    """Values by key, of which `keep` takes so many at most: the oldest of them makes room for a new one.

    It is a dictionary, so that finding something takes no step of Python. What is put in by `[key] = value` stays.
    """

    __slots__ = ("_most", "_order")

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most
        self._order: deque[Key] = deque()

    def keep(self, key: Key, value: Value) -> None:
        """Remembers one value."""
        if len(self._order) >= self._most:
            self.pop(self._order.popleft(), None)
        self[key] = value
        self._order.append(key)

    def forget(self) -> None:
        """Forgets all that was kept."""
        for key in self._order:
            self.pop(key, None)
        self._order.clear()
