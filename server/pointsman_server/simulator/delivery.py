"""How a response leaves: status, headers, body in frames, and how the connection ends. Values; nothing is sent here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from pointsman_server.simulator.dialects.dialect import Frame


class Ending(Enum):
    """What follows the last frame."""

    PROPER = "proper"
    """The end that HTTP prescribes."""
    CLOSE = "close"
    """The connection is closed, whatever was announced."""
    RESET = "reset"
    """The connection is reset."""
    STALL = "stall"
    """Nothing, until the caller gives up."""
    PINGS = "pings"
    """The ping, again and again, until the caller gives up."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A response.

    `announced_bytes` is the `content-length`, None for chunked framing. It may be untrue: such a response is written
    to the socket as it is. `status` 0 sends nothing at all before the ending. `one_by_one` writes every frame by
    itself, which the network may still join.
    """

    status: int
    headers: Mapping[str, str]
    frames: tuple[Frame, ...]
    announced_bytes: int | None = None
    ending: Ending = Ending.PROPER
    one_by_one: bool = False
    ping: bytes = b""
    ping_interval_seconds: float = 0.2

    @property
    def body(self) -> bytes:
        """All frames."""
        return b"".join(frame.data for frame in self.frames)


def whole(status: int, headers: Mapping[str, str], body: bytes) -> Delivery:
    """A response with one body of true length."""
    return Delivery(status, headers, (Frame(body),), announced_bytes=len(body))


def streamed(headers: Mapping[str, str], frames: tuple[Frame, ...]) -> Delivery:
    """A stream that answers 200."""
    return Delivery(200, headers, frames)
