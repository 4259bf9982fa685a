from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog

from pointsman_server.adapters.stores import line_file
from pointsman_server.adapters.stores.line_file import LineFile, old_files


def written(path: Path, *items: str) -> LineFile[str]:
    """A file that was opened, got these items and was closed."""
    file = LineFile(path, str.encode)
    file.start()
    for item in items:
        file.append(item)
    file.close()
    return file


class Gate:
    """An encoder that waits to be let on; counts what it was given."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()

    def encode(self, item: str) -> bytes:
        self.reached.set()
        assert self.open.wait(10)
        return item.encode()


def test_items_become_lines_in_their_order(tmp_path: Path) -> None:
    file = written(tmp_path / "deep" / "er" / "lines", *"abc")
    assert (tmp_path / "deep" / "er" / "lines").read_text() == "a\nb\nc\n"
    assert file.dropped == 0


def test_later_runs_append(tmp_path: Path) -> None:
    written(tmp_path / "lines", "a")
    written(tmp_path / "lines", "b")
    assert (tmp_path / "lines").read_text() == "a\nb\n"


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "lines", str.encode)
    file.start()

    def write(writer: int) -> None:
        for place in range(200):
            file.append(f"{writer}:{place}")

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    file.close()
    lines = (tmp_path / "lines").read_text().splitlines()
    assert sorted(lines) == sorted(f"{n}:{i}" for n in range(4) for i in range(200))
    for n in range(4):
        mine = [line for line in lines if line.startswith(f"{n}:")]
        assert mine == [f"{n}:{i}" for i in range(200)]


def test_appending_waits_for_no_disk(tmp_path: Path) -> None:
    gate = Gate()
    file = LineFile(tmp_path / "lines", gate.encode)
    file.start()
    file.append("a")
    assert gate.reached.wait(10)
    file.append("b")  # returns although nothing can be written
    assert (tmp_path / "lines").read_text() == ""
    gate.open.set()
    file.close()
    assert (tmp_path / "lines").read_text() == "a\nb\n"


def test_what_is_too_much_is_dropped_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_file, "MOST_WAITING", 2)
    gate = Gate()
    file = LineFile(tmp_path / "lines", gate.encode)
    file.start()
    file.append("a")
    assert gate.reached.wait(10)
    for item in "bcde":
        file.append(item)
    gate.open.set()
    with structlog.testing.capture_logs() as logs:
        file.close()
    assert (tmp_path / "lines").read_text() == "a\nb\nc\n"
    assert [(line["event"], line["count"]) for line in logs] == [("lines_dropped", 2)]


def test_drops_are_told_when_they_begin_and_not_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_file, "MOST_WAITING", 2)
    gate = Gate()
    file = LineFile(tmp_path / "lines", gate.encode)
    file.start()
    with structlog.testing.capture_logs() as logs:
        file.append("a")
        assert gate.reached.wait(10)
        for item in "bc":
            file.append(item)
        assert logs == []
        for item in "defgh":
            file.append(item)
        assert [(line["event"], line["file"], line["log_level"]) for line in logs] == [
            ("lines_dropping", "lines", "warning")
        ]
        gate.open.set()
        until(lambda: (tmp_path / "lines").read_text() == "a\nb\nc\n" and not file._dropping)
        gate.open.clear()
        gate.reached.clear()
        file.append("i")
        assert gate.reached.wait(10)
        for item in "jkl":
            file.append(item)
        assert [line["event"] for line in logs] == ["lines_dropping"] * 2  # it had caught up, so that this is news
        gate.open.set()
        file.close()
    assert (logs[-1]["event"], logs[-1]["count"]) == ("lines_dropped", 6)


def test_what_is_appended_before_the_start_waits_for_it(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "deep" / "lines", str.encode)
    file.append("a")
    assert list(tmp_path.iterdir()) == []
    file.start()
    file.append("b")
    file.close()
    assert (tmp_path / "deep" / "lines").read_text() == "a\nb\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [("", ""), ("a\n", "a\n"), ("a\nb", "a\n"), ("b", ""), ("a\n" + "b" * 9, "a\n"), ("a\n\nb", "a\n\n")],
)
@pytest.mark.parametrize("step", [1, 4, 1_000])
def test_a_line_that_a_crash_left_torn_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: str, after: str, step: int
) -> None:
    monkeypatch.setattr(line_file, "_TAIL_BYTES", step)
    (tmp_path / "lines").write_text(before)
    with structlog.testing.capture_logs() as logs:
        written(tmp_path / "lines", "new")
    assert (tmp_path / "lines").read_text() == after + "new\n"
    lost = len(before) - len(after)
    assert [(line["event"], line["bytes"]) for line in logs] == ([("torn_line_cut", lost)] if lost else [])


def test_a_disk_that_fills_in_the_middle_leaves_no_torn_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "lines", "a")
    real, full = os.write, [True]

    def write(file: int, data: memoryview) -> int:
        if not full:
            return real(file, data[:1])  # a disk that takes a little at a time
        if len(data) < 5:
            raise OSError("no space left")
        return real(file, data[:3])

    monkeypatch.setattr(os, "write", write)
    file = LineFile(tmp_path / "lines", str.encode)
    file.start()
    file.append("bbbbb")
    until(lambda: file.dropped == 1)
    assert (tmp_path / "lines").read_text() == "a\n"
    full.clear()
    file.append("ccccc")
    file.close()
    assert (tmp_path / "lines").read_text() == "a\nccccc\n"


@pytest.mark.parametrize("path", [None, "lines"])
def test_what_was_never_started_or_has_no_path_keeps_nothing(tmp_path: Path, path: str | None) -> None:
    file = LineFile(tmp_path / path if path else None, str.encode)
    if path is None:
        file.start()
    file.append("a")
    file.close()
    file.close()
    assert list(tmp_path.iterdir()) == []


def test_after_its_end_nothing_is_taken(tmp_path: Path) -> None:
    file = written(tmp_path / "lines", "a")
    file.append("b")
    file.close()
    assert (tmp_path / "lines").read_text() == "a\n"


def test_a_folder_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        LineFile(tmp_path / "file" / "lines", str.encode).start()


def test_a_disk_that_fails_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    file = LineFile(path, str.encode)
    file.start()
    path.unlink()
    path.mkdir()
    with structlog.testing.capture_logs() as logs:
        file.append("lost")
        until(lambda: file.dropped == 1)
        path.rmdir()
        file.append("kept")
        file.close()
    assert path.read_text() == "kept\n"
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("lines_not_written", "error"),
        ("lines_dropped", "warning"),
    ]
    assert (logs[0]["file"], logs[0]["error"]) == ("lines", "IsADirectoryError")


def test_an_item_that_cannot_be_encoded_costs_itself_and_nothing_else(tmp_path: Path) -> None:
    file = LineFile(tmp_path / "lines", str.encode)
    file.start()
    file.append("\ud800")
    until(lambda: file.dropped == 1)
    file.append("kept")
    file.close()
    assert (tmp_path / "lines").read_text() == "kept\n"


def until(happened: Callable[[], bool]) -> None:
    for _ in range(1_000):
        if happened():
            return
        time.sleep(0.005)
    raise AssertionError("it never happened")


class TestOldFiles:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(line_file, "MOST_FILE_BYTES", 3)
        monkeypatch.setattr(line_file, "MOST_OLD_FILES", 2)

    def test_a_full_file_is_numbered_and_kept(self, tmp_path: Path) -> None:
        for item in ("aa", "bb", "cc"):
            written(tmp_path / "lines", item)
        assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {
            "lines.000001": "aa\nbb\n",
            "lines": "cc\n",
        }

    def test_the_oldest_goes_when_there_are_too_many(self, tmp_path: Path) -> None:
        for item in ("aaa", "bbb", "ccc", "ddd", "eee"):
            written(tmp_path / "lines", item)
        assert [file.name for file in old_files(tmp_path / "lines")] == ["lines.000003", "lines.000004"]
        texts = [file.read_text() for file in (*old_files(tmp_path / "lines"), tmp_path / "lines")]
        assert texts == ["ccc\n", "ddd\n", "eee\n"]

    def test_other_files_are_left_alone(self, tmp_path: Path) -> None:
        for name in ("lines.txt", "lines.000001.bak", "other.000001"):
            (tmp_path / name).write_text("x")
        assert old_files(tmp_path / "lines") == []
        for item in ("aaa", "bbb", "ccc", "ddd", "eee"):
            written(tmp_path / "lines", item)
        assert {"lines.txt", "lines.000001.bak", "other.000001"} < {file.name for file in tmp_path.iterdir()}
