"""What operators do with policies: look, apply, go back. Every change is recorded with who made it."""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from pointsman_server.domain.control import PolicyVersion
from pointsman_server.domain.errors import FieldProblem, InvalidRequest
from pointsman_server.domain.ports import ControlKeeper
from pointsman_server.execution.control import ControlBook
from pointsman_server.execution.policies import (
    CompiledPolicy,
    PolicyKeeper,
    PolicyProblem,
    PolicyRefused,
    Workshop,
    new_failures,
)

_MOST_PROBLEMS, _MOST_CHARACTERS = 15, 2_500


@dataclass(frozen=True, slots=True)
class Applied:
    """The version in force after an application, and what it changed as a unified diff, "" for nothing."""

    version: str
    diff: str


class PolicyDesk:
    """Changes the policy of all processes that share the store; this one has it when a method returns.

    Every method raises `StoreUnavailableError`; those that take a policy or name one raise `InvalidRequest` with every
    problem.
    """

    def __init__(self, keeper: PolicyKeeper, workshop: Workshop, store: ControlKeeper, book: ControlBook) -> None:
        self._keeper = keeper
        self._workshop = workshop
        self._store = store
        self._book = book

    async def version(self, version: str = "") -> PolicyVersion:
        """A policy that was applied or kept; "" is the one in force."""
        found = await self._store.policy(version or self._in_force)
        if found is None:
            raise _unknown(version)
        return found

    async def versions(self, limit: int, before: float | None = None) -> Sequence[PolicyVersion]:
        """Applications, newest first, without texts; `before` is the `applied_at` of the last one seen."""
        return await self._store.policies(limit, before)

    async def apply(self, text: str, author: str, comment: str, *, check_only: bool = False) -> Applied:
        """Puts the policy with this text in force, or only says what that would change."""
        async with self._keeper.changing:
            policy = await self._checked(text)
            version = policy.snapshot.version
            diff = await self._diff_to(version, text)
            if check_only or version == self._in_force:
                return Applied(self._in_force, diff)
            await self._put_in_force(policy, version, author, comment)
            return Applied(version, diff)

    async def roll_back(self, version: str, author: str, comment: str) -> str:
        """Puts an earlier policy in force again; gives its version."""
        async with self._keeper.changing:
            await self._return_to(version, author, comment)
            return version

    @property
    def _in_force(self) -> str:
        return self._book.current.policy_version or self._keeper.applied_version

    async def _return_to(self, version: str, author: str, comment: str) -> None:
        kept = await self._store.policy(version)
        if kept is None:
            raise _unknown(version)
        if version != self._in_force:
            await self._put_in_force(await self._checked(kept.yaml, "version"), version, author, comment)

    async def _put_in_force(self, policy: CompiledPolicy, version: str, author: str, comment: str) -> None:
        await self._store.apply_policy(version, policy.record.text, author, comment)
        await self._book.refresh()
        await self._keeper.adopt(policy, version)

    async def _checked(self, text: str, field: str = "yaml") -> CompiledPolicy:
        try:
            policy = await self._workshop.compile(text)
        except PolicyRefused as error:
            raise _refused(field, error.problems) from error
        failures = new_failures(policy, self._keeper.policy)
        if failures:
            raise _refused(field, [PolicyProblem(0, told) for told in failures])
        return policy

    async def _diff_to(self, version: str, text: str) -> str:
        in_force = self._in_force
        if version == in_force:
            return ""
        kept = await self._store.policy(in_force)
        return await asyncio.to_thread(unified_diff, kept.yaml if kept else "", text, in_force, version)


def unified_diff(before: str, after: str, before_name: str, after_name: str) -> str:
    """What changed between two texts, in the form of `diff -u`; "" when nothing did."""
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"policy {before_name}", f"policy {after_name}", lineterm=""
    )
    return "".join(f"{line}\n" for line in lines)


def _refused(field: str, problems: Sequence[PolicyProblem]) -> InvalidRequest:
    """As many problems as an error can carry: gRPC sends it in headers, which are short."""
    told: list[str] = []
    for problem in map(str, problems):
        if len(told) == _MOST_PROBLEMS or sum(map(len, told)) + len(problem) > _MOST_CHARACTERS:
            break
        told.append(problem)
    if len(told) < len(problems):
        told.append(f"{len(problems) - len(told)} more problems; `pointsman preflight` tells all")
    return InvalidRequest(tuple(FieldProblem(field, one) for one in told))


def _unknown(version: str) -> InvalidRequest:
    told = "names no policy that is kept here; ListPolicyVersions lists those that were applied"
    if not version:
        told = "is empty, and no policy was applied yet; apply one, or name a version"
    return InvalidRequest((FieldProblem("version", told),))
