"""The wall judges other gateways over HTTP: it tells an honest one from a careless one, and what it cannot judge."""

from __future__ import annotations

from wall.catalogue import SCENARIOS
from wall.running import run_scenario, running_site
from wall.scenario import Result, Setting, Verdict
from wall.targets.openai import OpenAIGateway

from kit.other_gateways import running_gateway

SETTING = Setting(scale=1 / 20, many=20)


async def judge(scenario: str, *, careless: bool = False) -> Result:
    async with running_site() as site:
        urls = [f"{upstream.address}/v1" for upstream in site.values()]
        async with running_gateway(urls, careless=careless) as base_url:
            target = OpenAIGateway(base_url, "wall")
            try:
                one = SCENARIOS[scenario]
                return await run_scenario(one, one.stage(SETTING), SETTING, site, target)
            finally:
                await target.close()


def broken(result: Result) -> list[str]:
    return [finding.name for finding, verdict in result.findings if verdict is Verdict.BROKEN]


async def test_a_healthy_site_is_judged_well() -> None:
    result = await judge("S01")
    assert result.verdict is Verdict.KEPT, broken(result)


async def test_a_fallback_is_seen_to_work() -> None:
    result = await judge("S12")
    assert not broken(result)
    assert result.verdict is Verdict.KEPT


async def test_a_cut_stream_that_looks_whole_is_found() -> None:
    result = await judge("S20", careless=True)
    assert "wrong or cut answers handed out as whole" in broken(result)


async def test_an_honest_end_is_accepted() -> None:
    result = await judge("S20")
    assert "wrong or cut answers handed out as whole" not in broken(result)
    assert "streams cut after their first text: neither told nor mended" not in broken(result)


async def test_what_cannot_be_judged_is_neither_kept_nor_broken() -> None:
    result = await judge("S22")
    assert result.verdict is Verdict.NOT_APPLICABLE
    assert "lets the caller choose" in result.note


async def test_callers_who_leave_are_judged_by_the_upstreams() -> None:
    result = await judge("S31")
    assert "upstream released within 200 ms of the caller's end" not in broken(result)


async def test_answers_of_any_shape_are_taken_for_failures() -> None:
    result = await judge("S43")
    assert "served" in broken(result)
    assert "wrong or cut answers handed out as whole" not in broken(result)
