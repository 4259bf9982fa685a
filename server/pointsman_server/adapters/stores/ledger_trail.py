"""Trails in a folder: one file of JSON lines for each process that keeps accounts.

A line is handed to the operating system before anything follows from it, so it survives the process, however that
ends. It is not forced onto the disk: after a power cut the trail is taken for incomplete, which the kernel's boot id
tells. While a process lives it holds a lock on its file; a file without a lock belongs to a process that has ended.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import structlog

from pointsman_server.domain.ledger import Booking, BudgetKey, Entry, EntryOutcome, Lease, LeaseChange, Remains
from pointsman_server.domain.ledger_ports import LeftTrail, Trail

_LOG = structlog.stdlib.get_logger("pointsman.ledger")

FOLDER = "ledger"
_SUFFIX = ".trail"
_FORMAT = 1

LONG_BYTES = 4 * 1024 * 1024
"""A trail is begun anew when it is so long, and twice as long as when it was begun."""

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_HEAD, _LEASED, _RESERVED, _BOOKED = "head", "leased", "reserved", "booked"


class FolderTrails:
    """See `Trails`; `folder` is this machine's own, shared by its processes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / FOLDER
        self._boot_id = _boot_id()

    def open(self, writer: str) -> Trail:
        """See `Trails.open`."""
        return FileTrail(self._folder / f"{writer}{_SUFFIX}", writer, self._boot_id)

    async def left_behind(self) -> Sequence[LeftTrail]:
        """See `Trails.left_behind`."""
        return await asyncio.to_thread(lambda: list(self._left_behind()))

    def _left_behind(self) -> Iterator[LeftTrail]:
        for path in sorted(self._folder.glob(f"*{_SUFFIX}")):
            try:
                left = _claim(path, self._boot_id)
            except OSError as error:
                _LOG.warning("trail_not_read", file=path.name, error=type(error).__name__)
            else:
                if left is not None:
                    yield left


class FileTrail:
    """See `Trail`. The file is made when there is something to say.

    Where the disk refuses, the file is removed: what is left of it would not be the truth.
    """

    def __init__(self, path: Path, writer: str, boot_id: str) -> None:
        self._path = path
        self._writer = writer
        self._boot_id = boot_id
        self._file: int | None = None
        self._has_ended = False
        self._bytes = self._begun_bytes = 0

    @property
    def is_long(self) -> bool:
        """See `Trail.is_long`."""
        return self._bytes > max(LONG_BYTES, 2 * self._begun_bytes)

    def leased(self, lease: Lease) -> None:
        """See `Trail.leased`."""
        self._write(_leased(lease.id, lease.key, lease.amount_micro_usd))

    def reserved(self, number: int, takes: Sequence[tuple[str, int]]) -> None:
        """See `Trail.reserved`."""
        self._write(_line(_RESERVED, number, takes))

    def booked(self, booking: Booking, reservation: int | None = None) -> None:
        """See `Trail.booked`."""
        self._write(_booked(booking, reservation))

    def begin_anew(self, remains: Remains) -> None:
        """See `Trail.begin_anew`."""
        if self._has_ended:
            return
        lines = b"".join(_lines(remains, self._boot_id))
        old = self._file
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Nobody may find it before it is locked and begun.
            beside = self._path.with_suffix(".new")
            file = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
            self._file = file
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write_all(file, lines)
            beside.replace(self._path)
        except OSError as error:
            self._give_up(error)
        else:
            self._bytes = self._begun_bytes = len(lines)
        finally:
            if old is not None:
                os.close(old)

    def end(self) -> None:
        """See `Trail.end`."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)
        self.leave()

    def leave(self) -> None:
        """See `Trail.leave`."""
        self._has_ended = True
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, line: bytes) -> None:
        if self._file is None:
            self.begin_anew(Remains(self._writer))
        if self._file is None:
            return
        try:
            _write_all(self._file, line)
            self._bytes += len(line)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        _LOG.error(
            "trail_lost",
            error=type(error).__name__,
            message="if this process is killed, all that it holds of budgets is booked as spent",
            remedy="see that POINTSMAN_STATE_DIR can be written, and start again",
        )
        if self._file is not None:
            with suppress(OSError):
                os.ftruncate(self._file, 0)
        self.end()


class NoTrails:
    """For processes without a folder of their own: what one holds of budgets when it is killed is booked as spent."""

    def open(self, writer: str) -> Trail:
        """See `Trails.open`."""
        return NoTrail()

    async def left_behind(self) -> Sequence[LeftTrail]:
        """See `Trails.left_behind`."""
        return ()


class NoTrail:
    """See `Trail`; keeps nothing."""

    is_long = False

    def leased(self, lease: Lease) -> None:
        """See `Trail.leased`."""

    def reserved(self, number: int, takes: Sequence[tuple[str, int]]) -> None:
        """See `Trail.reserved`."""

    def booked(self, booking: Booking, reservation: int | None = None) -> None:
        """See `Trail.booked`."""

    def begin_anew(self, remains: Remains) -> None:
        """See `Trail.begin_anew`."""

    def end(self) -> None:
        """See `Trail.end`."""

    def leave(self) -> None:
        """See `Trail.leave`."""


class _LeftFile:
    """See `LeftTrail`; holds the file's lock."""

    def __init__(self, path: Path, file: int, remains: Remains, *, is_readable: bool) -> None:
        self.remains = remains
        self._path = path
        self._file = file
        self._is_readable = is_readable

    def remove(self) -> None:
        """See `LeftTrail.remove`."""
        with suppress(OSError):
            if self._is_readable:
                self._path.unlink(missing_ok=True)
            else:
                _LOG.error("trail_not_readable", file=self._path.name, remedy="keep the file and report it")
                self._path.rename(self._path.with_suffix(".unreadable"))

    def leave(self) -> None:
        """See `LeftTrail.leave`."""
        os.close(self._file)


def _claim(path: Path, boot_id: str) -> _LeftFile | None:
    """The trail in this file; None if its process lives, or somebody else was faster."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(file).st_ino != os.stat(path).st_ino:
            raise FileNotFoundError  # begun anew meanwhile
        with os.fdopen(os.dup(file), "rb") as content:
            reading = _Reading(path.stem, boot_id)
            is_readable = reading.read(content.read().split(b"\n"))
    except (BlockingIOError, FileNotFoundError):
        os.close(file)
        return None
    except BaseException:
        os.close(file)
        raise
    return _LeftFile(path, file, reading.remains(), is_readable=is_readable)


class _Reading:
    """Follows a trail from its beginning."""

    def __init__(self, writer: str, boot_id: str) -> None:
        self._writer = writer
        self._boot_id = boot_id
        self._is_whole = False
        self._number = 0
        self._leases: dict[str, tuple[BudgetKey, int]] = {}
        self._outstanding: dict[int, Sequence[tuple[str, int]]] = {}
        self._bookings: list[Booking] = []

    def read(self, lines: Sequence[bytes]) -> bool:
        """Whether all lines could be read but for the last, which has no end when the process was killed in it."""
        for line in lines[:-1]:
            try:
                self._follow(*orjson.loads(line))
            except (ValueError, TypeError, KeyError):
                self._is_whole = False
                return False
        return True

    def remains(self) -> Remains:
        """What it tells."""
        return Remains(
            self._writer, self._number, self._leases, self._outstanding, self._bookings, is_whole=self._is_whole
        )

    def _follow(self, kind: str, *said: Any) -> None:
        match kind, said:
            case "head", (form, boot_id, number):
                if form != _FORMAT:
                    raise ValueError("another version wrote it")
                self._is_whole = bool(boot_id) and boot_id == self._boot_id
                self._number = number
            case "leased", (name, key, amount):
                self._leases[name] = BudgetKey(*key), amount
            case "reserved", (number, takes):
                self._outstanding[number] = [(name, amount) for name, amount in takes]
            case "booked", (reservation, number, changes, entries):
                self._book(Booking(number, tuple(map(_change, changes)), tuple(map(_entry, entries))))
                self._outstanding.pop(reservation, None)
            case _:
                raise ValueError("another version wrote it")

    def _book(self, booking: Booking) -> None:
        self._bookings.append(booking)
        self._number = max(self._number, booking.number)
        for change in booking.changes:
            if change.lease_id in self._leases:
                key, left = self._leases[change.lease_id]
                self._leases[change.lease_id] = key, left - change.left_micro_usd


def _lines(remains: Remains, boot_id: str) -> Iterator[bytes]:
    # The leases come after the bookings, because what these took is no longer in them.
    yield _line(_HEAD, _FORMAT, boot_id, remains.number)
    for booking in remains.bookings:
        yield _booked(booking, None)
    for name, (key, left) in remains.leases.items():
        yield _leased(name, key, left)
    for number, takes in remains.outstanding.items():
        yield _line(_RESERVED, number, takes)


def _leased(name: str, key: BudgetKey, amount: int) -> bytes:
    return _line(_LEASED, name, tuple(key), amount)


def _booked(booking: Booking, reservation: int | None) -> bytes:
    changes = [(change[0], tuple(change[1]), *change[2:]) for change in booking.changes]
    return _line(_BOOKED, reservation, booking.number, changes, [tuple(entry) for entry in booking.entries])


def _line(*said: object) -> bytes:
    return orjson.dumps(said, option=orjson.OPT_APPEND_NEWLINE)


def _change(said: Sequence[Any]) -> LeaseChange:
    name, key, *rest = said
    return LeaseChange(name, BudgetKey(*key), *rest)


def _entry(said: Sequence[Any]) -> Entry:
    entry = Entry(*said)
    return entry._replace(outcome=EntryOutcome(entry.outcome))


def _write_all(file: int, lines: bytes) -> None:
    written = os.write(file, lines)
    while written < len(lines):
        written += os.write(file, lines[written:])


def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return ""
