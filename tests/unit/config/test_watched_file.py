"""A file that is looked at: each settled change is told once, and so is everything that can befall a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pointsman_server.config.watched_file import SETTLE_SECONDS, UnreadableFileError, WatchedFile
from pointsman_server.config.yaml_tree import MAX_BYTES

LATER = SETTLE_SECONDS + 0.01


class Eye:
    """Looks again and again, so far apart that whatever is there has settled."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.file = WatchedFile(path, content)
        self.now = 100.0

    def look(self) -> bytes | None:
        seen = self.file.look(self.now)
        self.now += LATER
        return seen

    def settled(self) -> bytes | None:
        self.look()
        return self.look()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.yaml"
    path.write_bytes(b"first")
    return path


@pytest.fixture
def eye(path: Path) -> Eye:
    eye = Eye(path, b"first")
    assert eye.settled() is None
    return eye


def test_what_did_not_change_is_not_told(eye: Eye) -> None:
    assert [eye.look() for _ in range(5)] == [None] * 5


def test_a_change_is_told_once(eye: Eye, path: Path) -> None:
    path.write_bytes(b"second")
    assert eye.look() is None
    assert eye.look() == b"second"
    assert [eye.look() for _ in range(3)] == [None] * 3


def test_it_has_to_settle_first(eye: Eye, path: Path) -> None:
    path.write_bytes(b"seco")
    assert eye.file.look(200.0) is None
    assert eye.file.look(200.0 + SETTLE_SECONDS / 2) is None
    path.write_bytes(b"second")
    assert eye.file.look(200.0 + SETTLE_SECONDS) is None
    assert eye.file.look(200.0 + 2 * SETTLE_SECONDS) == b"second"


def test_what_changed_before_the_first_look_is_told(path: Path) -> None:
    eye = Eye(path, b"zeroth")
    assert eye.settled() == b"first"


def test_a_touch_is_no_change(eye: Eye, path: Path) -> None:
    os.utime(path, (1, 1))
    assert eye.settled() is None
    assert eye.file.changed_at() == 1.0


def test_another_file_of_the_same_size_and_time_is_a_change(eye: Eye, path: Path) -> None:
    was = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"SECND")
    os.utime(other, ns=(was.st_atime_ns, was.st_mtime_ns))
    os.replace(other, path)
    assert eye.settled() == b"SECND"


def test_a_link_that_leads_elsewhere_is_a_change(tmp_path: Path) -> None:
    (tmp_path / "one").write_bytes(b"first")
    (tmp_path / "two").write_bytes(b"second")
    link = tmp_path / "policy.yaml"
    link.symlink_to("one")
    eye = Eye(link, b"first")
    assert eye.settled() is None
    (tmp_path / "new").symlink_to("two")
    os.replace(tmp_path / "new", link)
    assert eye.settled() == b"second"
    os.unlink(tmp_path / "two")
    eye.look()
    with pytest.raises(UnreadableFileError, match="does not exist"):
        eye.look()


class TestUnreadable:
    def told(self, eye: Eye) -> str:
        assert eye.look() is None
        with pytest.raises(UnreadableFileError) as caught:
            eye.look()
        assert [eye.look() for _ in range(3)] == [None] * 3, "told again"
        return str(caught.value)

    def test_a_deleted_file_is_told_once_and_so_is_its_return(self, eye: Eye, path: Path) -> None:
        path.unlink()
        assert self.told(eye) == "does not exist"
        assert eye.file.changed_at() == 0.0
        path.write_bytes(b"first")
        assert eye.settled() == b"first"

    def test_a_folder(self, eye: Eye, path: Path) -> None:
        path.unlink()
        path.mkdir()
        assert self.told(eye) == "is not a regular file"

    def test_a_file_without_end(self, eye: Eye, path: Path) -> None:
        path.write_bytes(b"x" * (MAX_BYTES + 1))
        assert self.told(eye) == f"is longer than {MAX_BYTES} bytes"

    def test_a_link_in_a_circle(self, eye: Eye, path: Path) -> None:
        path.unlink()
        path.symlink_to(path.name)
        assert self.told(eye).startswith("cannot be read (")

    def test_lost_permission(self, eye: Eye, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The tests may run as root, who may read everything."""
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        assert self.told(eye) == "cannot be read (Permission denied)"
        monkeypatch.undo()
        assert eye.settled() == b"first"

    def test_it_fails_while_it_is_read(self, eye: Eye, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def read_bytes(path: Path) -> bytes:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(Path, "read_bytes", read_bytes)
        path.write_bytes(b"second")
        assert self.told(eye) == "cannot be read (Input/output error)"


def test_what_is_written_while_it_is_read_waits(eye: Eye, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        content = real(path)
        with path.open("ab") as file:
            file.write(b", and more")
        return content

    path.write_bytes(b"second")
    eye.look()
    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    assert eye.look() is None
    monkeypatch.undo()
    assert eye.settled() == b"second, and more"
