"""Server-sent events from bytes that arrive cut anywhere."""

from __future__ import annotations

from typing import NamedTuple

from pointsman_server.domain.faults import FaultKind, ProviderFault

MAX_LINE_BYTES = 1_000_000
"""Longest line and longest event accepted. Recorded streams stay under 50 kB; more than this is not an answer."""

_BOM = b"\xef\xbb\xbf"


class SseEvent(NamedTuple):
    """One event: its `event:` name ("" when absent) and its data lines joined by LF."""

    name: str
    data: bytes


class SseReader:
    """Feed it bytes, get the events they complete. Comments, `id:` and `retry:` lines are dropped.

    Lines may end in LF, CRLF or CR; a byte order mark at the start is skipped.
    """

    __slots__ = ("_at_start", "_data", "_data_bytes", "_held_cr", "_name", "_pending", "_pending_bytes")

    def __init__(self) -> None:
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._held_cr = False
        self._at_start = True
        self._name = ""
        self._data: list[bytes] = []
        self._data_bytes = 0

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events completed by this chunk.

        Raises `ProviderFault` MALFORMED_REPLY when a line or an event grows past `MAX_LINE_BYTES`.
        """
        if self._held_cr or b"\r" in chunk:
            chunk = self._normalise_line_ends(chunk)
        if b"\n" not in chunk:
            self._hold(chunk)
            return []
        text = b"".join((*self._pending, chunk)) if self._pending else chunk
        lines = text.split(b"\n")
        if len(text) > MAX_LINE_BYTES and max(map(len, lines)) > MAX_LINE_BYTES:
            raise _too_long("a line")
        rest = lines.pop()
        self._pending = []
        self._pending_bytes = 0
        self._hold(rest)
        return self._read_lines(lines)

    def flush(self) -> list[SseEvent]:
        """The event left open at the end of the body, if its lines were complete enough to be read."""
        lines = [b"".join(self._pending), b""] if self._pending else [b""]
        self._pending = []
        self._pending_bytes = 0
        return self._read_lines(lines)

    def _normalise_line_ends(self, chunk: bytes) -> bytes:
        # A CR at the very end may be the first half of a CRLF: hold it until the next chunk tells.
        if self._held_cr:
            chunk = b"\r" + chunk
        self._held_cr = chunk.endswith(b"\r")
        if self._held_cr:
            chunk = chunk[:-1]
        return chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _hold(self, rest: bytes) -> None:
        if not rest:
            return
        self._pending.append(rest)
        self._pending_bytes += len(rest)
        if self._pending_bytes > MAX_LINE_BYTES:
            raise _too_long("a line")

    def _read_lines(self, lines: list[bytes]) -> list[SseEvent]:
        if self._at_start and lines:
            lines[0] = lines[0].removeprefix(_BOM)
            self._at_start = False
        events: list[SseEvent] = []
        for line in lines:
            if not line:
                self._dispatch(events)
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
                self._data_bytes += len(line)
                if self._data_bytes > MAX_LINE_BYTES:
                    raise _too_long("an event")
            elif line.startswith(b"event:"):
                self._name = line[6:].strip().decode("utf-8", "replace")
        return events

    def _dispatch(self, events: list[SseEvent]) -> None:
        if self._data:
            data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
            events.append(SseEvent(self._name, data))
            self._data = []
            self._data_bytes = 0
        self._name = ""


def _too_long(what: str) -> ProviderFault:
    return ProviderFault(FaultKind.MALFORMED_REPLY, f"{what} of the stream is longer than {MAX_LINE_BYTES} bytes")
