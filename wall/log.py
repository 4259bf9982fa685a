"""The wall log: what upstreams and callers saw, by their own clocks. Nothing in it is the gateway's word."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from wall.asks import Ask


@dataclass(slots=True)
class Hit:
    """One request that reached an upstream. Times are seconds since the scenario began.

    `sent_bytes` are body bytes handed to the network. `finished_at` is when the upstream had sent all it was going to,
    `left_at` when the other side closed the connection before that (or during a silence that would not have ended).
    """

    upstream: str
    scenario: str
    lane: str
    number: int
    order: int
    arrived_at: float
    stream: bool
    reused: bool
    body: Mapping[str, Any] = field(repr=False)
    play: str = ""
    sent_bytes: int = 0
    finished_at: float | None = None
    left_at: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether the answer is still under way."""
        return self.finished_at is None and self.left_at is None

    @property
    def closed_at(self) -> float | None:
        """When it was over, one way or the other."""
        return self.left_at if self.left_at is not None else self.finished_at

    def to_plain(self) -> dict[str, object]:
        """For the report; without the body."""
        names = ("upstream", "lane", "number", "order", "stream", "reused", "play", "sent_bytes")
        plain: dict[str, object] = {name: getattr(self, name) for name in names}
        for name in ("arrived_at", "finished_at", "left_at"):
            value = getattr(self, name)
            plain[name] = None if value is None else round(value, 4)
        return plain


_PULSE_SECONDS = 0.02


class Status(Enum):
    """How a call ended, as its caller saw it."""

    SERVED = "served"
    """The caller was told that the answer is whole."""
    FAILED = "failed"
    """An error before any part of the answer."""
    INTERRUPTED = "interrupted"
    """An error after part of the answer."""
    LEFT = "left"
    """The caller went away by itself."""


@dataclass(frozen=True, slots=True)
class Seam:
    """The answer was announced to go on elsewhere: how, where in the text, and how much of it still counts."""

    mode: str
    at_characters: int
    kept_characters: int


@dataclass(slots=True)
class Outcome:
    """What a caller got. `codes` are the gRPC status names that the ending may stand for (one over gRPC)."""

    ask: Ask
    started_at: float
    status: Status = Status.FAILED
    codes: frozenset[str] = frozenset()
    reason: str = ""
    text: str = ""
    arguments: str = ""
    finish: str = ""
    first_text_at: float | None = None
    ended_at: float = 0.0
    terminals: int = 0
    after_terminal: int = 0
    seams: list[Seam] = field(default_factory=list)
    retry_after_seconds: float | None = None
    error_text: str = field(default="", repr=False)
    whole_text: str | None = None
    warnings: tuple[str, ...] = ()
    longest_gap_seconds: float = 0.0
    usage_output_tokens: int = 0

    @property
    def seconds(self) -> float:
        """From the call to its end."""
        return self.ended_at - self.started_at

    @property
    def served(self) -> bool:
        """Whether the caller was told that the answer is whole."""
        return self.status is Status.SERVED

    def to_plain(self) -> dict[str, object]:
        """For the report; texts as their lengths."""
        return {
            "number": self.ask.number,
            "lane": self.ask.lane,
            "stream": self.ask.stream,
            "status": self.status.value,
            "codes": sorted(self.codes),
            "reason": self.reason,
            "characters": len(self.text),
            "started_at": round(self.started_at, 4),
            "first_text_at": None if self.first_text_at is None else round(self.first_text_at, 4),
            "ended_at": round(self.ended_at, 4),
            "terminals": self.terminals,
            "seams": [[seam.mode, seam.at_characters, seam.kept_characters] for seam in self.seams],
        }


class WallLog:
    """Everything that was seen of one scenario."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._began_at = self._loop.time()
        self.hits: list[Hit] = []
        self.outcomes: list[Outcome] = []
        self.strays: list[str] = []
        """Requests at another path than the dialect's: where a redirect was followed."""
        self.late_seconds: list[float] = []
        """How much later than asked the wall's own timers fired: what the machine adds to every measured duration."""

    def begin(self) -> None:
        """The scenario begins now."""
        self._began_at = self._loop.time()

    async def feel_machine(self) -> None:
        """Notes how late timers are, until cancelled."""
        while True:
            due_at = self._loop.time() + _PULSE_SECONDS
            await asyncio.sleep(_PULSE_SECONDS)
            self.late_seconds.append(max(0.0, self._loop.time() - due_at))

    def now(self) -> float:
        """Seconds since the scenario began."""
        return self._loop.time() - self._began_at

    def rows(self) -> Iterable[dict[str, object]]:
        """All of it, in the order of time."""
        hits = [(hit.arrived_at, {"kind": "hit", **hit.to_plain()}) for hit in self.hits]
        ends = [(outcome.ended_at, {"kind": "outcome", **outcome.to_plain()}) for outcome in self.outcomes]
        return (row for _, row in sorted(hits + ends, key=lambda pair: pair[0]))
