"""Time and identity that tests control: nothing here waits, and nothing here is random."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from itertools import count
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class FakeClock:
    """A clock that goes on only when told. The wall clock may be set, as administrators do."""

    def __init__(self, monotonic: float = 1_000.0, now: float = 1_750_000_000.0) -> None:
        self.monotonic_seconds = monotonic
        self.now_seconds = now

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return self.monotonic_seconds

    def now(self) -> float:
        """See `Clock.now`."""
        return self.now_seconds

    def advance(self, seconds: float) -> None:
        """Both clocks go on by so much."""
        self.monotonic_seconds += seconds
        self.now_seconds += seconds


class LoopClock:
    """The running loop's own time, which `in_virtual_time` controls."""

    def monotonic(self) -> float:
        """See `Clock.monotonic`."""
        return asyncio.get_running_loop().time()

    def now(self) -> float:
        """See `Clock.now`."""
        return 1_750_000_000.0 + self.monotonic()


class CountingIds:
    """Ids in order: `dec_1`, `req_2`; hexadecimal digits that count likewise."""

    def __init__(self) -> None:
        self._count = count(1)

    def new(self, prefix: str) -> str:
        """See `Ids.new`."""
        return f"{prefix}_{next(self._count)}"


class _JumpingSelector(selectors.DefaultSelector):
    """Where a loop would wait for its next timer, this moves the time to it."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds = 0.0

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise RuntimeError("nothing can ever happen again: no timer runs, and no task can go on")
        self.seconds += max(0.0, timeout)
        return super().select(0)


class _VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._selector_of_time = _JumpingSelector()
        super().__init__(self._selector_of_time)

    def time(self) -> float:
        return self._selector_of_time.seconds


def in_virtual_time(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Runs it on a loop whose timers cost no time. It must neither wait for sockets nor for threads."""
    with asyncio.Runner(loop_factory=_VirtualTimeLoop) as runner:
        return runner.run(coroutine)
