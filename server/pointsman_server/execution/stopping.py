"""Kill switches and keys that end: who may not call, which deployments may not be called, which streams end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import NamedTuple, TypeVar

from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.control import Control, Key, KillScope, KillSwitch
from pointsman_server.domain.errors import (
    KillSwitchEngaged,
    NobodyHealthy,
    NoEligibleDeployment,
    RouterError,
    Unauthenticated,
)
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.plan import ExclusionReason, Rejection

T = TypeVar("T")

_NONE: Mapping[str, Rejection] = {}
_NOBODY: frozenset[str] = frozenset()

_REVOKED, _EXPIRED = "revoked_key", "expired_key"
"""Why a stream ended, for our log."""

_LONGEST_STREAM_SECONDS = 86_400.0
"""No stream lives so long; a key that lasts longer needs no timer."""


def require_running(control: Control, tenant: str, snapshot: Snapshot | None = None) -> None:
    """Raises `KillSwitchEngaged` when the service or this tenant is stopped.

    A policy may let its knowledge bases answer although the service is stopped; the tenant's own switch stops all.
    """
    if not control.kill_switches:
        return
    switch = _stop_of(control, tenant, is_kept=snapshot is not None and bool(kept_providers(snapshot)))
    if switch is not None:
        raise KillSwitchEngaged(switch)


def kept_providers(snapshot: Snapshot) -> frozenset[str]:
    """Ids of the providers that answer although the service is stopped."""
    if not snapshot.governance.kill_switch_keeps_local:
        return _NOBODY
    return frozenset(one.provider.id for one in snapshot.deployments.values() if one.is_last_resort)


def _stop_of(control: Control, tenant: str, *, is_kept: bool) -> KillSwitch | None:
    switch = control.stopped_by(tenant)
    if is_kept and switch is not None and switch.scope is KillScope.GLOBAL:
        return replace(control, kill_switches=control.kill_switches - {switch}).stopped_by(tenant)
    return switch


def stopped_deployments(control: Control, snapshot: Snapshot) -> Mapping[str, Rejection]:
    """The policy's deployments that are stopped, by id, as the decision takes them in.

    While the service is stopped and calls get this far, these are all but the knowledge bases.
    """
    if not control.kill_switches:
        return _NONE
    stopped = control.stopped_providers
    kept = kept_providers(snapshot) if control.is_service_stopped else _NOBODY
    if not stopped and not kept:
        return _NONE
    return {
        deployment.id: stopped_rejection(deployment.id)
        for deployment in snapshot.deployments.values()
        if deployment.provider.id in stopped or (kept and deployment.provider.id not in kept)
    }


def is_stopped(control: Control, provider_id: str) -> bool:
    """Whether this provider must not be called; for attempts, which may begin long after the decision."""
    return bool(control.kill_switches) and provider_id in control.stopped_providers


def stopped_rejection(deployment_id: str) -> Rejection:
    """Why a deployment of a stopped provider is left out."""
    return Rejection(deployment_id, ExclusionReason.KILL_SWITCH, "an operator has stopped its provider")


def nobody_left(rejections: tuple[Rejection, ...], health: HealthView) -> RouterError:
    """Why none of these can be called: operators stopped them all, or some will be back by themselves."""
    if rejections and all(one.reason is ExclusionReason.KILL_SWITCH for one in rejections):
        return NoEligibleDeployment(rejections)
    return NobodyHealthy(rejections, health.retry_after_seconds(one.deployment_id for one in rejections))


class Heeded(NamedTuple):
    """What of kill switches a stream heeds: those of its tenant and of the providers that are being asked.

    Where none but providers of `kept` are asked, the stop of the service is none.
    """

    tenant: str
    provider_ids: Callable[[], Collection[str]]
    kept: frozenset[str] = _NOBODY


class StreamStops:
    """Ends running streams: of keys that end, and where the policy wants that, those that kill switches stop.

    `changed` listens to the `ControlBook`; `now` gives seconds since the Unix epoch.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._running: set[_Running] = set()
        self._indexed: Mapping[bytes, Key] = {}
        self._by_id: Mapping[str, Key] = {}

    def key_of(self, caller: str, control: Control) -> Key | None:
        """The API key that this caller is, None for anybody else."""
        if control.keys is not self._indexed:
            self._indexed, self._by_id = control.keys, {key.id: key for key in control.keys.values()}
        return self._by_id.get(caller)

    def changed(self, before: Control, after: Control) -> None:
        """Ends the streams that this change stops. Must be called on the event loop that serves them."""
        for running in tuple(self._running):
            self._look(running, after)

    async def until_stopped(
        self, events: AsyncGenerator[T, None], control: Control, heeded: Heeded | None, key: Key | None = None
    ) -> AsyncGenerator[T, None]:
        """The events, until a kill switch that is `heeded` stops them, or the key that they were asked for with ends.

        Raises `KillSwitchEngaged` or `Unauthenticated` then, at once although no event comes. `control` is what held
        when the call came in.
        """
        running = _Running(heeded, key)
        self._look(running, control)
        self._running.add(running)
        end = self._at_expiry(running)
        try:
            async with aclosing(events):
                while True:
                    try:
                        event = await running.wait(events)
                    except StopAsyncIteration:
                        return
                    yield event
        finally:
            self._running.discard(running)
            if end is not None:
                end.cancel()

    def _look(self, running: _Running, control: Control) -> None:
        running.look(control)
        if running.key is None:
            return
        key = self.key_of(running.key.id, control)
        if key is None or not key.is_valid(self._now()):
            running.end(Unauthenticated(_EXPIRED if key is not None and key.revoked_at is None else _REVOKED))

    def _at_expiry(self, running: _Running) -> asyncio.TimerHandle | None:
        if running.key is None or running.key.expires_at is None:
            return None
        left_seconds = running.key.expires_at - self._now()
        if left_seconds > _LONGEST_STREAM_SECONDS:
            return None
        return asyncio.get_running_loop().call_later(left_seconds, running.end, Unauthenticated(_EXPIRED))


class _Running:
    """One stream. Only while it waits for its provider is its task interrupted: the reader's time is the reader's."""

    __slots__ = ("_error", "_heeded", "_is_interrupted", "_passed", "_waiter", "key")

    def __init__(self, heeded: Heeded | None, key: Key | None) -> None:
        self.key = key
        self._heeded = heeded
        self._passed: Control | None = None
        self._error: RouterError | None = None
        self._waiter: asyncio.Task[object] | None = None
        self._is_interrupted = False

    def look(self, control: Control) -> None:
        """Ends it if a kill switch wants that."""
        heeded = self._heeded
        if heeded is None or not control.kill_switches:
            return
        is_kept = bool(heeded.kept) and heeded.kept.issuperset(heeded.provider_ids())
        self._passed = control if is_kept else None
        switch = _stop_of(control, heeded.tenant, is_kept=is_kept) or _stopped_provider(control, heeded)
        if switch is not None:
            self.end(KillSwitchEngaged(switch))

    def end(self, error: RouterError) -> None:
        """Ends it with this error; the first one counts."""
        if self._error is not None:
            return
        self._error = error
        if self._waiter is not None:
            self._is_interrupted = self._waiter.cancel()

    async def wait(self, events: AsyncGenerator[T, None]) -> T:
        """The next event."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("waiting needs a task")
        if self._passed is not None:
            self.look(self._passed)  # whoever is asked by now may not be among the kept
        if self._error is not None:
            raise self._error
        cancelling = task.cancelling()
        self._waiter = task
        try:
            return await anext(events)
        except asyncio.CancelledError:
            # Somebody else may have cancelled the task at the same moment; that goes on as it is.
            if self._error is not None and self._is_interrupted and task.cancelling() <= cancelling + 1:
                raise self._error from None
            raise
        finally:
            self._waiter = None
            if self._is_interrupted:
                task.uncancel()


def _stopped_provider(control: Control, heeded: Heeded) -> KillSwitch | None:
    asked = heeded.provider_ids()
    return next((one for one in control.kill_switches if one.scope is KillScope.PROVIDER and one.target in asked), None)
