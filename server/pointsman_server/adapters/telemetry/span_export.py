"""Spans on their way to the collector: a queue that drops when it is full, and an end that does not wait for it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

_LOG = structlog.stdlib.get_logger("pointsman.telemetry")


class CountingExporter(SpanExporter):
    """Counts what the exporter takes and what it loses; says in the log when it begins to lose, and when it is over.

    Used by the queue's own thread only.
    """

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_closed = False
        self._is_failing = False
        self.taken = 0
        self.lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """See `SpanExporter.export`."""
        self.taken += len(spans)
        result = SpanExportResult.FAILURE
        try:
            result = self._exporter.export(spans)
        finally:
            self._account(len(spans), failed=result is not SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        """See `SpanExporter.shutdown`; also ends an export that is still waiting."""
        if not self._is_closed:
            self._is_closed = True
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """See `SpanExporter.force_flush`."""
        return self._exporter.force_flush(timeout_millis)

    def _account(self, spans: int, *, failed: bool) -> None:
        if failed:
            self.lost += spans
        if failed is not self._is_failing:
            self._is_failing = failed
            if failed:
                _LOG.warning("spans_lost", message="the collector does not take them; calls are not affected")
            else:
                _LOG.info("spans_delivered_again")


class DroppingProcessor(BatchSpanProcessor):
    """The SDK's queue, which never grows beyond `most_waiting`: what does not fit is dropped, counted, not logged."""

    def __init__(self, exporter: CountingExporter, most_waiting: int | None = None, **options: Any) -> None:
        if most_waiting is None:  # as the SDK reads it from the environment
            most_waiting = int(BatchSpanProcessor._default_max_queue_size())  # type: ignore[no-untyped-call]
        super().__init__(exporter, most_waiting, **options)
        self._counting = exporter
        self._most_waiting = most_waiting
        self._queued = 0
        self._refused = 0

    @property
    def dropped(self) -> int:
        """Spans that never reached the collector."""
        return self._refused + self._counting.lost

    def on_end(self, span: ReadableSpan) -> None:
        """See `SpanProcessor.on_end`."""
        if not (span.context and span.context.trace_flags.sampled):
            return
        if self._queued - self._counting.taken >= self._most_waiting:
            self._refused += 1
            return
        self._queued += 1
        super().on_end(span)


def close_within(provider: TracerProvider, exporter: CountingExporter, seconds: float) -> None:
    """Delivers what waits, for at most so long; then gives it up. Blocks, so it belongs off the event loop."""
    closing = threading.Thread(target=provider.shutdown, name="close tracing", daemon=True)
    closing.start()
    closing.join(seconds)
    exporter.shutdown()
    closing.join(_GIVING_UP_SECONDS)


_GIVING_UP_SECONDS = 0.3
"""What a broken-off export needs to notice."""
