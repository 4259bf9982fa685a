"""Calls that are refused before anybody knows who makes them: told in the log, but never so often that they fill it."""

from __future__ import annotations

from urllib.parse import unquote

import structlog

from pointsman_server.domain.ports import Clock

PERIOD_SECONDS = 60.0
MOST_ADDRESSES = 20
"""So many addresses are named in a period, each once."""

_LOG = structlog.stdlib.get_logger("pointsman.authentication")


class StrangersLog:
    """Names the first refusal of an address in a period, with the number of refusals left out since the last line."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._named: set[str] = set()
        self._period_ends_at = 0.0
        self._left_out = 0

    def note(self, address: str, method: str, reason: str) -> None:
        """One more call was refused; `reason` is one of ours and holds nothing that was sent."""
        now = self._clock.monotonic()
        if now >= self._period_ends_at:
            self._named.clear()
            self._period_ends_at = now + PERIOD_SECONDS
        if address in self._named or len(self._named) >= MOST_ADDRESSES:
            self._left_out += 1
            return
        self._named.add(address)
        _LOG.warning("stranger_refused", peer=address, method=method, reason=reason, not_logged=self._left_out)
        self._left_out = 0


def address_of(peer: str) -> str:
    """The network address in what the library calls a peer, without the port: `ipv4:192.0.2.1:50000`, `unix:`."""
    kind, _, rest = peer.partition(":")
    if kind not in ("ipv4", "ipv6"):
        return kind
    return unquote(rest).rpartition(":")[0].strip("[]")
