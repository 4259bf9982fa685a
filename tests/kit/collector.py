"""A receiver of OpenTelemetry spans over gRPC, and collectors that do not answer."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it is sent. While `refuses` is set it answers UNAVAILABLE."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.refuses = False
        self.resources: list[dict[str, Any]] = []
        self.raw: list[bytes] = []
        self._spans: list[Span] = []
        self._arrived = threading.Condition()

    def Export(self, request: Any, context: Any) -> Any:
        """See the protocol."""
        if self.refuses:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        with self._arrived:
            self.raw.append(request.SerializeToString())
            for resource in request.resource_spans:
                self.resources.append(attributes_of(resource.resource))
                for scope in resource.scope_spans:
                    self._spans += scope.spans
            self._arrived.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self, least: int = 1, seconds: float = 10.0) -> list[Span]:
        """What came so far, once there is so much of it; in the order of their starts, the longer first."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: len(self._spans) >= least, seconds), f"only {len(self._spans)} spans"
            return sorted(self._spans, key=lambda span: (span.start_time_unix_nano, -span.end_time_unix_nano))


def attributes_of(holder: Any) -> dict[str, Any]:
    """The attributes of a span, an event or a resource as plain values."""
    return {one.key: _plain(one.value) for one in holder.attributes}


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_plain(one) for one in value.array_value.values]
    return getattr(value, kind)


@contextmanager
def running_collector() -> Iterator[Collector]:
    """A collector on a free port."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(0).wait()


@contextmanager
def black_hole() -> Iterator[str]:
    """An endpoint that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
