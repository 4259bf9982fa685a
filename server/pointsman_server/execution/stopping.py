"""Kill switches: who may not call, which deployments may not be called, and which running streams end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import TypeVar

from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.control import Control, KillScope, KillSwitch
from pointsman_server.domain.errors import KillSwitchEngaged, NobodyHealthy, NoEligibleDeployment, RouterError
from pointsman_server.domain.health import HealthView
from pointsman_server.domain.plan import ExclusionReason, Rejection

T = TypeVar("T")

_NONE: Mapping[str, Rejection] = {}
_NOBODY: frozenset[str] = frozenset()


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


class StreamStops:
    """Ends running streams where the policy wants kill switches to. `changed` listens to the `ControlBook`."""

    def __init__(self) -> None:
        self._running: set[_Running] = set()

    def changed(self, before: Control, after: Control) -> None:
        """Ends the streams that a kill switch stops. Must be called on the event loop that serves them."""
        if after.kill_switches:
            for running in tuple(self._running):
                running.look(after)

    async def until_stopped(
        self,
        events: AsyncGenerator[T, None],
        control: Control,
        tenant: str,
        provider_ids: Callable[[], Collection[str]],
        kept: frozenset[str] = _NOBODY,
    ) -> AsyncGenerator[T, None]:
        """The events, until a kill switch stops the service, the tenant or one of the providers that are being asked.

        Raises `KillSwitchEngaged` then, at once although no event comes. `control` is what held when the call came in.
        Where none but providers of `kept` are asked, the stop of the service is none.
        """
        running = _Running(tenant, provider_ids, kept)
        running.look(control)
        self._running.add(running)
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


class _Running:
    """One stream. Only while it waits for its provider is its task interrupted: the reader's time is the reader's."""

    __slots__ = ("_is_interrupted", "_kept", "_passed", "_provider_ids", "_switch", "_tenant", "_waiter")

    def __init__(self, tenant: str, provider_ids: Callable[[], Collection[str]], kept: frozenset[str]) -> None:
        self._tenant = tenant
        self._provider_ids = provider_ids
        self._kept = kept
        self._passed: Control | None = None
        self._switch: KillSwitch | None = None
        self._waiter: asyncio.Task[object] | None = None
        self._is_interrupted = False

    def look(self, control: Control) -> None:
        if self._switch is not None:
            return
        is_kept = bool(self._kept) and self._kept.issuperset(self._provider_ids())
        self._passed = control if is_kept else None
        self._switch = _stop_of(control, self._tenant, is_kept=is_kept) or self._stopped_provider(control)
        if self._switch is not None and self._waiter is not None:
            self._is_interrupted = self._waiter.cancel()

    async def wait(self, events: AsyncGenerator[T, None]) -> T:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("waiting needs a task")
        if self._passed is not None:
            self.look(self._passed)  # whoever is asked by now may not be among the kept
        if self._switch is not None:
            raise KillSwitchEngaged(self._switch)
        cancelling = task.cancelling()
        self._waiter = task
        try:
            return await anext(events)
        except asyncio.CancelledError:
            # Somebody else may have cancelled the task at the same moment; that goes on as it is.
            if self._switch is not None and self._is_interrupted and task.cancelling() <= cancelling + 1:
                raise KillSwitchEngaged(self._switch) from None
            raise
        finally:
            self._waiter = None
            if self._is_interrupted:
                task.uncancel()

    def _stopped_provider(self, control: Control) -> KillSwitch | None:
        asked = self._provider_ids()
        return next(
            (one for one in control.kill_switches if one.scope is KillScope.PROVIDER and one.target in asked), None
        )
