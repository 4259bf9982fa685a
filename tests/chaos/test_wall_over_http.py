"""The wall judges other gateways over HTTP: it tells an honest one from a careless one, and what it cannot judge."""

from __future__ import annotations

import pytest
from wall import running
from wall.catalogue import SCENARIOS
from wall.running import expect_an_answer, run_scenario, running_site
from wall.scenario import Result, Setting, Verdict
from wall.targets.openai import OpenAIGateway

from kit.other_gateways import running_gateway

SETTING = Setting(scale=1 / 20, many=20)


async def judge(scenario: str, *, careless: bool = False, backwards: bool = False) -> Result:
    async with running_site() as site:
        urls = [f"{upstream.address}/v1" for upstream in site.values()][:: -1 if backwards else 1]
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


async def test_who_follows_a_redirect_is_found_out() -> None:
    assert "requests somewhere else" in broken(await judge("S49"))
    assert "requests somewhere else" not in broken(await judge("S50"))


async def test_what_was_judged_without_the_primary_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "_SETTLING_SECONDS", 0.2)
    result = await judge("S12", backwards=True)
    assert result.note == "the gateway did not ask the primary again before it (1 time)"
    assert not (await judge("S12")).note


async def test_a_gateway_that_is_configured_by_headers_gets_them() -> None:
    async with running_site() as site:
        urls = [f"{upstream.address}/v1" for upstream in site.values()]
        async with running_gateway(urls, careless=False, needs="x-config") as base_url:
            told, untold = OpenAIGateway(base_url, "wall", headers={"x-config": "{}"}), OpenAIGateway(base_url, "wall")
            try:
                await expect_an_answer(site, told)
                with pytest.raises(
                    RuntimeError, match=r"whole call .*: INTERNAL .*without x-config.*0 requests reached"
                ):
                    await expect_an_answer(site, untold)
            finally:
                await told.close()
                await untold.close()
