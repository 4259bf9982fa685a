"""The policy in force in this process: one reference that a call reads once, and that changes while calls run."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from pointsman_server.decision.rollout import in_canary
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.control import Rollout, RolloutKind
from pointsman_server.domain.record import PolicyRecord

_LOG = structlog.stdlib.get_logger("pointsman.policies")


@dataclass(frozen=True, slots=True)
class PolicyProblem:
    """One thing wrong in a policy. `line` counts from 1, 0 when no line applies; `told` names place and remedy."""

    line: int
    told: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.told}" if self.line else self.told


class PolicyRefused(Exception):
    """A policy cannot be put in force; the message has everything that is wrong with it."""

    def __init__(self, problems: Sequence[PolicyProblem]) -> None:
        super().__init__("; ".join(map(str, problems)))
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class CompiledPolicy:
    """A policy that could be put in force.

    `record` is what has to be kept to compile it to the same again. `failures` are the checks without the network that
    it does not pass here, by their names.
    """

    snapshot: Snapshot
    record: PolicyRecord
    failures: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


class Workshop(Protocol):
    """Turns texts into policies, and gets ready what calls under them need."""

    async def compile(self, text: str) -> CompiledPolicy:
        """The policy with this text. Raises `PolicyRefused`."""
        ...

    async def equip(self, policy: CompiledPolicy) -> Snapshot:
        """Makes everything that calls under this policy need; what earlier ones need stays. Gives what they get."""
        ...

    async def keep_only(self, snapshots: Sequence[Snapshot]) -> None:
        """Gives up what none of these needs."""
        ...


@dataclass(frozen=True, slots=True)
class _InForce:
    """What calls see; replaced as a whole. `trial` is the policy that `rollout` names, once it is ready here."""

    policy: CompiledPolicy
    snapshot: Snapshot
    applied_version: str
    rollout: Rollout | None = None
    trial: Snapshot | None = None


class PolicyKeeper:
    """Holds the policy in force and the one that is tried. `current` and `choose` cost nothing and never wait.

    `applied_version` is under which version the text in force was applied. It differs from the snapshot's own where
    prices or the calibration file have changed since: those are part of a policy's meaning. Who changes something here
    holds `changing`, from the moment when it looked what there is.
    """

    def __init__(self, policy: CompiledPolicy, workshop: Workshop) -> None:
        self._workshop = workshop
        self._in_force = _InForce(policy, policy.snapshot, policy.snapshot.version)
        self._handed_out: list[weakref.ref[Snapshot]] = []
        self.changing = asyncio.Lock()
        self._listeners: list[Callable[[Snapshot], None]] = []

    @property
    def current(self) -> Snapshot:
        """The policy in force. A call takes it once and keeps it to its end."""
        return self._in_force.snapshot

    @property
    def policy(self) -> CompiledPolicy:
        """The policy in force with its text."""
        return self._in_force.policy

    @property
    def applied_version(self) -> str:
        """Under which version the policy in force was applied."""
        return self._in_force.applied_version

    @property
    def rollout(self) -> Rollout | None:
        """The trial that runs here; None until its policy is ready."""
        return self._in_force.rollout

    @property
    def shadow(self) -> Snapshot | None:
        """The policy that decides beside the one in force, without effect."""
        in_force = self._in_force
        is_shadow = in_force.rollout is not None and in_force.rollout.kind is RolloutKind.SHADOW
        return in_force.trial if is_shadow else None

    @property
    def canary(self) -> Snapshot | None:
        """The policy that a share of the calls gets."""
        in_force = self._in_force
        is_canary = in_force.rollout is not None and in_force.rollout.kind is RolloutKind.CANARY
        return in_force.trial if is_canary else None

    def choose(self, tenant: str, key: str, made_under: str = "") -> Snapshot:
        """The policy for one call: the canary's for its share of the keys, else the one in force.

        `key` is the call's session, or its request id where it has none: the same key gets the same policy. A call
        that follows a decision gets the policy that the decision was `made_under`, as long as it is there.
        """
        in_force = self._in_force
        rollout, trial = in_force.rollout, in_force.trial
        if rollout is None or trial is None or rollout.kind is not RolloutKind.CANARY:
            return in_force.snapshot
        if made_under in (trial.version, in_force.snapshot.version):
            return trial if made_under == trial.version else in_force.snapshot
        return trial if in_canary(rollout, tenant, key) else in_force.snapshot

    def subscribe(self, listener: Callable[[Snapshot], None]) -> None:
        """Tells it every policy that comes into force from now on."""
        self._listeners.append(listener)

    def begin_with(self, policy: CompiledPolicy, applied_version: str) -> None:
        """Another first policy, before `open`."""
        self._in_force = _InForce(policy, policy.snapshot, applied_version)

    async def open(self) -> None:
        """Gets ready what the first policy needs; before that no call can be served."""
        await self._put_in_force(self._in_force.policy, self._in_force.applied_version)

    async def adopt(self, policy: CompiledPolicy, applied_version: str) -> None:
        """Puts a policy in force for the calls that come; those that run keep theirs."""
        before = self.current
        await self._put_in_force(policy, applied_version)
        _LOG.info(
            "policy_in_force",
            policy_version=self.current.version,
            replaced=before.version,
            deployments=len(self.current.deployments),
        )
        if self.current.version != applied_version:
            _LOG.warning("policy_version_differs", policy_version=self.current.version, applied=applied_version)
        await self.tidy_up()

    async def try_out(self, policy: CompiledPolicy, rollout: Rollout) -> None:
        """Tries a policy beside the one in force."""
        snapshot = await self._equip(policy)
        self._in_force = _with_trial(self._in_force, rollout, snapshot)
        _LOG.info("rollout_runs", policy_version=rollout.version, kind=rollout.kind.value, percent=rollout.percent)

    async def resize(self, rollout: Rollout) -> None:
        """Changes the kind or the share of the trial that runs."""
        self._in_force = _with_trial(self._in_force, rollout, self._in_force.trial)
        _LOG.info("rollout_runs", policy_version=rollout.version, kind=rollout.kind.value, percent=rollout.percent)

    async def end_trial(self) -> None:
        """Tries nothing any more."""
        ended = self._in_force.rollout
        self._in_force = _with_trial(self._in_force, None, None)
        if ended is not None:
            _LOG.info("rollout_ended", policy_version=ended.version, kind=ended.kind.value)
        await self.tidy_up()

    async def tidy_up(self) -> None:
        """Gives up what only policies needed under which no call runs any more."""
        alive = [(ref, snapshot) for ref in self._handed_out if (snapshot := ref()) is not None]
        if len(alive) == len(self._handed_out):
            return
        self._handed_out = [ref for ref, _ in alive]
        await self._workshop.keep_only([snapshot for _, snapshot in alive])

    async def _put_in_force(self, policy: CompiledPolicy, applied_version: str) -> None:
        snapshot = await self._equip(policy)
        self._in_force = _InForce(policy, snapshot, applied_version, self._in_force.rollout, self._in_force.trial)
        for listener in self._listeners:
            listener(snapshot)

    async def _equip(self, policy: CompiledPolicy) -> Snapshot:
        snapshot = await self._workshop.equip(policy)
        # Weak: that a call still holds it is what keeps it alive, whatever else the call is doing.
        self._handed_out.append(weakref.ref(snapshot))
        return snapshot


def new_failures(policy: CompiledPolicy, in_force: CompiledPolicy) -> tuple[str, ...]:
    """What would not work any more, as far as it can be told without the network."""
    return tuple(told for name, told in policy.failures.items() if name not in in_force.failures)


def _with_trial(in_force: _InForce, rollout: Rollout | None, trial: Snapshot | None) -> _InForce:
    return _InForce(in_force.policy, in_force.snapshot, in_force.applied_version, rollout, trial)
