from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from kit.accounts import SECRET, attempt, completion, decision
from kit.catalog import call, deployment, request, snapshot
from kit.clock import FakeClock
from kit.collector import attributes_of, black_hole, running_collector
from kit.scraping import Scrape
from pointsman_server.adapters.telemetry.loop_lag import INTERVAL_SECONDS
from pointsman_server.adapters.telemetry.setup import Observability, observe, wants_tracing
from pointsman_server.domain.call import AttemptPurpose
from pointsman_server.domain.ports import Operation

A = deployment("a")
POLICY = snapshot(A)
Setenv = Callable[..., None]


@pytest.fixture
def setenv(monkeypatch: pytest.MonkeyPatch) -> Setenv:
    """Sets variables of OpenTelemetry; none but these."""
    for name in os.environ:
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)

    def setenv(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(f"OTEL_{name}", value)

    return setenv


def observed() -> Observability:
    return observe(lambda: POLICY, FakeClock(), "1.2.3")


def tell_a_call(seen: Observability) -> dict[str, str]:
    """One call from its start to its end; the headers for the provider."""
    watch = seen.telemetry.call(call(POLICY, request=request(SECRET)), Operation.COMPLETE)
    watch.decided(decision(A))
    running = watch.attempt(A, AttemptPurpose.FIRST)
    headers = dict(running.headers)
    running.ended(attempt(A))
    watch.completed(completion(attempt(A)))
    return headers


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4317"}, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": " "}, False),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://127.0.0.1:4317"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4317", "OTEL_TRACES_EXPORTER": "otlp"}, True),
    ],
)
def test_there_is_tracing_when_a_collector_is_named(environ: dict[str, str], wanted: bool) -> None:
    assert wants_tracing(environ) is wanted


async def test_without_a_collector_there_are_metrics_only(setenv: Setenv) -> None:
    seen = observed()
    seen.start()
    assert not seen.is_tracing
    assert seen.interceptors == ()
    assert tell_a_call(seen) == {}
    found = Scrape(seen.metrics.exposition())
    assert found.value("pointsman_decision_duration_seconds_count") == 1
    assert 'pointsman_telemetry_dropped_total{signal="traces"} 0.0' in found.text
    assert 'pointsman_telemetry_dropped_total{signal="metrics"} 0.0' in found.text
    await seen.close()


async def test_spans_reach_the_collector(setenv: Setenv) -> None:
    with running_collector() as collector:
        setenv(EXPORTER_OTLP_ENDPOINT=collector.endpoint)
        seen = observed()
        assert seen.is_tracing
        assert len(seen.interceptors) == 1
        headers = tell_a_call(seen)
        await seen.close()
        spans = collector.spans(3)
        resource = collector.resources[0]
        sent = b"".join(collector.raw)
    assert [span.name for span in spans] == ["pointsman.complete", "pointsman.decide", "chat a-1"]
    assert attributes_of(spans[0])["model_selected"] == "a-model"
    assert headers["traceparent"].split("-")[1:3] == [spans[2].trace_id.hex(), spans[2].span_id.hex()]
    assert resource["service.name"] == "pointsman"
    assert resource["service.version"] == "1.2.3"
    assert SECRET.encode() not in sent


async def test_the_service_may_be_named_otherwise(setenv: Setenv) -> None:
    with running_collector() as collector:
        setenv(EXPORTER_OTLP_TRACES_ENDPOINT=collector.endpoint, SERVICE_NAME="router-eu")
        seen = observed()
        tell_a_call(seen)
        await seen.close()
        collector.spans(3)
        assert collector.resources[0]["service.name"] == "router-eu"


async def test_sampling_is_the_sdks(setenv: Setenv) -> None:
    with running_collector() as collector:
        setenv(
            EXPORTER_OTLP_ENDPOINT=collector.endpoint,
            TRACES_SAMPLER="parentbased_traceidratio",
            TRACES_SAMPLER_ARG="0",
        )
        seen = observed()
        assert not int(tell_a_call(seen)["traceparent"].rpartition("-")[2], 16) & 1
        await seen.close()
        assert collector.raw == []


async def test_a_black_hole_holds_up_neither_calls_nor_the_end(setenv: Setenv) -> None:
    with black_hole() as endpoint:
        setenv(EXPORTER_OTLP_ENDPOINT=endpoint, BSP_MAX_QUEUE_SIZE="600", BSP_SCHEDULE_DELAY="10")
        seen = observed()
        started_at = time.monotonic()
        for _ in range(1_000):
            tell_a_call(seen)
        assert time.monotonic() - started_at < 3
        started_at = time.monotonic()
        await seen.close()
        assert time.monotonic() - started_at < 2.5
        dropped = Scrape(seen.metrics.exposition())
    assert dropped.label_names == {}
    assert seen._tracer is not None
    assert seen._tracer.processor.dropped == 3_000


async def test_dropped_spans_are_counted(setenv: Setenv) -> None:
    with black_hole() as endpoint:
        setenv(EXPORTER_OTLP_ENDPOINT=endpoint, BSP_MAX_QUEUE_SIZE="600")
        seen = observed()
        for _ in range(1_000):
            tell_a_call(seen)
        shown = Scrape(seen.metrics.exposition()).value("pointsman_telemetry_dropped_total", signal="traces")
        await seen.close()
    assert 3_000 - 600 - 512 <= shown < 3_000


@pytest.mark.parametrize(
    "wrong",
    [{"EXPORTER_OTLP_TIMEOUT": "soon"}, {"BSP_MAX_QUEUE_SIZE": "0"}, {"EXPORTER_OTLP_COMPRESSION": "zip"}],
    ids=lambda variables: next(iter(variables)),
)
async def test_a_mistake_in_the_environment_turns_tracing_off_and_nothing_else(
    setenv: Setenv, wrong: dict[str, str]
) -> None:
    setenv(EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", **wrong)
    with structlog.testing.capture_logs() as logs:
        seen = observed()
    assert not seen.is_tracing
    assert tell_a_call(seen) == {}
    assert [line["event"] for line in logs] == ["tracing_off"]
    await seen.close()


async def test_another_protocol_is_told_not_to_be_spoken(setenv: Setenv) -> None:
    setenv(EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1", EXPORTER_OTLP_PROTOCOL="http/protobuf")
    with structlog.testing.capture_logs() as logs:
        seen = observed()
    assert [line["event"] for line in logs] == ["otlp_protocol_not_used"]
    await seen.close()


async def test_the_event_loops_lag_is_measured_from_start_to_close(setenv: Setenv) -> None:
    seen = observed()
    seen.start()
    await asyncio.sleep(INTERVAL_SECONDS * 1.2)
    count = Scrape(seen.metrics.exposition()).value("pointsman_event_loop_lag_seconds_count")
    await seen.close()
    assert count == 1


def test_without_tracing_nobody_waits_for_its_imports() -> None:
    program = (
        "import sys; import pointsman_server.adapters.telemetry.setup; "
        "print([name for name in sys.modules if 'otlp' in name or name.startswith('opentelemetry.instrumentation')])"
    )
    told = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path(__file__).parent
    )
    assert told.stdout.strip() == "[]"
