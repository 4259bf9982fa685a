"""A file that is looked at again and again: what is new in it, once for each change."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pointsman_server.config.yaml_tree import MAX_BYTES

SETTLE_SECONDS = 0.2
"""A change is taken up when the file has stayed as it is for so long: half of it may be a policy too."""

_Sign = tuple[int, int, int, int] | str
"""What tells one state of the file from another: identity, size and time of change, or why there is none."""


class UnreadableFileError(Exception):
    """The file is not there or cannot be read; the message continues a sentence that begins with its path."""


class WatchedFile:
    """The file at `path`, whose content was `content` when it was read first. A link is followed at every look."""

    def __init__(self, path: Path, content: bytes, settle_seconds: float = SETTLE_SECONDS) -> None:
        self.path = path
        self._content: bytes | None = content
        self._settle_seconds = settle_seconds
        self._settled: _Sign | None = None
        self._unsettled: _Sign | None = None
        self._since = 0.0

    def look(self, now: float) -> bytes | None:
        """The content if it is another one than before, else None. `now` is in monotonic seconds.

        Raises `UnreadableFileError`, once for each time that it becomes unreadable.
        """
        sign = self._sign()
        if sign == self._settled:
            self._unsettled = None
            return None
        if sign != self._unsettled:
            self._unsettled, self._since = sign, now
        if now - self._since < self._settle_seconds:
            return None
        return self._take(sign)

    def changed_at(self) -> float:
        """When it was written last, in seconds since the Unix epoch; 0 if it is not there."""
        try:
            return os.stat(self.path).st_mtime
        except OSError:
            return 0.0

    def _take(self, sign: _Sign) -> bytes | None:
        if isinstance(sign, str):
            self._settled, self._content = sign, None
            raise UnreadableFileError(sign)
        try:
            content = self.path.read_bytes()
        except OSError as error:
            self._settled, self._content = sign, None
            raise UnreadableFileError(_reason(error)) from error
        if self._sign() != sign:
            return None  # it was written to meanwhile
        self._settled = sign
        if content == self._content:
            return None
        self._content = content
        return content

    def _sign(self) -> _Sign:
        try:
            found = os.stat(self.path)
            # Otherwise a change of permissions, which changes no byte and no time, would not be seen.
            readable = os.access(self.path, os.R_OK)
        except OSError as error:
            return _reason(error)
        if not stat.S_ISREG(found.st_mode):
            return "is not a regular file"
        if not readable:
            return "cannot be read (Permission denied)"
        if found.st_size > MAX_BYTES:
            return f"is longer than {MAX_BYTES} bytes"
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    return f"cannot be read ({error.strerror or type(error).__name__})"
