"""What a target can be asked, and what can be judged of it."""

from __future__ import annotations

import asyncio
from enum import Enum
from typing import Protocol

from wall.asks import Ask
from wall.log import Outcome, Status, WallLog


class Ability(Enum):
    """What a scenario may need of a target to be judged."""

    LANES = "keeps deployments of different lanes apart, so that one lane's failures do not touch another's"
    ALONE = "can be asked for the primary alone, without a fallback"
    FAILOVER_MODES = "lets the caller choose what happens when a stream breaks"
    SEAMS = "announces in the stream that the answer goes on elsewhere"
    TYPED_ERRORS = "tells a gRPC status with a reason, and when to come back"
    DEADLINES = "is told the caller's deadline"
    SET_UP = "is set up by the wall: breakers, limits and timers are known"


class Target(Protocol):
    """Somebody who relays answers."""

    @property
    def abilities(self) -> frozenset[Ability]:
        """What it can."""
        ...

    async def ask(self, ask: Ask, scenario: str, log: WallLog) -> Outcome:
        """One call, from its beginning to its end; never raises for what the gateway does."""
        ...

    async def close(self) -> None:
        """Closes all connections."""
        ...


class Patience:
    """Keeps a caller's habits: how it reads and when it goes away."""

    def __init__(self, outcome: Outcome, log: WallLog) -> None:
        self._outcome = outcome
        self._log = log
        self._stopped = False
        self._last_text_at: float | None = None
        self.has_left = False
        self.begun = asyncio.Event()
        """Set once there is text."""

    def took(self, text: str) -> None:
        """A piece of text came."""
        now = self._log.now()
        if self._outcome.first_text_at is None:
            self._outcome.first_text_at = now
        elif self._last_text_at is not None:
            gap = now - self._last_text_at
            self._outcome.longest_gap_seconds = max(self._outcome.longest_gap_seconds, gap)
        self._last_text_at = now
        self._outcome.text += text
        self.begun.set()

    async def before_next(self) -> bool:
        """Waits as the caller does before it reads on; False when it goes away instead."""
        reader, length = self._outcome.ask.reader, len(self._outcome.text)
        if reader.leaves_after_characters is not None and length >= reader.leaves_after_characters:
            self.leave()
            return False
        if reader.stops_after_characters is not None and length >= reader.stops_after_characters and not self._stopped:
            self._stopped = True
            await asyncio.sleep(reader.stops_for_seconds)
        if reader.pause_seconds:
            await asyncio.sleep(reader.pause_seconds)
        return True

    def leave(self) -> None:
        """The caller goes away now."""
        self.has_left = True
        self._outcome.status = Status.LEFT
        self._outcome.ended_at = self._log.now()
