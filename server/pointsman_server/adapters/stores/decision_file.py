"""Decisions and verdicts as JSON lines in a folder, and the policies they were made under beside them."""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice
from pathlib import Path

import structlog
from pydantic import TypeAdapter, ValidationError

from pointsman_server.adapters.stores.line_file import LineFile, old_files
from pointsman_server.domain.record import DecisionRecord, PolicyRecord
from pointsman_server.domain.verdict import Verdict

_LOG = structlog.stdlib.get_logger("pointsman.stores")

DECISIONS = "decisions.jsonl"
VERDICTS = "verdicts.jsonl"
POLICIES = "policies"

MOST_EARLIER_VERDICTS = 100_000
"""Verdicts of earlier runs that are read again, the newest; older ones have faded and would cost a start its time."""

_CHUNK_BYTES = 1024 * 1024

_DECISION = TypeAdapter(DecisionRecord)
_VERDICT = TypeAdapter(Verdict)
_POLICY = TypeAdapter(PolicyRecord)


class UnreadableRecordError(Exception):
    """A record is not what it should be; the message names the file, and the line where there are several."""


class StateFolder:
    """What a process keeps on disk: `decisions.jsonl`, `verdicts.jsonl` and `policies/`; nothing without a folder.

    Where several processes share a folder each is a `worker` with a number, 1 or more, and files of its own
    (`decisions-2.jsonl`), because one process writes a file; reading takes them all together.
    Where the folder cannot be written, nothing is kept and a warning says so: no call fails for it.
    """

    def __init__(self, folder: Path | None, worker: int = 0) -> None:
        self._folder = folder
        self.decisions = LineFile(folder / _of_worker(DECISIONS, worker) if folder else None, _DECISION.dump_json)
        self.verdicts = LineFile(folder / _of_worker(VERDICTS, worker) if folder else None, _VERDICT.dump_json)

    def open(self) -> None:
        """Starts writing what was appended before and what comes."""
        try:
            self.decisions.start()
            self.verdicts.start()
        except OSError as error:
            self.close()
            _LOG.warning(
                "state_not_kept",
                folder=str(self._folder),
                error=type(error).__name__,
                remedy="set POINTSMAN_STATE_DIR to a folder that can be written, or to nothing",
            )

    def keep_policy(self, policy: PolicyRecord) -> None:
        """Keeps a policy, so that decisions under it can be replayed. Never raises for a disk's sake."""
        if self._folder is None:
            return
        path = self._folder / POLICIES / f"{policy.version}.json"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _replace(path, _POLICY.dump_json(policy))
        except OSError as error:
            _LOG.warning("policy_not_kept", error=type(error).__name__)

    def earlier_verdicts(self) -> Iterator[Verdict]:
        """The newest verdicts of earlier runs, oldest first; lines that cannot be read are skipped and counted."""
        if self._folder is None:
            return
        skipped = 0

        def verdicts_of(files: Sequence[Path], most: int) -> Iterator[Verdict]:
            nonlocal skipped
            for line in _last_lines(files, most):
                try:
                    yield _VERDICT.validate_json(line)
                except ValidationError:
                    skipped += 1

        try:
            kept = _files_of_all(self._folder, VERDICTS)
            read = [verdicts_of(files, MOST_EARLIER_VERDICTS // len(kept)) for files in kept]
            yield from heapq.merge(*read, key=lambda verdict: verdict.given_at)
        except OSError as error:
            _LOG.warning("verdicts_not_read", error=type(error).__name__)
        if skipped:
            _LOG.warning("verdicts_skipped", count=skipped)

    def close(self) -> None:
        """Writes what is waiting."""
        self.decisions.close()
        self.verdicts.close()


def read_decisions(path: Path) -> Iterator[DecisionRecord]:
    """The decisions of a file, or of all in a folder, oldest first; without a last line that is still being written,
    or that a crash cut off.

    Raises `OSError` or `UnreadableRecordError`.
    """
    kept = _files_of_all(path, DECISIONS) if path.is_dir() else [_with_old_files(path)]
    read = [chain.from_iterable(map(_decisions_of, files)) for files in kept or [(path / DECISIONS,)]]
    return heapq.merge(*read, key=lambda record: record.decided_at)


def _of_worker(name: str, worker: int) -> str:
    return name.replace(".", f"-{worker}.") if worker else name


def _files_of_all(folder: Path, name: str) -> list[Sequence[Path]]:
    """The files of this name, of every process that ever wrote here, each with the full ones before it."""
    stem, _, ending = name.partition(".")
    pattern = re.compile(rf"({stem}(?:-\d+)?\.{ending})(?:\.\d+)?")
    found = (pattern.fullmatch(file.name) for file in folder.glob(f"{stem}*"))
    return [_with_old_files(folder / one) for one in sorted({match[1] for match in found if match})]


def _with_old_files(current: Path) -> Sequence[Path]:
    old = old_files(current)
    return old if old and not current.exists() else (*old, current)  # just turned over


def _decisions_of(file: Path) -> Iterator[DecisionRecord]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                yield _DECISION.validate_json(line)
            except ValidationError as error:
                if not line.endswith(b"\n"):
                    return
                said = error.errors()[0]["msg"]
                raise UnreadableRecordError(f"{file}:{number} is not a decision: {said}") from error


def read_policy_record(folder: Path, version: str) -> PolicyRecord | None:
    """The kept policy of this version, None if there is none. Raises `OSError` or `UnreadableRecordError`."""
    path = folder / POLICIES / f"{version}.json"
    try:
        return _POLICY.validate_json(path.read_bytes()) if path.is_file() else None
    except ValidationError as error:
        raise UnreadableRecordError(f"{path} is not a kept policy: {error.errors()[0]['msg']}") from error


def _replace(path: Path, content: bytes) -> None:
    """Writes a file whole: who reads it meanwhile, or after a crash, finds all of the old or all of the new one."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def _last_lines(files: Sequence[Path], most: int) -> Iterator[bytes]:
    """So many of the last lines of these files, oldest first; one line at a time is held in memory."""
    read: list[tuple[Path, int]] = []
    for file in reversed(files):
        if most > 0 and file.is_file():
            count = _count_lines(file)
            read.append((file, max(0, count - most)))
            most -= count
    for file, skipped in reversed(read):
        with file.open("rb") as lines:
            yield from islice(lines, skipped, None)


def _count_lines(file: Path) -> int:
    """A last line without its end counts too."""
    lines, last = 0, b"\n"
    with file.open("rb") as content:
        while chunk := content.read(_CHUNK_BYTES):
            lines += chunk.count(b"\n")
            last = chunk[-1:]
    return lines + (last != b"\n")
