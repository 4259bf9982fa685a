"""Follows the policy: file and database, whichever changed last. Whatever goes wrong, the policy in force stays."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from pointsman_server.domain.control import PolicyVersion, Rollout
from pointsman_server.domain.ports import Clock, ControlKeeper, StoreUnavailableError
from pointsman_server.execution.control import ControlBook
from pointsman_server.execution.policies import CompiledPolicy, PolicyKeeper, PolicyRefused, Workshop, new_failures

LOOK_SECONDS = 0.25

FILE_AUTHOR = "policy file"
SHIPPED_AUTHOR = "shipped policy"
"""Who applied what came from a file; no caller has such a name, for names have no blanks."""

_FILE_CHANGED = "the policy file changed"

_PAGE = 100

_LOG = structlog.stdlib.get_logger("pointsman.policies")


class FileUnreadableError(Exception):
    """The policy file cannot be read; the message says why, without its path."""


class PolicyFile(Protocol):
    """The policy file as it is looked at again and again."""

    @property
    def author(self) -> str:
        """FILE_AUTHOR, or SHIPPED_AUTHOR when nobody chose a file."""
        ...

    async def look(self, now: float) -> str | None:
        """The text if it changed, once for each change. Raises `FileUnreadableError`, once for each time."""
        ...

    async def changed_at(self) -> float:
        """When it was written last, in seconds since the Unix epoch; 0 if that is not known."""
        ...


@dataclass(frozen=True, slots=True)
class Shared:
    """Where several processes agree on a policy."""

    store: ControlKeeper
    book: ControlBook


class PolicyWatch:
    """open → start → close. Without `shared` the file alone is followed; without `file`, the database alone.

    `problems` are why the latest changes were not taken over, empty when the latest policy is in force.
    """

    def __init__(
        self,
        keeper: PolicyKeeper,
        workshop: Workshop,
        clock: Clock,
        *,
        file: PolicyFile | None = None,
        shared: Shared | None = None,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._keeper = keeper
        self._workshop = workshop
        self._clock = clock
        self._file = file
        self._shared = shared
        self._look_seconds = look_seconds
        self._waiting: CompiledPolicy | None = None
        self._followed = -1
        self._refused = ""
        self._refused_trial = ""
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._troubled = ""
        self._problems: dict[str, tuple[str, ...]] = {}
        if shared is not None:
            shared.book.subscribe(lambda before, after: self._woken.set())

    @property
    def problems(self) -> tuple[str, ...]:
        """Everything that stands against the latest changes."""
        return tuple(problem for problems in self._problems.values() for problem in problems)

    async def open(self) -> None:
        """Puts in force what was applied last, in the database or by a file that changed since.

        A new database gets the file's policy. Raises `StoreUnavailableError`.
        """
        if self._shared is not None:
            await self._settle(self._shared)
        await self._keeper.open()

    def start(self) -> None:
        """Looks for changes from now on, in the background."""
        self._task = asyncio.create_task(self._keep_looking(), name="policy-watch")

    async def close(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def look(self) -> None:
        """Takes over what changed. Raises nothing that a policy, a file or a store can cause."""
        async with self._keeper.changing:
            await self._look_at_file()
            if self._shared is not None:
                await self._look_at_store(self._shared)
            await self._keeper.tidy_up()

    async def _keep_looking(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._look_seconds):
                    await self._woken.wait()
            self._woken.clear()
            try:
                await self.look()
                self._troubled = ""
            except Exception as error:
                # Whatever it is: if looking ended here, no policy would reach this process any more.
                if self._troubled != type(error).__name__:
                    self._troubled = type(error).__name__
                    _LOG.error("policy_watch_failed", error=self._troubled)

    # The file.

    async def _look_at_file(self) -> None:
        if self._file is None:
            return
        try:
            text = await self._file.look(self._clock.monotonic())
        except FileUnreadableError as error:
            self._tell("file", "", (str(error),))
            return
        if text is not None:
            self._waiting = await self._compile(text, "file")
        if self._waiting is not None:
            # While the store is away it waits; the book tells of that.
            with suppress(StoreUnavailableError):
                await self._take_from_file(self._waiting, self._file.author)
                self._waiting = None

    async def _take_from_file(self, policy: CompiledPolicy, author: str) -> None:
        version = policy.snapshot.version
        if self._shared is not None:
            shared, last = self._shared, await _last_from_file(self._shared.store)
            # If another process was first, what came after it is newer than this file.
            if last is None or last.version != version:
                await shared.store.apply_policy(version, policy.record.text, author, _FILE_CHANGED)
                await shared.book.refresh()
            is_wanted = shared.book.current.policy_version == version
        else:
            is_wanted = True
        if not is_wanted:
            _tell_of_newer(version, self._keeper.applied_version)
        if is_wanted and self._keeper.applied_version != version:
            await self._keeper.adopt(policy, version)
        self._forget("file")

    # The database.

    async def _look_at_store(self, shared: Shared) -> None:
        control = shared.book.current
        if control.revision == self._followed:
            return
        # While the store is away, the next look asks again; the book tells of that.
        with suppress(StoreUnavailableError):
            await self._follow(control.policy_version, shared.store)
            await self._follow_rollout(control.rollout, shared.store)
            self._followed = control.revision

    async def _follow(self, version: str, store: ControlKeeper) -> None:
        if version in ("", self._keeper.applied_version, self._refused):
            return
        policy = await self._kept(version, store, "database")
        if policy is None:
            self._refused = version
            return
        await self._keeper.adopt(policy, version)
        self._refused = ""
        self._forget("file", "database")

    async def _follow_rollout(self, wanted: Rollout | None, store: ControlKeeper) -> None:
        runs = self._keeper.rollout
        if wanted is not None and wanted.version == self._refused_trial:
            return
        self._refused_trial = ""
        self._forget("rollout")
        if wanted == runs:
            return
        if wanted is None:
            await self._keeper.end_trial()
        elif runs is not None and runs.version == wanted.version:
            await self._keeper.resize(wanted)
        else:
            await self._begin_trial(wanted, store)

    async def _begin_trial(self, wanted: Rollout, store: ControlKeeper) -> None:
        policy = await self._kept(wanted.version, store, "rollout")
        if policy is not None:
            await self._keeper.try_out(policy, wanted)
            return
        self._refused_trial = wanted.version
        # No call may get a trial that ended everywhere else.
        await self._keeper.end_trial()

    async def _kept(self, version: str, store: ControlKeeper, source: str) -> CompiledPolicy | None:
        kept = await store.policy(version)
        if kept is None:
            self._tell(source, version, (f"version {version} is not kept in the database",))
            return None
        return await self._compile(kept.yaml, source, version)

    async def _compile(self, text: str, source: str, version: str = "") -> CompiledPolicy | None:
        """The policy, or None and an event with everything that stands against it."""
        try:
            policy = await self._workshop.compile(text)
        except PolicyRefused as error:
            self._tell(source, version, tuple(map(str, error.problems)))
            return None
        new = new_failures(policy, self._keeper.policy)
        if new:
            self._tell(source, policy.snapshot.version, new)
            return None
        for warning in policy.warnings:
            _LOG.warning("policy_warning", message=warning)
        return policy

    def _forget(self, *sources: str) -> None:
        for source in sources:
            self._problems.pop(source, None)

    def _tell(self, source: str, version: str, problems: tuple[str, ...]) -> None:
        self._problems[source] = problems
        _LOG.error(
            "policy_not_reloaded",
            source=source,
            policy_version=version,
            in_force=self._keeper.current.version,
            problems=list(problems),
        )

    # The start.

    async def _settle(self, shared: Shared) -> None:
        applied, ours = shared.book.current.policy_version, self._keeper.policy
        version = ours.snapshot.version
        if applied == version:
            return
        if self._file is not None and (not applied or await self._is_newer(self._file, version, shared.store)):
            comment = _FILE_CHANGED if applied else "the first start"
            await shared.store.apply_policy(version, ours.record.text, self._file.author, comment)
            await shared.book.refresh()
            return
        if self._file is not None and self._file.author == FILE_AUTHOR:
            _tell_of_newer(version, applied)
        await self._begin_with(applied, shared.store)

    async def _begin_with(self, version: str, store: ControlKeeper) -> None:
        policy = await self._kept(version, store, "database")
        if policy is None:
            self._refused = version
        else:
            self._keeper.begin_with(policy, version)

    async def _is_newer(self, file: PolicyFile, version: str, store: ControlKeeper) -> bool:
        """Whether the file holds something that was put there after what is in force was applied."""
        if file.author == SHIPPED_AUTHOR:
            # Nobody chose it, so it gives way to whatever anybody chose.
            in_force = await store.policies(limit=1)
            return bool(in_force) and in_force[0].author == SHIPPED_AUTHOR
        last = await _last_from_file(store)
        if last is None or not await _came_from_file(version, store):
            return True
        # An earlier state of the file: put back since, or left behind on a machine that others have overtaken.
        return last.version != version and await file.changed_at() > last.applied_at


def _tell_of_newer(version: str, in_force: str) -> None:
    _LOG.warning(
        "policy_file_not_applied",
        policy_version=version,
        in_force=in_force,
        message="another policy was applied after the one in the file",
        remedy="pointsman policy apply FILE",
    )


async def _last_from_file(store: ControlKeeper) -> PolicyVersion | None:
    """The latest application that came from a file which somebody chose."""
    return await _find_from_file(store, "")


async def _came_from_file(version: str, store: ControlKeeper) -> bool:
    return await _find_from_file(store, version) is not None


async def _find_from_file(store: ControlKeeper, version: str) -> PolicyVersion | None:
    before: float | None = None
    while page := await store.policies(limit=_PAGE, before=before):
        for one in page:
            if one.author == FILE_AUTHOR and version in ("", one.version):
                return one
        before = page[-1].applied_at
    return None
