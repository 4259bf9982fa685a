"""Logs: one JSON object a line on standard error; no text of a request or an answer ever gets there."""

from __future__ import annotations

import logging
import sys

import orjson
import structlog

from pointsman_server.config.settings import LogLevel


def configure_logs(level: LogLevel) -> None:
    """Sets up structlog for the process; libraries that log by the standard way are heard from WARNING on."""
    number = logging.getLevelNamesMapping()[level.value]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=_to_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(number, logging.WARNING), format="%(message)s", stream=sys.stderr)
    # They log request lines, addresses or exception texts, which may hold what a caller sent.
    for name in ("aiohttp.server", "aiohttp.client", "grpc._cython.cygrpc", "grpc", "asyncio", "httpx2", "anthropic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _to_json(event: object, **_: object) -> str:
    return orjson.dumps(event, default=str).decode()
