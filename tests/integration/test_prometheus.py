"""Prometheus and an OpenTelemetry collector, both real, watch a real pointsman; promtool checks and tests the rules."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kit.metric_table import series
from kit.observers import OTELCOL_SECONDS, Prometheus, prometheus_folder, running_otelcol, running_prometheus, until
from kit.programs import ROOT
from kit.running import connected, one_deployment_each, router, running_service, spec
from kit.upstream import HELLO, Upstream, chunk, json_script, running_upstream, sse_script
from pointsman.v1.router_service_pb2 import CompleteRequest, StreamCompleteRequest
from pointsman_server.bootstrap.service import Service

DEPLOY = ROOT / "deploy" / "prometheus"
SCENES = sorted(path.name for path in (DEPLOY / "tests").glob("*.yml"))
REFUSED = json_script({"error": {"message": "Incorrect API key provided"}}, status=401)
STREAM = sse_script(chunk("Hello"), chunk(" world"), chunk(finish="stop"))

pytestmark = pytest.mark.slow


def promtool(*arguments: str, stdin: bytes = b"") -> str:
    """What promtool says; fails the calling test when promtool finds fault."""
    command = [str(prometheus_folder() / "promtool"), *arguments]
    done = subprocess.run(
        command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=DEPLOY, timeout=50
    )
    said = done.stdout.decode()
    assert done.returncode == 0, said
    return said


class TestRules:
    def test_the_configuration_is_valid_and_names_the_rules(self) -> None:
        said = promtool("check", "config", "prometheus.yml")
        assert f"{len(list((DEPLOY / 'rules').glob('*.yml')))} rule files found" in said

    def test_the_rules_are_valid_and_none_comes_twice(self) -> None:
        promtool("check", "rules", "--lint=all", "--lint-fatal", *map(str, (DEPLOY / "rules").glob("*.yml")))

    @pytest.mark.parametrize("scene", SCENES)
    def test_alerts_fire_when_they_should_and_only_then(self, scene: str) -> None:
        assert "SUCCESS" in promtool("test", "rules", f"tests/{scene}")


@dataclass
class Watched:
    """A pointsman whose first provider refuses the key and whose second answers, and the Prometheus that watches."""

    service: Service
    prometheus: Prometheus
    router: Any

    async def complete(self) -> None:
        """A call that falls back to the second provider."""
        await self.router.Complete(CompleteRequest(completion=spec()), timeout=10)

    async def stream(self) -> None:
        """Likewise, in pieces."""
        async for _ in self.router.StreamComplete(StreamCompleteRequest(completion=spec()), timeout=10):
            pass

    async def sees(self, promql: str) -> list[tuple[dict[str, str], float]]:
        """The series of this query, once there are any."""
        found: list[tuple[dict[str, str], float]] = []

        async def found_some() -> bool:
            found[:] = await self.prometheus.query(promql)
            return bool(found)

        await until(found_some)
        return found


@pytest.fixture
async def watched(tmp_path: Path) -> AsyncGenerator[Watched, None]:
    async with AsyncExitStack() as stack:
        refusing = await stack.enter_async_context(running_upstream(REFUSED))
        answering = await stack.enter_async_context(running_upstream(json_script(HELLO), STREAM))
        service = await stack.enter_async_context(running_service(two_providers(refusing, answering)))
        channel = await stack.enter_async_context(connected(service))
        targets = [f"127.0.0.1:{service.http_port}"]
        prometheus = await stack.enter_async_context(running_prometheus(tmp_path, targets))
        yield Watched(service, prometheus, router(channel))


def two_providers(first: Upstream, second: Upstream) -> Any:
    return one_deployment_each({"refusing": first.base_url, "answering": second.base_url})


class TestScrape:
    async def test_it_sees_the_calls_and_raises_the_alarm(self, watched: Watched) -> None:
        await watched.sees('up{job="pointsman"} == 1')
        await watched.complete()
        await watched.stream()

        await watched.sees('sum(pointsman_attempts_total{deployment="answering", outcome="succeeded"}) == 2')
        await watched.sees('sum(pointsman_requests_total{code="OK"}) == 2')
        await watched.sees('sum(pointsman_fallbacks_total{outcome="succeeded"}) >= 1')
        await watched.sees('sum(pointsman_tokens_total{deployment="answering", kind="output"}) > 0')

        ((alert, _),) = await watched.sees('ALERTS{alertname="PointsmanProviderKeyRefused"}')
        assert alert["provider"] == "refusing"
        assert alert["alertstate"] == "firing"

    async def test_it_takes_every_rule(self, watched: Watched) -> None:
        await watched.complete()
        groups: list[Any] = []

        async def all_evaluated() -> bool:
            groups[:] = (await watched.prometheus.ask("rules"))["groups"]
            return all(rule["health"] != "unknown" for group in groups for rule in group["rules"])

        await until(all_evaluated)
        assert {group["file"].rpartition("/")[2] for group in groups} == {
            path.name for path in (DEPLOY / "rules").iterdir()
        }
        assert [rule for group in groups for rule in group["rules"] if rule["health"] != "ok"] == []

    async def test_it_keeps_the_series_that_rules_and_dashboards_rest_on(self, watched: Watched) -> None:
        await watched.complete()
        await watched.stream()
        await watched.sees('pointsman_requests_total{method="StreamComplete"}')
        await watched.sees("pointsman_event_loop_lag_seconds_count > 0")
        kept: dict[str, set[str]] = {}
        for labels in await watched.prometheus.ask("series", **{"match[]": '{job="pointsman"}'}):
            kept.setdefault(labels.pop("__name__"), set()).update(labels)
        for name in NEVER_COUNTED_HERE:
            kept.setdefault(name, set(series()[name]))
        promised = {name: set(labels) for name, labels in series().items()}
        assert {name: kept.get(name) for name in promised} == promised

    async def test_promtool_finds_no_fault_with_what_is_shown(self, watched: Watched) -> None:
        await watched.complete()
        url = f"http://127.0.0.1:{watched.service.http_port}/metrics"
        async with aiohttp.ClientSession() as http, http.get(url) as response:
            text = await response.read()
        await asyncio.to_thread(promtool, "check", "metrics", stdin=text)


NEVER_COUNTED_HERE = (
    "pointsman_budget_alerts_total",
    "pointsman_cache_saved_micro_usd_total",
    "pointsman_guard_hits_total",
    "pointsman_retries_total",
)
"""A refused key is not tried once more, and nobody has a budget or a cache."""


@pytest.mark.timeout(OTELCOL_SECONDS)
async def test_the_spans_of_a_fallback_pass_through_a_collector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with AsyncExitStack() as stack:
        collector = await stack.enter_async_context(running_otelcol(tmp_path))
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{collector.endpoint}")
        first = await stack.enter_async_context(running_upstream(REFUSED))
        second = await stack.enter_async_context(running_upstream(json_script(HELLO)))
        async with running_service(two_providers(first, second)) as service, connected(service) as channel:
            await router(channel).Complete(CompleteRequest(completion=spec("a text that nobody may see")), timeout=10)

        async def all_arrived() -> bool:
            return any(span["name"] == "pointsman.complete" for span in collector.spans())

        await until(all_arrived)
        spans = {span["name"]: span for span in collector.spans()}
    assert len({span["traceId"] for span in spans.values()}) == 1
    call = spans["pointsman.complete"]
    attempts = [spans["chat refusing-1"], spans["chat answering-1"]]
    assert [one["parentSpanId"] for one in attempts] == [call["spanId"]] * 2
    assert {"key": "fallback_occurred", "value": {"boolValue": True}} in call["attributes"]
    assert {"key": "model_selected", "value": {"stringValue": "answering-model"}} in call["attributes"]
    assert "a text that nobody may see" not in (tmp_path / "traces.json").read_text(encoding="utf-8")
