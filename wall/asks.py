"""What callers do: the load of a scenario, as values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Failover(Enum):
    """What the caller wants when a provider fails in the middle of a stream."""

    TERMINATE = "terminate"
    CONTINUE = "continue"
    RESTART = "restart"


@dataclass(frozen=True, slots=True)
class Reader:
    """How the caller takes the answer: as it comes, unless told otherwise.

    `pause_seconds` passes between two messages. The caller goes away after `leaves_after_seconds` or once it has
    `leaves_after_characters`. Once it has `stops_after_characters` it reads nothing for `stops_for_seconds`.
    """

    pause_seconds: float = 0.0
    leaves_after_seconds: float | None = None
    leaves_after_characters: int | None = None
    stops_after_characters: int | None = None
    stops_for_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One call. Calls of the same `lane` share their upstreams' memory in the gateway; lanes are apart.

    `alone` allows the primary only, so that nobody can take over. `deadline_seconds` None sets none.
    """

    number: int
    at_seconds: float = 0.0
    lane: str = "main"
    stream: bool = False
    deadline_seconds: float | None = 20.0
    failover: Failover = Failover.TERMINATE
    alone: bool = False
    reader: Reader = Reader()
    offers_tool: bool = False
    loses_network: bool = False
    """The caller's network goes silent, without a word, once the first text is there; the caller never returns."""
