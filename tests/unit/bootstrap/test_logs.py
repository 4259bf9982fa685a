from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from pointsman_server.bootstrap.logs import configure_logs
from pointsman_server.config.settings import LogLevel

QUIET = ("aiohttp.server", "aiohttp.client", "grpc", "grpc._cython.cygrpc", "asyncio")


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
    logging.getLogger("some.library").warning("but this")
    assert capsys.readouterr().err == "but this\n"
