"""The fault wall against a pointsman in the test's process."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

from wall.policy import make_policy
from wall.running import run_scenario, running_site
from wall.scenario import Result, Scenario, Setting
from wall.targets.pointsman import Pointsman

from kit.running import load_for_test, running_service
from pointsman_server.config.settings import Settings

MOST_CALLS = 256


async def run_on_wall(scenario: Scenario, setting: Setting) -> Result:
    """The scenario against a fresh server with the policy that it needs."""
    stage = scenario.stage(setting)
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(running_site())
        policy = make_policy({scenario.id: stage}, {role: one.address for role, one in site.items()}, setting)
        policy.pop("version")
        service = await stack.enter_async_context(running_service(load_for_test(policy), **_settings(stage.settings)))
        target = Pointsman(f"127.0.0.1:{service.port}")
        stack.push_async_callback(target.close)
        await target.ready()
        return await run_scenario(scenario, stage, setting, site, target)


def _settings(variables: Any) -> dict[str, Any]:
    read = Settings.from_environment(dict(variables))
    names = [name.removeprefix("POINTSMAN_").lower() for name in variables]
    return {"max_concurrent_calls": MOST_CALLS, **{name: getattr(read, name) for name in names}}
