"""Telemetry around a whole call."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from pointsman_server.domain.call import Call
from pointsman_server.domain.ports import CallWatch, Operation, Telemetry


@contextmanager
def watching(telemetry: Telemetry, call: Call, operation: Operation) -> Generator[CallWatch, None, None]:
    """Tells telemetry of the call, and of whatever ends it too soon."""
    watch = telemetry.call(call, operation)
    try:
        yield watch
    except BaseException as error:
        watch.failed(error)
        raise
