"""Where log lines go: they are lost rather than fail or hold up who writes them."""

from __future__ import annotations

import os
import select
from typing import TextIO

_ATOMIC_BYTES = 4_096
"""A pipe that says it can be written to takes this much without blocking (PIPE_BUF of Linux)."""


class LogStream:
    """Writes lines past Python's buffers to a stream's file. What cannot be written at once is lost and counted.

    A pipe that nobody reads would block the whole process, a closed one or a full disk raise; so would, again and
    again, the buffer that keeps what could not be written.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._number = _file_number(stream)
        self._is_torn = False
        self.lost = 0

    def write(self, text: str) -> int:
        """Takes a line with its end; never raises, never waits."""
        try:
            if self._number is not None:
                self._write_bytes(self._number, text)
            elif self._stream is not None:
                self._stream.write(text)
            else:
                self.lost += 1
        except (OSError, ValueError):
            self.lost += 1
        return len(text)

    def flush(self) -> None:
        """There is nothing that waits."""

    def _write_bytes(self, number: int, text: str) -> None:
        left = text.encode("utf-8", "backslashreplace")
        if self._is_torn:  # the rest of an earlier line did not fit; this one begins on a line of its own
            left = b"\n" + left
        while left:
            if not _takes_more(number):
                self.lost += 1
                return
            left = left[os.write(number, left[:_ATOMIC_BYTES]) :]
            self._is_torn = bool(left)


def _takes_more(number: int) -> bool:
    writable = select.poll()  # not shared: two threads must not wait on the same one
    writable.register(number, select.POLLOUT)
    return bool(writable.poll(0))


def _file_number(stream: TextIO | None) -> int | None:
    try:
        return None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None
