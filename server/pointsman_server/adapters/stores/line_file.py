"""Appends lines to files in a thread of its own, so that no call waits for a disk."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Generic, TypeVar

import structlog

_LOG = structlog.stdlib.get_logger("pointsman.stores")

MOST_WAITING = 10_000
"""Lines that wait to be written; more are dropped and counted, because keeping them must not cost a call."""

GATHER_SECONDS = 0.1
"""Lines are gathered for so long and written together: a thread that wakes for each takes the interpreter from the
calls every time, which costs them far more than the writing does."""

MOST_FILE_BYTES = 64 * 1024 * 1024
MOST_OLD_FILES = 15
"""A full file is numbered and kept; beyond so many the oldest goes, which bounds the folder at about a gigabyte."""

_TAIL_BYTES = 64 * 1024
_CLOSE_SECONDS = 10.0

T = TypeVar("T")


class LineFile(Generic[T]):
    """A growing file of lines; without a path nothing is kept. `encode` makes the line of an item, in the thread.

    What is appended before the start waits for it. One process writes a file.
    """

    def __init__(self, path: Path | None, encode: Callable[[T], bytes]) -> None:
        self._path = path
        self._encode = encode
        self._waiting: deque[T] = deque()
        self._news = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._taking = path is not None
        self._dropping = False
        self.dropped = 0

    def start(self) -> None:
        """Opens the file and starts writing. Raises `OSError` when it cannot be written."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab"):
            pass
        _cut_torn_line(self._path)
        self._thread = threading.Thread(target=self._work, args=(self._path,), name="write-lines", daemon=True)
        self._thread.start()

    def append(self, item: T) -> None:
        """Takes one more item; returns at once."""
        if not self._taking:
            return
        if len(self._waiting) >= MOST_WAITING:
            self._drop()
            return
        self._waiting.append(item)
        if not self._news.is_set():
            self._news.set()

    def close(self) -> None:
        """Writes what is waiting and ends the thread; what was never started is forgotten."""
        self._taking = False
        if self._thread is None:
            return
        self._ended.set()
        self._news.set()
        self._thread.join(_CLOSE_SECONDS)  # a disk that hangs holds up no end
        self._thread = None
        if self.dropped:
            _LOG.warning("lines_dropped", count=self.dropped)

    def _drop(self) -> None:
        self.dropped += 1
        if not self._dropping:
            self._dropping = True
            name = self._path.name if self._path else ""
            _LOG.warning("lines_dropping", file=name, waiting=MOST_WAITING, message="the disk is slower than the calls")

    def _work(self, path: Path) -> None:
        ended = False
        while not ended:
            self._news.wait()
            ended = self._ended.wait(GATHER_SECONDS)
            self._news.clear()
            items = self._take()
            if items:
                self._write(path, items)

    def _take(self) -> list[T]:
        """What is waiting."""
        items = []
        while self._waiting:
            items.append(self._waiting.popleft())
        self._dropping = False  # caught up: the next drop is news again
        return items

    def _write(self, path: Path, items: list[T]) -> None:
        try:
            if path.exists() and path.stat().st_size > MOST_FILE_BYTES:
                _turn_over(path)
            lines = b"".join(self._encode(item) + b"\n" for item in items)
            with path.open("ab", buffering=0) as file:
                _write_all(file.fileno(), lines)
        except (OSError, ValueError) as error:  # the disk, or an item that cannot be encoded
            self.dropped += len(items)
            _LOG.error("lines_not_written", file=path.name, error=type(error).__name__)


def _write_all(file: int, lines: bytes) -> None:
    """All of it or nothing: a part of a line would spoil the one that comes after it."""
    before = os.fstat(file).st_size
    rest = memoryview(lines)
    try:
        while rest:
            rest = rest[os.write(file, rest) :]
    except OSError:
        with suppress(OSError):
            os.ftruncate(file, before)
        raise


def _cut_torn_line(path: Path) -> None:
    """Takes away the line that a crash left without its end, so that the next one does not continue it."""
    with path.open("r+b") as file:
        end = size = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - _TAIL_BYTES)
            file.seek(begin)
            newline = file.read(end - begin).rfind(b"\n")
            end = begin
            if newline >= 0:
                end += newline + 1
                break
        if end < size:
            file.truncate(end)
            _LOG.warning("torn_line_cut", file=path.name, bytes=size - end)


def _turn_over(path: Path) -> None:
    old = old_files(path)
    number = int(old[-1].name.rsplit(".", 1)[1]) + 1 if old else 1
    path.rename(path.with_name(f"{path.name}.{number:06d}"))
    for file in old[: max(0, len(old) + 1 - MOST_OLD_FILES)]:
        file.unlink()


def old_files(path: Path) -> list[Path]:
    """The full files that came before this one, oldest first."""
    return sorted(file for file in path.parent.glob(f"{path.name}.*") if file.name.rsplit(".", 1)[1].isdigit())
