"""Traces, metrics and logs of a whole service, as a collector, Prometheus and an operator get them."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from kit.collector import Collector, attributes_of, black_hole, running_collector
from kit.running import LOOPBACK, connected, one_deployment_each, router, running_service, spec
from kit.scraping import Scrape
from kit.upstream import HELLO, Script, chunk, json_script, running_upstream, sse_script
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest
from pointsman_server.bootstrap.service import Service

SECRET = "canary-7c9e6679"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
BUSY = json_script({"error": {"message": SECRET}}, status=503)
STREAM = sse_script(chunk("Hello "), chunk("world"), chunk(finish="stop"))


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with running_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        yield collector


@asynccontextmanager
async def serving(*providers: Script) -> AsyncGenerator[tuple[Service, list[Any]], None]:
    """A service whose deployments are a, b, … each with a provider of its own that answers so."""
    async with running_upstream(*providers[:1]) as first, running_upstream(*providers[1:] or providers) as second:
        urls = {"a": first.base_url, "b": second.base_url}
        async with running_service(one_deployment_each(urls), http_address=LOOPBACK) as service:
            yield service, [first, second]


async def scrape(service: Service) -> Scrape:
    url = f"http://127.0.0.1:{service.http_port}/metrics"
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert response.status == 200
        return Scrape(await response.read())


async def spans_of(collector: Collector, count: int) -> list[Span]:
    return await asyncio.to_thread(collector.spans, count)


async def test_a_trace_of_a_fallback_shows_each_attempt_why_it_failed_and_what_came_next(collector: Collector) -> None:
    retries = {"x-request-id": "mine"}
    async with serving(BUSY, json_script(HELLO)) as (service, upstreams), connected(service) as channel:
        metadata = (("traceparent", TRACEPARENT), *retries.items())
        await router(channel).Complete(CompleteRequest(completion=spec(SECRET)), metadata=metadata)
    attempts_on_a = upstreams[0].calls
    spans = await spans_of(collector, 4 + attempts_on_a)
    door, call, decide, *attempts = spans
    assert [one.name for one in (door, call, decide)] == [
        "/pointsman.v1.RouterService/Complete",
        "pointsman.complete",
        "pointsman.decide",
    ]
    assert {span.trace_id.hex() for span in spans} == {TRACEPARENT[3:35]}
    assert door.parent_span_id.hex() == TRACEPARENT[36:52]
    assert call.parent_span_id == door.span_id
    assert {span.parent_span_id for span in (decide, *attempts)} == {call.span_id}
    told = attributes_of(call)
    assert told["model_selected"] == "b-model"
    assert told["fallback_occurred"] is True
    assert 0 < told["decision_latency"] < 1
    assert told["pointsman.request_id"] == "mine"
    *failed, last = [attributes_of(span) for span in attempts]
    assert {(one["pointsman.deployment"], one["pointsman.outcome"]) for one in failed} == {("a", "failed")}
    assert all(one["error.type"] and one["http.response.status_code"] == 503 for one in failed)
    assert all(span.status.code == Status.STATUS_CODE_ERROR for span in attempts[:-1])
    assert last["pointsman.attempt.purpose"] == "fallback"
    assert last["pointsman.attempt.because"] == failed[-1]["error.type"]
    assert (last["gen_ai.usage.input_tokens"], last["gen_ai.usage.output_tokens"]) == (9, 3)
    sent = [upstream.headers[-1]["traceparent"] for upstream in upstreams]
    expected = [
        next(span for span in reversed(attempts) if attributes_of(span)["pointsman.deployment"] == name)
        for name in "ab"
    ]
    assert sent == [f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01" for span in expected]
    assert SECRET.encode() not in b"".join(collector.raw)


async def test_a_stream_and_its_failure_at_the_door(collector: Collector) -> None:
    async with serving(STREAM) as (service, _), connected(service) as channel:
        async for _ in router(channel).StreamComplete(StreamCompleteRequest(completion=spec(SECRET))):
            pass
        with pytest.raises(grpc.aio.AioRpcError):
            async for _ in router(channel).StreamComplete(StreamCompleteRequest()):
                pass
    spans = await spans_of(collector, 5)
    doors = [span for span in spans if span.name.startswith("/")]
    assert [attributes_of(span)["rpc.grpc.status_code"] for span in doors] == [0, 3]
    (attempt,) = [attributes_of(span) for span in spans if span.name == "chat a-1"]
    assert attempt["gen_ai.response.time_to_first_chunk"] > 0
    assert attempt["gen_ai.response.finish_reasons"] == ["stop"]
    assert all(not span.events for span in spans)


_CLIENT = """
import asyncio, sys
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient, GrpcInstrumentorClient
from opentelemetry.sdk.trace import TracerProvider

trace.set_tracer_provider(TracerProvider())
GrpcInstrumentorClient().instrument()
GrpcAioInstrumentorClient().instrument()

from pointsman_client import AsyncClient, Client

async def ask_async(target):
    async with AsyncClient(target) as client:
        await client.complete("Hello")
        async with client.stream("Hello") as stream:
            await stream.finish()

def ask(target):
    with Client(target) as client:
        client.complete("Hello")
        with client.stream("Hello") as stream:
            stream.finish()

with trace.get_tracer("test").start_as_current_span("work") as span:
    target = sys.argv[2]
    asyncio.run(ask_async(target)) if sys.argv[1] == "async" else ask(target)
    print(f"{span.get_span_context().trace_id:032x}")
"""


@pytest.mark.parametrize("tracing", [True, False], ids=["server traces", "server does not"])
@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_the_trace_travels_from_the_client_over_the_server_to_the_provider(
    monkeypatch: pytest.MonkeyPatch, kind: str, tracing: bool
) -> None:
    with running_collector() as collector:
        if tracing:
            monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint)
        async with serving(json_script(HELLO), STREAM) as (service, upstreams):
            upstreams[0].scripts.append(STREAM)
            client = await asyncio.create_subprocess_exec(
                sys.executable, "-c", _CLIENT, kind, f"127.0.0.1:{service.port}", stdout=asyncio.subprocess.PIPE
            )
            out, _ = await asyncio.wait_for(client.communicate(), 30)
        assert client.returncode == 0
        trace_id = out.decode().strip()
        sent = [headers["traceparent"] for headers in upstreams[0].headers]
        assert len(sent) == 2
        assert {one[3:35] for one in sent} == {trace_id}
        if tracing:
            spans = await spans_of(collector, 8)
            assert {span.trace_id.hex() for span in spans} == {trace_id}


async def test_a_collector_that_swallows_everything_costs_calls_and_the_end_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with black_hole() as endpoint:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        async with running_upstream(json_script(HELLO)) as upstream:
            async with running_service(one_deployment_each({"a": upstream.base_url}), http_address=LOOPBACK) as service:
                async with connected(service) as channel:
                    for _ in range(20):
                        await router(channel).Complete(CompleteRequest(completion=spec()), timeout=5)
                started_at = time.monotonic()
            assert time.monotonic() - started_at < 4


async def test_prometheus_reads_what_happened() -> None:
    async with serving(BUSY, json_script(HELLO)) as (service, upstreams), connected(service) as channel:
        await router(channel).Complete(CompleteRequest(completion=spec(SECRET)))
        await router(channel).Route(RouteRequest(completion=spec(SECRET)))
        with pytest.raises(grpc.aio.AioRpcError):
            await router(channel).Complete(CompleteRequest())
        found = await scrape(service)
    assert found.all("pointsman_requests_total") == {
        ("OK", "Complete"): 1,
        ("INVALID_ARGUMENT", "Complete"): 1,
        ("OK", "Route"): 1,
    }
    outcomes = {labels[0] + " " + labels[3]: value for labels, value in found.all("pointsman_attempts_total").items()}
    assert outcomes["b succeeded"] == 1
    assert sum(value for name, value in outcomes.items() if name == "a failed") >= 1
    assert found.all("pointsman_fallbacks_total") == {("succeeded",): 1}
    assert found.value("pointsman_decision_duration_seconds_count") == 2
    tokens = {labels[1]: value for labels, value in found.all("pointsman_tokens_total").items()}
    assert tokens == {"input": 9, "output": 3}
    assert found.value("pointsman_cost_micro_usd_total", deployment="b", provider="b", model="b-model") > 0
    assert found.value("pointsman_calls_in_flight") == 0
    assert found.value("pointsman_breaker_state", deployment="a") == 0
    assert SECRET not in found.text
    assert all(upstream.base_url not in found.text for upstream in upstreams)


async def test_not_ready_while_draining() -> None:
    async def ready(service: Service) -> tuple[int, dict[str, str]]:
        url = f"http://127.0.0.1:{service.http_port}/readyz"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            return response.status, await response.json()

    async with serving(json_script(HELLO)) as (service, _):
        assert await ready(service) == (200, {"status": "ready"})
        await service.drain()
        assert await ready(service) == (503, {"status": "not_ready", "reason": "draining"})


_LEAVING_CLIENT = """
import asyncio, sys
from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient, GrpcInstrumentorClient

GrpcInstrumentorClient().instrument()
GrpcAioInstrumentorClient().instrument()

from pointsman_client import AsyncClient, Client

async def leave_async(target):
    async with AsyncClient(target) as client:
        async with client.stream("Hello") as stream:
            async for _ in stream.text_deltas():
                break
        await asyncio.to_thread(sys.stdin.read)

def leave(target):
    with Client(target) as client:
        with client.stream("Hello") as stream:
            for _ in stream.text_deltas():
                break
        sys.stdin.read()

target = sys.argv[2]
asyncio.run(leave_async(target)) if sys.argv[1] == "async" else leave(target)
"""


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_leaving_a_stream_of_a_traced_client_ends_the_call(kind: str) -> None:
    endless = sse_script(chunk("Hello "), end="stall", done=False)
    async with serving(endless) as (service, upstreams):
        client = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _LEAVING_CLIENT,
            kind,
            f"127.0.0.1:{service.port}",
            stdin=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(20):
            while not upstreams[0].calls:  # noqa: ASYNC110 - the provider counts and calls nobody
                await asyncio.sleep(0.01)
            await upstreams[0].nobody_connected.wait()
        assert client.returncode is None
        await client.communicate(b"")
        assert client.returncode == 0
