"""Runs scenarios: plays the upstreams, drives the callers, reads the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from wall.asks import Ask
from wall.log import Hit, WallLog
from wall.plays import Play, sound
from wall.scenario import PRIMARY, ROLES, Evidence, Result, Scenario, Setting, Stage
from wall.scenarios.judging import always
from wall.targets.target import Ability, Target
from wall.upstream import Plan, Upstream

_QUIET_SECONDS = 1.0
_SETTLING_ID = "settling"
_SETTLING_SECONDS = 90.0
_SETTLED_HITS = 3
_TOLD_CHARACTERS = 200

Site = Mapping[str, Upstream]
"""The upstreams by role."""


@asynccontextmanager
async def running_site(ports: Mapping[str, int] | None = None) -> AsyncGenerator[dict[str, Upstream], None]:
    """The upstreams, at these ports or at free ones. Raises `OSError` when one is taken."""
    site = {role: Upstream(role, (ports or {}).get(role, 0)) for role in ROLES}
    try:
        for upstream in site.values():
            await upstream.open()
        yield site
    finally:
        for upstream in site.values():
            upstream.close()


async def run_scenario(scenario: Scenario, stage: Stage, setting: Setting, site: Site, target: Target) -> Result:
    """The scenario from its beginning to its judgement."""
    if not scenario.needs <= target.abilities:
        lacking = "; ".join(sorted(need.value for need in scenario.needs - target.abilities))
        return Result(scenario, (), 0.0, note=f"needs a target that {lacking}")
    started_at = time.monotonic()
    log = WallLog()
    pulse = asyncio.ensure_future(log.feel_machine())
    unsettled = 0
    for asks in _in_turn(stage, target):
        if Ability.LANES not in target.abilities:
            unsettled += not await _settle(site, target)
        await _play(scenario, stage, asks, site, target, log)
    pulse.cancel()
    evidence = Evidence(setting, stage, log)
    found = [*scenario.judge(evidence), *always(evidence)]
    findings = [(finding, finding.verdict(target.abilities)) for finding in found]
    times = "1 time" if unsettled == 1 else f"{unsettled} times"
    note = f"the gateway did not ask the primary again before it ({times})" if unsettled else ""
    return Result(scenario, findings, time.monotonic() - started_at, log, note)


def _in_turn(stage: Stage, target: Target) -> list[Sequence[Ask]]:
    if Ability.LANES in target.abilities:
        return [stage.asks]
    return [[ask for ask in stage.asks if ask.lane == lane] for lane in stage.lanes]


async def _play(
    scenario: Scenario, stage: Stage, asks: Sequence[Ask], site: Site, target: Target, log: WallLog
) -> None:
    if not log.outcomes:
        log.begin()
    began_at = log.now()
    for role, upstream in site.items():
        await upstream.play(stage.plans.get(role, _absent()), scenario.id, log)
    asks = [replace(ask, at_seconds=began_at + ask.at_seconds) for ask in asks if _possible(ask, target)]

    async def make(ask: Ask) -> None:
        log.outcomes.append(await target.ask(ask, scenario.id, log))

    await (_open_loop(asks, make, log) if stage.callers is None else _closed_loop(asks, make, stage.callers))
    await asyncio.sleep(stage.settle_seconds)
    await _until_quiet(log)
    for upstream in site.values():
        await upstream.rest()


def _possible(ask: Ask, target: Target) -> bool:
    return Ability.ALONE in target.abilities or not ask.alone


def _absent() -> Plan:
    return Plan(lambda hit: Play("absent", 503, {"content-type": "application/json"}))


async def _open_loop(asks: Sequence[Ask], make: Callable[[Ask], Awaitable[None]], log: WallLog) -> None:
    async def at_its_time(ask: Ask) -> None:
        await asyncio.sleep(max(0.0, ask.at_seconds - log.now()))
        await make(ask)

    await asyncio.gather(*(at_its_time(ask) for ask in asks))


async def _closed_loop(asks: Sequence[Ask], make: Callable[[Ask], Awaitable[None]], callers: int) -> None:
    waiting = iter(asks)

    async def one_after_the_other() -> None:
        for ask in waiting:
            await make(ask)

    await asyncio.gather(*(one_after_the_other() for _ in range(callers)))


async def _until_quiet(log: WallLog) -> None:
    """Gives the gateway time to let go of what nobody waits for; the log tells how long it took."""
    for _ in range(int(_QUIET_SECONDS / 0.02)):
        if not any(hit.is_open for hit in log.hits):
            return
        await asyncio.sleep(0.02)


async def expect_an_answer(site: Site, target: Target) -> None:
    """One whole call and one stream with both upstreams sound.

    Raises `RuntimeError` with what came instead when one is not served: nothing could be judged then.
    """
    async with _all_sound(site) as log:
        for stream in (False, True):
            outcome = await target.ask(Ask(int(stream), stream=stream), _SETTLING_ID, log)
            if not outcome.served:
                shape = "streamed" if stream else "whole"
                told = f"{'/'.join(sorted(outcome.codes))} {outcome.reason} {outcome.error_text[:_TOLD_CHARACTERS]}"
                reached = f"{len(log.hits)} requests reached an upstream"
                raise RuntimeError(
                    f"the gateway does not serve a {shape} call with both upstreams well: {told}; {reached}"
                )


@asynccontextmanager
async def _all_sound(site: Site) -> AsyncGenerator[WallLog, None]:
    log, plan = WallLog(), Plan(_sound_hit)
    for upstream in site.values():
        await upstream.play(plan, _SETTLING_ID, log)
    try:
        yield log
    finally:
        for upstream in site.values():
            await upstream.rest()


async def _settle(site: Site, target: Target) -> bool:
    """Waits until the gateway asks the primary again: what an earlier scenario did must not be seen in the next.

    False when it does not within the time.
    """
    async with _all_sound(site) as log:
        await _ask_until_settled(log, target)
    return _is_settled(log)


async def _ask_until_settled(log: WallLog, target: Target) -> None:
    number = 0
    while log.now() < _SETTLING_SECONDS and not _is_settled(log):
        await target.ask(Ask(number, deadline_seconds=5.0), _SETTLING_ID, log)
        number += 1
        await asyncio.sleep(0.05 if _is_settled(log) or number < _SETTLED_HITS else 0.5)


def _is_settled(log: WallLog) -> bool:
    last = [hit.upstream for hit in log.hits[-_SETTLED_HITS:]]
    return last == [PRIMARY] * _SETTLED_HITS


def _sound_hit(hit: Hit) -> Play:
    return sound("Well.", ["Well."] if hit.stream else None)
