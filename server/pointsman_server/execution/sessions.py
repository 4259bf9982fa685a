"""Who answered a conversation's last turn, so that the provider's prompt cache can serve the next."""

from __future__ import annotations

from collections import OrderedDict

from pointsman_server.domain.ports import Clock

REMEMBERED_SECONDS = 300.0
"""How long vendors keep a prompt cache warm (Anthropic and Google document five minutes and more)."""

MOST_SESSIONS = 20_000


class SessionBook:
    """The last deployment of each conversation; forgets the one that was silent longest when it is full."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: OrderedDict[str, tuple[str, float]] = OrderedDict()

    def last_deployment_id(self, session_id: str) -> str:
        """Who answered last, "" when that is unknown or too long ago."""
        if not session_id:
            return ""
        deployment_id, at = self._last.get(session_id, ("", 0.0))
        return deployment_id if self._clock.monotonic() - at <= REMEMBERED_SECONDS else ""

    def answered(self, session_id: str, deployment_id: str) -> None:
        """This deployment answered a turn of the conversation."""
        if not session_id:
            return
        self._last[session_id] = (deployment_id, self._clock.monotonic())
        self._last.move_to_end(session_id)
        if len(self._last) > MOST_SESSIONS:
            self._last.popitem(last=False)
