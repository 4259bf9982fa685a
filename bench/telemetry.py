"""`python -m bench.telemetry`: what telemetry costs a call, without anything else around it.

Each call is told as the pipeline and the border tell it: decided, one attempt, first content, completed, left the
door. The span of the RPC itself is measured as the difference between a gRPC server with it and one without. The clock
is CPU time; the best of several rounds counts. Nothing leaves the machine.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from rich.console import Console
from rich.table import Table

from pointsman_server.adapters.telemetry.metrics import Metrics
from pointsman_server.adapters.telemetry.safe import SafeTelemetry
from pointsman_server.adapters.telemetry.server_spans import ServerSpans
from pointsman_server.adapters.telemetry.span_export import CountingExporter, DroppingProcessor
from pointsman_server.adapters.telemetry.tracing import Tracing
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.bootstrap.policies import shipped_policy
from pointsman_server.config.policy_file import load_policy
from pointsman_server.decision.complexity import judge_complexity
from pointsman_server.domain.call import Attempt, AttemptOutcome, AttemptPurpose, Call, Completion, Decision
from pointsman_server.domain.catalog import Snapshot
from pointsman_server.domain.message import Message, Role, TextPart
from pointsman_server.domain.plan import Candidate, RoutePlan, TokenEstimate
from pointsman_server.domain.ports import Operation
from pointsman_server.domain.reply import FinishReason, Reply, Usage
from pointsman_server.domain.request import CompletionRequest

_CALLS = 2_000
_ROUNDS = 5
_ECHOES = 500


class _Nowhere(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def main() -> None:
    """Prints microseconds of CPU time a call, and what one scrape takes."""
    snapshot = load_policy(shipped_policy("demo"), {}).snapshot
    table = Table("telemetry", "Complete, µs", "StreamComplete, µs")
    for name, metrics, telemetry in _variants(snapshot):
        whole, stream = (_best(_told(snapshot, metrics, telemetry, stream=stream)) for stream in (False, True))
        table.add_row(name, f"{whole:.1f}", f"{stream:.1f}")
    console = Console(highlight=False)
    console.print(table)
    console.print(f"the span of the RPC: {asyncio.run(_door_micros()):.0f} µs more, with every trace")
    console.print(f"one scrape, {len(snapshot.deployments)} deployments: {_scrape_ms(snapshot):.1f} ms, in a thread")


async def _door_micros() -> float:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(DroppingProcessor(CountingExporter(_Nowhere())))
    without, with_span = await _echo_micros(()), await _echo_micros((ServerSpans(provider),))
    provider.shutdown()
    return with_span - without


async def _echo_micros(interceptors: tuple[ServerSpans, ...]) -> float:
    async def echo(request: bytes, context: object) -> bytes:
        return request

    server = grpc.aio.server(interceptors=interceptors)
    handler: Any = grpc.unary_unary_rpc_method_handler(echo)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("pointsman.Echo", {"Echo": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.unary_unary("/pointsman.Echo/Echo")
        best = float("inf")
        for _ in range(_ROUNDS):
            started_at = time.process_time()
            for _ in range(_ECHOES):
                await call(b"x")
            best = min(best, (time.process_time() - started_at) / _ECHOES)
    await server.stop(None)
    return best * 1e6


def _variants(snapshot: Snapshot) -> Iterator[tuple[str, Metrics, SafeTelemetry]]:
    def metrics() -> Metrics:
        return Metrics(lambda: snapshot, SystemClock(), "bench")

    alone = metrics()
    yield "metrics", alone, SafeTelemetry(alone)
    for name, share in (("metrics, traces of 1 %", 0.01), ("metrics, every trace", 1.0)):
        with_traces = metrics()
        provider = TracerProvider(sampler=ParentBasedTraceIdRatio(share), shutdown_on_exit=False)
        provider.add_span_processor(DroppingProcessor(CountingExporter(_Nowhere())))
        yield name, with_traces, SafeTelemetry(with_traces, Tracing(provider.get_tracer("bench")))
        provider.shutdown()


def _told(snapshot: Snapshot, metrics: Metrics, telemetry: SafeTelemetry, *, stream: bool) -> Callable[[], None]:
    call = _call(snapshot)
    deployment = next(iter(snapshot.deployments.values()))
    usage = Usage(input_tokens=900, cached_input_tokens=500, output_tokens=200)
    attempt = Attempt(deployment, 0.8, 0.3 if stream else None, AttemptOutcome.SUCCEEDED, usage, 1_200)
    completion = _completion(call, attempt)
    operation, method = (Operation.STREAM_COMPLETE, "StreamComplete") if stream else (Operation.COMPLETE, "Complete")

    def tell() -> None:
        watch = telemetry.call(call, operation)
        watch.decided(completion.decision)
        attempt_watch = watch.attempt(deployment, AttemptPurpose.FIRST)
        dict(attempt_watch.headers)
        if stream:
            watch.first_content()
        attempt_watch.ended(attempt)
        watch.completed(completion)
        metrics.observe(method, "OK", 0.8)

    return tell


def _call(snapshot: Snapshot) -> Call:
    request = CompletionRequest(messages=(Message(Role.USER, (TextPart("What is the capital of France?"),)),))
    headers = {"traceparent": ""}
    return Call(request, "req_bench", snapshot, deadline=time.monotonic() + 3_600, headers=headers)


def _completion(call: Call, attempt: Attempt) -> Completion:
    candidate = Candidate(attempt.deployment, 1.0, (), 0.5, 10, 100, 1.0, 1_000)
    plan = RoutePlan((candidate,), (), judge_complexity(call.request), TokenEstimate(900, True, 900), "bench")
    reply = Reply((TextPart("Paris"),), FinishReason.STOP, "stop", attempt.usage, (), "id", "model-1")
    decision = Decision("dec_bench", plan, 0.0004)
    return Completion(
        call.request_id, decision, candidate, reply, attempt.usage, False, attempt.cost_micro_usd, (attempt,), ()
    )


def _best(tell: Callable[[], None]) -> float:
    gc.collect()
    return min(_round(tell) for _ in range(_ROUNDS)) * 1e6


def _round(tell: Callable[[], None]) -> float:
    started_at = time.thread_time()
    for _ in range(_CALLS):
        tell()
    return (time.thread_time() - started_at) / _CALLS


def _scrape_ms(snapshot: Snapshot) -> float:
    metrics = Metrics(lambda: snapshot, SystemClock(), "bench")
    telemetry = SafeTelemetry(metrics)
    for deployment in snapshot.deployments.values():
        for outcome in AttemptOutcome:
            usage = Usage(input_tokens=9, output_tokens=9)
            watch = telemetry.call(_call(snapshot), Operation.STREAM_COMPLETE)
            for purpose in AttemptPurpose:
                watch.attempt(deployment, purpose).ended(Attempt(deployment, 0.8, 0.3, outcome, usage, 1))
    started_at = time.perf_counter()
    asyncio.run(asyncio.to_thread(metrics.exposition))
    return (time.perf_counter() - started_at) * 1e3


if __name__ == "__main__":
    main()
