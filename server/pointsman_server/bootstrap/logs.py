"""Logs: one JSON object a line on standard error; no text of a request or an answer ever gets there.

What is written while a call is served carries the call's `request_id` and `trace_id`.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO, cast

import orjson
import structlog
from opentelemetry import trace
from structlog.typing import EventDict, WrappedLogger

from pointsman_server.bootstrap.log_stream import LogStream
from pointsman_server.config.settings import LogLevel
from pointsman_server.rpc.boundary import CURRENT_CALL

_QUIET = (
    # They log request lines, addresses or exception texts, which may hold what a caller sent.
    "aiohttp.server",
    "aiohttp.client",
    "grpc._cython.cygrpc",
    "grpc",
    "asyncio",
    "httpx2",
    "anthropic",
    "psycopg",
    "sqlalchemy.pool",
    # Lost spans are counted and told once; every attempt to deliver them is not worth a line.
    "opentelemetry.exporter",
    "opentelemetry.sdk._shared_internal",
)

_TRACE_ID = slice(3, 35)
"""Where a traceparent has it."""


_streams: list[LogStream] = []


def lost_lines() -> int:
    """How many lines could not be written so far."""
    return sum(stream.lost for stream in _streams)


def configure_logs(level: LogLevel) -> None:
    """Sets up structlog for the process; libraries that log by the standard way are heard from WARNING on."""
    number = logging.getLevelNamesMapping()[level.value]
    stream = LogStream(sys.stderr)
    _streams[:] = [stream]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            add_call,
            structlog.processors.JSONRenderer(serializer=_to_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, stream)),
        cache_logger_on_first_use=False,  # a cached one would not follow a later configuration
    )
    handler = _Handler(stream)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler])
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL)


def add_call(_: WrappedLogger | None, __: str, event: EventDict) -> EventDict:
    """Names the call during which a line is written."""
    span = trace.get_current_span().get_span_context()
    call = CURRENT_CALL.get(None)
    if call is not None:
        event.setdefault("request_id", call.request_id)
    if span.is_valid:
        event.setdefault("trace_id", trace.format_trace_id(span.trace_id))
    elif call is not None and call.traceparent:
        event.setdefault("trace_id", call.traceparent[_TRACE_ID])
    return event


class _Handler(logging.StreamHandler[LogStream]):
    """Loses what cannot be put into words; the library would print it raw, with its traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        self.stream.lost += 1


class _JsonLines(logging.Formatter):
    """Lines of libraries in the form of ours. Of an exception the type is told, never its text."""

    def format(self, record: logging.LogRecord) -> str:
        written_at = datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z")
        event: EventDict = {
            "event": record.getMessage(),
            "logger": record.name,
            "level": record.levelname.lower(),
            "timestamp": written_at,
        }
        if record.exc_info and record.exc_info[0] is not None:
            event["error"] = record.exc_info[0].__name__
        return _to_json(add_call(None, "", event))


def _to_json(event: object, **_: object) -> str:
    try:
        return orjson.dumps(event, default=str).decode()
    except TypeError:  # a number beyond 64 bits or half a surrogate pair, which the standard library can write
        return json.dumps(event, default=str)
