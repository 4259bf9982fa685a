"""A second deployment beside a slow first: whoever has content first answers, the other is hung up on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from pointsman_server.domain.catalog import Deployment
from pointsman_server.domain.ports import Telemetry
from pointsman_server.domain.resilience import HedgePolicy
from pointsman_server.execution.health import HealthBoard

Racer = Callable[[], Awaitable[bool]]
"""Runs an attempt until it has content (True) or failed (False)."""


def hedge_delay_seconds(policy: HedgePolicy, health: HealthBoard, deployment: Deployment) -> float | None:
    """How long this deployment may be silent before another is asked as well; None when it is never hedged.

    That is the time within which the policy's share of its answers began, as observed.
    """
    if policy.quantile is None or health.answers(deployment.id) < policy.least_answers:
        return None
    return health.first_token_quantile_seconds(deployment.id, policy.quantile)


async def race(
    lead: Racer, delay_seconds: float, next_racer: Callable[[], Awaitable[Racer | None]], telemetry: Telemetry
) -> bool:
    """Runs `lead`, and after the delay what `next_racer` gives beside it; True as soon as one has content.

    The other one's task is cancelled and awaited; to end its attempt is the caller's part. False when all failed.
    """
    first = asyncio.ensure_future(lead())
    running = {first}
    hedge: asyncio.Future[bool] | None = None
    try:
        await asyncio.wait(running, timeout=delay_seconds)
        racer = None if first.done() else await next_racer()
        if racer is not None:
            hedge = asyncio.ensure_future(racer())
            running.add(hedge)
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            if any(map(_has_content, done)):
                return True
            for task in done:
                task.result()
        return False
    finally:
        for task in running:
            task.cancel()
        try:
            await asyncio.gather(first, *([hedge] if hedge else []), return_exceptions=True)
        finally:
            if hedge is not None:
                telemetry.hedged(won=_has_content(hedge) and not _has_content(first))


def _has_content(task: asyncio.Future[bool]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None and task.result()
