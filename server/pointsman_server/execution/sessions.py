"""Who answered a conversation's last turn, so that the provider's prompt cache can serve the next."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import NamedTuple

import structlog

from pointsman_server.domain.ports import Clock, StoreUnavailableError
from pointsman_server.execution.shared_memory import Alone, NoteKind, NoteName, Notes

REMEMBERED_SECONDS = 300.0
"""How long vendors keep a prompt cache warm (Anthropic and Google document five minutes and more)."""

MOST_SESSIONS = 20_000

NOTED_SECONDS = 60.0
"""So long what other processes were told of a conversation is left as it is while the same deployment answers."""

LOOK_SECONDS = 0.05
"""A warm cache is worth no longer wait than this."""

REST_SECONDS = 5.0
"""For so long nobody waits again for a store that did not answer."""

_LOG = structlog.stdlib.get_logger("pointsman.sessions")


class _Last(NamedTuple):
    deployment_id: str
    at: float
    noted_at: float


_NEVER = _Last("", float("-inf"), float("-inf"))


class SessionBook:
    """The last deployment of each conversation; forgets the one that was silent longest when it is full.

    A session is `tenant/id`. `notes` are those of the other processes.
    """

    def __init__(self, clock: Clock, notes: Notes | None = None) -> None:
        self._clock = clock
        self._notes = notes or Alone()
        self._last: OrderedDict[str, _Last] = OrderedDict()
        self._looks_from = float("-inf")

    def last_deployment_id(self, session_id: str) -> str:
        """Who answered last, "" when that is unknown or too long ago."""
        if not session_id:
            return ""
        last = self._last.get(session_id, _NEVER)
        return last.deployment_id if self._clock.monotonic() - last.at <= REMEMBERED_SECONDS else ""

    async def look_up(self, session_id: str) -> None:
        """Learns who answered last where another process saw it; takes a moment at most, and never fails."""
        now = self._clock.monotonic()
        if now < self._looks_from or self.last_deployment_id(session_id):
            return
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                found = await self._notes.look(_name(session_id))
        except (StoreUnavailableError, TimeoutError) as error:
            self._looks_from = now + REST_SECONDS
            _LOG.warning("session_not_looked_up", error=type(error).__name__)
            return
        if found is not None:
            at = now - max(0.0, REMEMBERED_SECONDS - found.left_seconds)
            self._remember(session_id, _Last(found.value.decode(), at, at))

    def answered(self, session_id: str, deployment_id: str) -> None:
        """This deployment answered a turn of the conversation."""
        if not session_id:
            return
        now, last = self._clock.monotonic(), self._last.get(session_id, _NEVER)
        noted_at = last.noted_at
        if last.deployment_id != deployment_id or now - noted_at > NOTED_SECONDS:
            noted_at = now
            self._notes.keep(_name(session_id), deployment_id.encode, REMEMBERED_SECONDS)
        self._remember(session_id, _Last(deployment_id, now, noted_at))

    def _remember(self, session_id: str, last: _Last) -> None:
        self._last[session_id] = last
        self._last.move_to_end(session_id)
        if len(self._last) > MOST_SESSIONS:
            self._last.popitem(last=False)


def _name(session_id: str) -> NoteName:
    tenant, _, name = session_id.partition("/")
    return NoteName(NoteKind.SESSION, tenant, name)
