from __future__ import annotations

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

import pytest

from pointsman_server.bootstrap.log_stream import LogStream


class Pipe:
    """Both ends of a pipe; what is written is read when the test wants it."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        self.writer: TextIO = os.fdopen(writing, "w")
        self.stream = LogStream(self.writer)

    def read(self) -> str:
        """All that is in it."""
        return os.read(self.reading, 1 << 20).decode()

    def fill(self) -> None:
        """Leaves no room for anything."""
        os.set_blocking(self.writer.fileno(), False)
        try:
            while True:
                os.write(self.writer.fileno(), b"x" * 4_096)
        except BlockingIOError:
            os.set_blocking(self.writer.fileno(), True)

    def close(self) -> None:
        with suppress(OSError):  # a test may have closed it
            os.close(self.reading)
        self.writer.close()


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


def test_lines_come_through_in_order(pipe: Pipe) -> None:
    assert pipe.stream.write("one\n") == 4
    pipe.stream.write("zwei, ü\n")
    pipe.stream.flush()
    assert pipe.read() == "one\nzwei, ü\n"
    assert pipe.stream.lost == 0


def test_half_a_surrogate_pair_is_escaped(pipe: Pipe) -> None:
    pipe.stream.write("a \ud83d b\n")
    assert pipe.read() == "a \\ud83d b\n"


def test_a_pipe_that_nobody_reads_is_not_waited_for(pipe: Pipe) -> None:
    pipe.fill()
    started_at = time.monotonic()
    pipe.stream.write("lost\n")
    assert time.monotonic() - started_at < 1
    assert pipe.stream.lost == 1
    pipe.read()
    pipe.stream.write("heard\n")
    assert pipe.read().endswith("heard\n")
    assert pipe.stream.lost == 1


def test_a_line_that_fits_only_in_part_does_not_spoil_the_next(pipe: Pipe) -> None:
    pipe.fill()
    os.read(pipe.reading, 4_096)
    started_at = time.monotonic()
    pipe.stream.write("y" * 20_000 + "\n")
    assert time.monotonic() - started_at < 1
    assert pipe.stream.lost == 1
    assert "\n" not in pipe.read()
    pipe.stream.write("heard\n")
    pipe.stream.write("again\n")
    assert pipe.read() == "\nheard\nagain\n"


def test_a_pipe_whose_reader_is_gone(pipe: Pipe) -> None:
    os.close(pipe.reading)
    pipe.stream.write("lost\n")
    pipe.stream.write("lost\n")
    assert pipe.stream.lost == 2


def test_a_closed_file(tmp_path: Path) -> None:
    file = (tmp_path / "log").open("w")
    stream = LogStream(file)
    os.close(file.fileno())
    stream.write("lost\n")
    assert stream.lost == 1
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk() -> None:
    with open("/dev/full", "w") as file:
        stream = LogStream(file)
        for _ in range(3):
            stream.write("lost\n")
    assert stream.lost == 3


def test_no_stream_at_all() -> None:
    stream = LogStream(None)
    assert stream.write("lost\n") == 5
    assert stream.lost == 1


def test_a_stream_without_a_file() -> None:
    text = io.StringIO()
    stream = LogStream(text)
    stream.write("one\n")
    assert text.getvalue() == "one\n"
    text.close()
    stream.write("lost\n")
    assert stream.lost == 1


def test_several_threads_at_once(pipe: Pipe) -> None:
    def write() -> None:
        for _ in range(200):
            pipe.stream.write("0123456789\n")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = pipe.read().splitlines()
    assert set(lines) == {"0123456789"}
    assert len(lines) + pipe.stream.lost == 800


_SERVING = """
import sys
import structlog
from pointsman_server.bootstrap.logs import configure_logs, lost_lines
from pointsman_server.config.settings import LogLevel

configure_logs(LogLevel.INFO)
for number in range(3):
    structlog.get_logger("test").info("line", number=number)
print("went on, lost", lost_lines())
"""


@pytest.mark.parametrize(
    ("shell", "lost"),
    [('exec "$0" -c "$1" 2>&-', 3), ('exec "$0" -c "$1" 2>/dev/full', 3), ('exec "$0" -c "$1" 2>/dev/null', 0)],
    ids=["closed", "full disk", "fine"],
)
def test_a_process_whose_standard_error_is_broken_goes_on(shell: str, lost: int) -> None:
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable, _SERVING], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stdout == f"went on, lost {lost}\n"
    assert done.returncode == 0
