"""Makes policies out of texts, and what calls under them need: adapters, the simulator, a record for replays."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NamedTuple

from pointsman_server.bootstrap.providers import AdapterBook
from pointsman_server.config.policy_file import LoadedPolicy, compile_policy
from pointsman_server.config.preflight import policy_failures
from pointsman_server.config.problems import PolicyError
from pointsman_server.config.watched_file import SETTLE_SECONDS, UnreadableFileError, WatchedFile
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.record import PolicyRecord
from pointsman_server.execution.policies import CompiledPolicy, PolicyProblem, PolicyRefused
from pointsman_server.execution.policy_watch import FILE_AUTHOR, SHIPPED_AUTHOR, FileUnreadableError


class _Sign(NamedTuple):
    """What tells one state of a file from another: as it was taken in, as it was seen last, and since when."""

    settled: tuple[int, int, int] | None
    seen: tuple[int, int, int] | None
    since: float


class PolicyWorkshop:
    """See `Workshop`. One for the process.

    `file` is where the policy file is, or would be: texts from elsewhere find their calibration file beside it. Keys
    come from `environ`. `simulate` gives a policy whose simulated providers are at the running simulator, `keep_record`
    keeps what replays need.
    """

    def __init__(
        self,
        file: str,
        environ: Mapping[str, str],
        adapters: AdapterBook,
        *,
        simulate: Callable[[Snapshot], Awaitable[Snapshot]],
        keep_record: Callable[[PolicyRecord], None],
        today: Callable[[], date] = lambda: datetime.now(UTC).date(),
    ) -> None:
        self._file = file
        self._environ = environ
        self._adapters = adapters
        self._simulate = simulate
        self._keep_record = keep_record
        self._today = today

    async def compile(self, text: str) -> CompiledPolicy:
        """See `Workshop.compile`. In a thread: it takes some hundredths of a second."""
        return await asyncio.to_thread(self._compile, text)

    async def equip(self, policy: CompiledPolicy) -> Snapshot:
        """See `Workshop.equip`."""
        snapshot = await self._simulate(policy.snapshot)
        await asyncio.to_thread(self._get_ready, snapshot, policy.record)
        return snapshot

    async def keep_only(self, snapshots: Sequence[Snapshot]) -> None:
        """See `Workshop.keep_only`."""
        await self._adapters.keep_only(snapshots)

    def _compile(self, text: str) -> CompiledPolicy:
        try:
            loaded = compile_policy(text.encode(), self._file, self._environ, self._today())
        except UnicodeEncodeError as error:
            raise PolicyRefused([PolicyProblem(0, "the text is not UTF-8. Write it as UTF-8.")]) from error
        except PolicyError as error:
            raise PolicyRefused(problems_of(error)) from error
        return compiled(loaded)

    def _get_ready(self, snapshot: Snapshot, record: PolicyRecord) -> None:
        self._adapters.add(snapshot)
        self._keep_record(record)


class FileOnDisk:
    """See `PolicyFile`. `text` is what was read from it first; nobody `chose` a file that came with the package.

    `beside` gives the further files that a policy with this text was made of, while it is in force. A change of one of
    them is a change of the policy too.
    """

    def __init__(
        self,
        file: str,
        text: str,
        *,
        chosen: bool,
        beside: Callable[[str], Sequence[str]] = lambda text: (),
        settle_seconds: float = SETTLE_SECONDS,
    ) -> None:
        self._watched = WatchedFile(Path(file), text.encode(), settle_seconds)
        self._text = text
        self._beside = beside
        self._signs: dict[str, _Sign] = {}
        self._settle_seconds = settle_seconds
        self.author = FILE_AUTHOR if chosen else SHIPPED_AUTHOR

    async def look(self, now: float) -> str | None:
        """See `PolicyFile.look`."""
        try:
            content = await asyncio.to_thread(self._watched.look, now)
            changed = await asyncio.to_thread(self._look_beside, self._beside(self._text), now)
            if content is None:
                return self._text if changed else None
            self._text = content.decode()
            return self._text
        except UnreadableFileError as error:
            raise FileUnreadableError(f"the policy file {error}") from error
        except UnicodeDecodeError as error:
            raise FileUnreadableError("the policy file is not UTF-8 text") from error

    def _look_beside(self, files: Sequence[str], now: float) -> bool:
        """Whether one of these became another one than it was, and stayed so for a while."""
        changed = False
        for file in files:
            sign = _sign_of(file)
            known = self._signs.get(file)
            if known is None:
                self._signs[file] = _Sign(sign, sign, now)
            elif sign != known.seen:
                self._signs[file] = _Sign(known.settled, sign, now)
            elif sign != known.settled and now - known.since >= self._settle_seconds:
                self._signs[file] = _Sign(sign, sign, now)
                changed = True
        return changed

    async def changed_at(self) -> float:
        """See `PolicyFile.changed_at`."""
        return await asyncio.to_thread(self._watched.changed_at)


def knowledge_files(snapshot: Snapshot) -> tuple[str, ...]:
    """The files that the knowledge bases of a policy were read from."""
    bases = (provider.knowledge for provider in snapshot.providers.values())
    return tuple(file for base in bases if base is not None for file in base.files)


def _sign_of(file: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def compiled(loaded: LoadedPolicy) -> CompiledPolicy:
    """A loaded policy as the inner rooms know it."""
    return CompiledPolicy(
        snapshot=loaded.snapshot,
        record=loaded.record,
        failures=policy_failures(loaded),
        warnings=tuple(str(warning) for warning in loaded.warnings),
    )


def problems_of(error: PolicyError) -> list[PolicyProblem]:
    """What is wrong with a policy's text, without the name of a file: the text may not come from one."""
    return [
        PolicyProblem(one.line, f"{one.path_in_file or 'the text'} {one.message}. {one.remedy}")
        for one in error.problems
    ]
