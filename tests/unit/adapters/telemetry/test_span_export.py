from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import pytest
import structlog
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from kit.collector import black_hole, running_collector
from pointsman_server.adapters.telemetry.span_export import CountingExporter, DroppingProcessor, close_within


@pytest.fixture
def black() -> Iterator[str]:
    with black_hole() as endpoint:
        yield endpoint


class Held(SpanExporter):
    """Gives what the test says and keeps the counts of what it was given."""

    def __init__(self, *results: SpanExportResult | Exception) -> None:
        self.results = list(results)
        self.batches: list[int] = []
        self.shutdowns = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.batches.append(len(spans))
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result

    def shutdown(self) -> None:
        self.shutdowns += 1

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return timeout_millis == 7


class Pipe:
    """A tracer that leads to an exporter."""

    def __init__(self, exporter: SpanExporter, most_waiting: int = 100, batch: int = 10) -> None:
        self.exporter = CountingExporter(exporter)
        self.processor = DroppingProcessor(
            self.exporter, most_waiting, schedule_delay_millis=60_000, max_export_batch_size=batch
        )
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(self.processor)

    def spans(self, count: int) -> None:
        tracer = self.provider.get_tracer("test")
        for number in range(count):
            tracer.start_span(f"span {number}").end()

    def close(self, seconds: float = 5.0) -> float:
        """Seconds that the end took."""
        started_at = time.monotonic()
        close_within(self.provider, self.exporter, seconds)
        return time.monotonic() - started_at


def test_spans_reach_the_collector_before_the_end() -> None:
    with running_collector() as collector:
        pipe = Pipe(OTLPSpanExporter(collector.endpoint))
        pipe.spans(25)
        assert pipe.close() < 4
        assert [span.name for span in collector.spans(25)] == [f"span {number}" for number in range(25)]
    assert pipe.processor.dropped == 0


def test_a_black_hole_costs_nothing_and_the_queue_stays_bounded(black: str) -> None:
    pipe = Pipe(OTLPSpanExporter(black, timeout=30))
    started_at = time.monotonic()
    pipe.spans(5_000)
    assert time.monotonic() - started_at < 2
    waiting = 5_000 - pipe.processor.dropped
    assert 100 <= waiting <= 110
    assert pipe.close(seconds=0.3) < 1.5
    assert pipe.processor.dropped >= 5_000 - 100


def test_the_end_does_not_wait_for_a_black_hole(black: str) -> None:
    pipe = Pipe(OTLPSpanExporter(black, timeout=30))
    pipe.spans(3)
    assert pipe.close(seconds=0.3) < 1.5
    assert pipe.processor.dropped == 3


def test_a_collector_that_is_not_there_costs_the_batch() -> None:
    pipe = Pipe(OTLPSpanExporter("http://127.0.0.1:1", timeout=0.2))
    pipe.spans(3)
    assert pipe.close() < 4
    assert pipe.processor.dropped == 3


def test_losing_is_told_when_it_begins_and_when_it_is_over() -> None:
    failure, success = SpanExportResult.FAILURE, SpanExportResult.SUCCESS
    exporter = CountingExporter(Held(failure, failure, success, success, RuntimeError("broken"), success))
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    span = tracer.start_span("x")
    assert isinstance(span, ReadableSpan)
    with structlog.testing.capture_logs() as logs:
        for _ in range(4):
            exporter.export([span])
        with pytest.raises(RuntimeError, match="broken"):
            exporter.export([span])
        exporter.export([span])
    told = [line["event"] for line in logs]
    assert told == ["spans_lost", "spans_delivered_again", "spans_lost", "spans_delivered_again"]
    assert (exporter.taken, exporter.lost) == (6, 3)


def test_shutting_down_twice_is_once() -> None:
    held = Held()
    exporter = CountingExporter(held)
    exporter.shutdown()
    exporter.shutdown()
    assert held.shutdowns == 1
    assert exporter.force_flush(7)


def test_what_is_not_sampled_is_neither_queued_nor_dropped() -> None:
    held = Held()
    exporter = CountingExporter(held)
    processor = DroppingProcessor(exporter)
    provider = TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False)
    provider.add_span_processor(processor)
    provider.get_tracer("test").start_span("x").end()
    unsampled = ReadableSpan("x")
    processor.on_end(unsampled)
    close_within(provider, exporter, 5)
    assert held.batches == []
    assert processor.dropped == 0


def test_the_queue_is_as_long_as_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "600")
    held = Held(*[SpanExportResult.SUCCESS] * 10)
    processor = DroppingProcessor(CountingExporter(held))
    assert processor._most_waiting == 600
    processor.shutdown()  # type: ignore[no-untyped-call]
