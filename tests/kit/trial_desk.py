"""Trials of policies as the command line begins and ends them, on the store, and this process knowing at once."""

from __future__ import annotations

from pointsman_server.domain.control import Rollout, RolloutKind
from pointsman_server.domain.ports import ControlKeeper
from pointsman_server.execution.control import ControlBook
from pointsman_server.execution.policies import PolicyKeeper, Workshop
from pointsman_server.execution.policy_desk import PolicyDesk


class TrialDesk(PolicyDesk):
    """A desk whose operator has the command line at hand as well."""

    def __init__(self, keeper: PolicyKeeper, workshop: Workshop, store: ControlKeeper, book: ControlBook) -> None:
        super().__init__(keeper, workshop, store, book)
        self._parts = keeper, workshop, store, book

    async def keep(self, text: str) -> str:
        """Keeps a policy, so that it can be tried; gives its version."""
        _, workshop, store, _ = self._parts
        version = (await workshop.compile(text)).snapshot.version
        await store.keep_policy(version, text)
        return version

    async def try_out(self, version: str, kind: RolloutKind, percent: int, actor: str, comment: str) -> None:
        """Begins a trial, or changes its share."""
        await self._set(Rollout(version, kind, percent), actor, comment)

    async def promote(self, actor: str, comment: str) -> None:
        """Puts the policy that is being tried in force for all calls."""
        rollout = self._parts[3].current.rollout
        assert rollout is not None
        await self.roll_back(rollout.version, actor, comment)
        await self.stop(actor, comment)

    async def stop(self, actor: str, comment: str) -> None:
        """Ends the trial."""
        keeper = self._parts[0]
        await self._set(None, actor, comment)
        await keeper.end_trial()

    async def _set(self, rollout: Rollout | None, actor: str, comment: str) -> None:
        _, _, store, book = self._parts
        await store.set_rollout(rollout, actor, comment)
        await book.refresh()
