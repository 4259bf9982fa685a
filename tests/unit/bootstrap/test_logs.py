from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider

from kit.house import open_door
from pointsman_server.bootstrap.logs import configure_logs, lost_lines
from pointsman_server.config.settings import LogLevel
from pointsman_server.domain.errors import FieldProblem, InvalidRequest
from pointsman_server.rpc.boundary import CURRENT_CALL, CallInfo

QUIET = (
    "aiohttp.server",
    "aiohttp.client",
    "grpc",
    "grpc._cython.cygrpc",
    "asyncio",
    "opentelemetry.exporter",
    "opentelemetry.sdk._shared_internal",
)
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def unchanged() -> Iterator[None]:
    """Puts everything back that configuring changes for the whole process."""
    saved, root = structlog.get_config(), logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in QUIET}
    yield
    structlog.configure(**saved)
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, was in levels.items():
        logging.getLogger(name).setLevel(was)


def configure(level: LogLevel) -> None:
    """As at the start of a process, where nobody has set up logging."""
    logging.getLogger().handlers.clear()
    configure_logs(level)


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_a_line_is_a_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogLevel.INFO)
    structlog.get_logger("test").info("serving", port=1, odd=object, text="two\nlines")
    (line,) = lines(capsys)
    assert (line["event"], line["level"], line["port"], line["text"]) == ("serving", "info", 1, "two\nlines")
    assert line["timestamp"].endswith("Z")
    assert line["odd"] == str(object)


@pytest.mark.parametrize(
    ("level", "heard"),
    [(LogLevel.DEBUG, 4), (LogLevel.INFO, 3), (LogLevel.WARNING, 2), (LogLevel.ERROR, 1)],
    ids=lambda value: str(value),
)
def test_the_level_is_kept(capsys: pytest.CaptureFixture[str], level: LogLevel, heard: int) -> None:
    configure(level)
    log = structlog.get_logger("test")
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("x")
    assert len(lines(capsys)) == heard


@pytest.mark.parametrize("name", QUIET)
def test_libraries_that_quote_what_callers_sent_are_not_heard(capsys: pytest.CaptureFixture[str], name: str) -> None:
    configure(LogLevel.DEBUG)
    logging.getLogger(name).error("GET /?secret")
    assert lines(capsys) == []


def test_other_libraries_are_heard_when_they_warn(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogLevel.DEBUG)
    logging.getLogger("some.library").info("not this")
    logging.getLogger("some.library").warning("but %s", "this")
    (line,) = lines(capsys)
    assert line.pop("timestamp").endswith("Z")
    assert line == {"event": "but this", "logger": "some.library", "level": "warning"}


def test_of_a_librarys_exception_the_type_is_told_and_not_the_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogLevel.INFO)
    try:
        raise ValueError("canary")
    except ValueError:
        logging.getLogger("some.library").exception("it failed")
    logging.getLogger("some.library").error("no exception", exc_info=True)
    told = lines(capsys)
    assert [line.get("error") for line in told] == ["ValueError", None]
    assert "canary" not in str(told)


def test_a_librarys_line_that_makes_no_sense_is_lost(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogLevel.INFO)
    assert lost_lines() == 0
    logging.getLogger("some.library").warning("%d canaries", "no number")
    assert lines(capsys) == []
    assert lost_lines() == 1


@pytest.mark.parametrize("value", [2**70, "half a pair \ud83d"], ids=["large", "surrogate"])
def test_what_the_fast_writer_cannot_write_is_written_all_the_same(
    capsys: pytest.CaptureFixture[str], value: object
) -> None:
    configure(LogLevel.INFO)
    structlog.get_logger("test").info("odd", value=value)
    (line,) = lines(capsys)
    assert line["value"] == value


class TestWithinACall:
    """Lines name the call during which they are written."""

    def test_request_and_trace(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure(LogLevel.INFO)
        with serving(TRACEPARENT):
            structlog.get_logger("test").info("ours")
            structlog.get_logger("test").info("ours", request_id="its own")
            logging.getLogger("some.library").warning("theirs")
        structlog.get_logger("test").info("after")
        told = [(line.get("request_id"), line.get("trace_id")) for line in lines(capsys)]
        trace_id = TRACEPARENT[3:35]
        assert told == [("req_1", trace_id), ("its own", trace_id), ("req_1", trace_id), (None, None)]

    def test_without_a_trace(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure(LogLevel.INFO)
        with serving(""):
            structlog.get_logger("test").info("ours")
        (line,) = lines(capsys)
        assert line["request_id"] == "req_1"
        assert "trace_id" not in line

    def test_a_span_knows_its_trace_best(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure(LogLevel.INFO)
        provider = TracerProvider(shutdown_on_exit=False)
        with serving(TRACEPARENT), provider.get_tracer("test").start_as_current_span("x") as span:
            structlog.get_logger("test").info("ours")
        (line,) = lines(capsys)
        assert line["trace_id"] == f"{span.get_span_context().trace_id:032x}"

    async def test_a_call_at_the_border(self, capsys: pytest.CaptureFixture[str]) -> None:
        configure(LogLevel.INFO)

        async def complete(request: Any, context: Any) -> Any:
            structlog.get_logger("test").info("within")
            raise InvalidRequest((FieldProblem("completion", "is wrong"),))

        async with open_door(Router(complete)) as door:
            method = door.channel.unary_unary("/pointsman.v1.RouterService/Complete")
            metadata = (("traceparent", TRACEPARENT), ("x-request-id", "mine"))
            with pytest.raises(grpc.aio.AioRpcError):
                await method(b"", metadata=metadata, timeout=5)
        told = lines(capsys)
        assert {line["event"] for line in told} >= {"within", "call_refused"}
        assert {(line["request_id"], line["trace_id"]) for line in told} == {("mine", TRACEPARENT[3:35])}


class Router:
    """Completes as the test says."""

    def __init__(self, complete: Any) -> None:
        self.Complete = complete
        self.Route = self.StreamComplete = None


@contextmanager
def serving(traceparent: str) -> Iterator[None]:
    """As within a call."""
    fields: dict[str, Any] = dict.fromkeys(CallInfo._fields, 0) | {"request_id": "req_1", "traceparent": traceparent}
    token = CURRENT_CALL.set(CallInfo(**fields))
    try:
        yield
    finally:
        CURRENT_CALL.reset(token)
