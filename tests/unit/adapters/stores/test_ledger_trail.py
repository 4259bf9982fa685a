from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog

from kit.ledgers import entry, trail_files
from pointsman_server.adapters.stores import ledger_trail
from pointsman_server.adapters.stores.ledger_trail import FolderTrails, NoTrails
from pointsman_server.domain.ledger import Booking, BudgetKey, EntryOutcome, Lease, LeaseChange, Remains
from pointsman_server.domain.ledger_ports import Trail

DAY = BudgetKey("t", "day", "2026-11-21")
MONTH = BudgetKey("t", "month", "2026-11")


def lease(name: str, amount: int, key: BudgetKey = DAY) -> Lease:
    return Lease(name, key, amount, True)


def open_trail(folder: Path, writer: str = "w") -> Trail:
    """A trail with its file."""
    trail = FolderTrails(folder).open(writer)
    trail.begin_anew(Remains(writer))
    return trail


async def left(folder: Path) -> list[Remains]:
    """What is found there, and left where it is."""
    found = await FolderTrails(folder).left_behind()
    for trail in found:
        trail.leave()
    return [trail.remains for trail in found]


class TestFollowing:
    async def test_everything_that_was_done(self, tmp_path: Path) -> None:
        trail = open_trail(tmp_path)
        trail.leased(lease("a", 100))
        trail.leased(lease("b", 50, MONTH))
        trail.reserved(1, [("a", 30), ("b", 30)])
        trail.reserved(2, [("a", 20)])
        settled = Booking(
            1, (LeaseChange("a", DAY, 10, 5, 3, 2), LeaseChange("b", MONTH, 10)), (entry(10, DAY, MONTH),)
        )
        trail.booked(settled, 1)
        doubtful = Booking(2, (LeaseChange("c", DAY, is_doubtful=True),))
        trail.booked(doubtful)
        trail.leave()
        (found,) = await left(tmp_path)
        assert found == Remains(
            writer="w",
            number=2,
            leases={"a": (DAY, 82), "b": (MONTH, 40)},
            outstanding={2: [("a", 20)]},
            bookings=[settled, doubtful],
        )
        assert found.bookings[0].entries[0].outcome is EntryOutcome.SUCCEEDED

    async def test_begun_anew_it_says_the_same(self, tmp_path: Path) -> None:
        trail = open_trail(tmp_path)
        for number in range(1, 4):
            trail.booked(Booking(number, (), (entry(number),)))
        remains = Remains(
            writer="w",
            number=7,
            leases={"a": (DAY, 82)},
            outstanding={2: [("a", 20)]},
            bookings=[Booking(6, (LeaseChange("a", DAY, 10),)), Booking(7, (LeaseChange("gone", DAY, 10),))],
        )
        trail.begin_anew(remains)
        trail.reserved(3, [("a", 1)])
        trail.leave()
        (found,) = await left(tmp_path)
        assert found == Remains("w", 7, remains.leases, {2: [("a", 20)], 3: [("a", 1)]}, remains.bookings)

    async def test_it_is_long_when_it_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ledger_trail, "LONG_BYTES", 1_000)
        trail = open_trail(tmp_path)
        bookings: list[Booking] = []
        while not trail.is_long:
            bookings.append(Booking(len(bookings) + 1, (), (entry(),)))
            trail.booked(bookings[-1])
        trail.begin_anew(Remains("w", len(bookings), bookings=bookings))
        assert not trail.is_long, "what cannot be shortened is not begun anew again and again"
        trail.end()


class TestWhoMayHaveIt:
    async def test_not_while_its_process_lives(self, tmp_path: Path) -> None:
        trail = open_trail(tmp_path)
        assert await left(tmp_path) == []
        trail.leave()
        assert [one.writer for one in await left(tmp_path)] == ["w"]

    async def test_only_one_at_a_time(self, tmp_path: Path) -> None:
        open_trail(tmp_path).leave()
        (claimed,) = await FolderTrails(tmp_path).left_behind()
        assert await left(tmp_path) == []
        claimed.remove()
        claimed.leave()
        assert trail_files(tmp_path) == []

    async def test_when_its_process_was_killed(self, tmp_path: Path) -> None:
        program = (
            "import os, signal, sys; from pathlib import Path\n"
            "from pointsman_server.adapters.stores.ledger_trail import FolderTrails\n"
            "trail = FolderTrails(Path(sys.argv[1])).open('w'); trail.reserved(1, [('a', 5)])\n"
            "os.kill(os.getpid(), signal.SIGKILL)"
        )
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program, str(tmp_path)], check=False)
        (found,) = await left(tmp_path)
        assert found.outstanding == {1: [("a", 5)]}
        assert found.is_whole

    async def test_nobody_after_its_end(self, tmp_path: Path) -> None:
        open_trail(tmp_path).end()
        assert await left(tmp_path) == []

    async def test_not_one_that_is_begun_anew_meanwhile(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        trail = open_trail(tmp_path)
        really_open = os.open
        state: dict[str, Any] = {}

        def slow_open(path: Any, flags: int, mode: int = 0o777) -> int:
            file = really_open(path, flags, mode)
            if flags == os.O_RDONLY and not state:
                state["begun"] = True
                trail.begin_anew(Remains("w"))
            return file

        monkeypatch.setattr(os, "open", slow_open)
        assert await left(tmp_path) == []
        assert state
        trail.end()

    async def test_not_one_that_vanishes(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        open_trail(tmp_path).leave()
        really_glob = Path.glob
        monkeypatch.setattr(Path, "glob", lambda self, _: [*really_glob(self, "*.trail"), self / "gone.trail"])
        assert [one.writer for one in await left(tmp_path)] == ["w"]

    async def test_one_that_may_not_be_read_is_passed_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        open_trail(tmp_path, "a").leave()
        open_trail(tmp_path, "b").leave()
        really_open = os.open

        def open_one(path: Any, flags: int, mode: int = 0o777) -> int:
            if str(path).endswith("a.trail"):
                raise PermissionError(13, "no")
            return really_open(path, flags, mode)

        monkeypatch.setattr(os, "open", open_one)
        with structlog.testing.capture_logs() as logs:
            assert [one.writer for one in await left(tmp_path)] == ["b"]
        assert [line["event"] for line in logs] == ["trail_not_read"]


class TestTrust:
    async def test_after_another_boot_it_may_lack_something(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        open_trail(tmp_path).leave()
        boot_id = tmp_path / "boot_id"
        boot_id.write_text("another\n")
        monkeypatch.setattr(ledger_trail, "_BOOT_ID", boot_id)
        assert [one.is_whole for one in await left(tmp_path)] == [False]

    async def test_where_boots_have_no_names_it_may_too(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ledger_trail, "_BOOT_ID", tmp_path / "none")
        open_trail(tmp_path).leave()
        assert [one.is_whole for one in await left(tmp_path)] == [False]

    async def test_a_line_without_its_end_was_never_followed(self, tmp_path: Path) -> None:
        trail = open_trail(tmp_path)
        trail.reserved(1, [("a", 5)])
        trail.leave()
        (file,) = trail_files(tmp_path)
        file.write_bytes(file.read_bytes() + b'["reserved",2,[["a",')
        (found,) = await left(tmp_path)
        assert (found.outstanding, found.is_whole) == ({1: [("a", 5)]}, True)

    @pytest.mark.parametrize(
        "line",
        [b"\x00\x00", b"{}", b"[]", b'["told",1]', b'["head",9,"b",0]', b'["booked",1,1,[],[["too","short"]]]', b"7"],
    )
    async def test_what_cannot_be_read_is_kept_for_people(self, tmp_path: Path, line: bytes) -> None:
        trail = open_trail(tmp_path)
        trail.reserved(1, [("a", 5)])
        trail.leave()
        (file,) = trail_files(tmp_path)
        file.write_bytes(file.read_bytes() + line + b'\n["reserved",2,[["a",5]]]\n')
        (claimed,) = await FolderTrails(tmp_path).left_behind()
        assert (claimed.remains.outstanding, claimed.remains.is_whole) == ({1: [("a", 5)]}, False)
        with structlog.testing.capture_logs() as logs:
            claimed.remove()
        claimed.leave()
        assert [line["event"] for line in logs] == ["trail_not_readable"]
        assert [one.name for one in (tmp_path / "ledger").iterdir()] == ["w.unreadable"]


class TestDisks:
    async def test_a_full_one_costs_the_trail_and_no_call(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        trail = open_trail(tmp_path)
        trail.leased(lease("a", 100))

        def full(*_: object) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
            patch.setattr(os, "write", full)
            trail.reserved(1, [("a", 5)])
            trail.booked(Booking(1), 1)
        assert [(line["event"], line["error"]) for line in logs] == [("trail_lost", "OSError")]
        trail.reserved(2, [("a", 5)])
        assert trail_files(tmp_path) == []
        trail.leave()
        assert await left(tmp_path) == []

    async def test_one_that_writes_a_part_gets_the_rest(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        trail, really_write = open_trail(tmp_path), os.write
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", lambda file, data: really_write(file, data[:7]))
            trail.reserved(1, [("a", 5)])
        trail.leave()
        assert [one.outstanding for one in await left(tmp_path)] == [{1: [("a", 5)]}]

    def test_a_folder_that_cannot_be_made_costs_the_trail_and_no_start(self, tmp_path: Path) -> None:
        (tmp_path / "ledger").write_text("a file")
        with structlog.testing.capture_logs() as logs:
            trail = open_trail(tmp_path)
        assert [line["event"] for line in logs] == ["trail_lost"]
        trail.leased(lease("a", 100))
        trail.begin_anew(Remains("w"))
        trail.end()
        assert (tmp_path / "ledger").read_text() == "a file"

    def test_one_that_has_nothing_to_say_is_no_file(self, tmp_path: Path) -> None:
        trail = FolderTrails(tmp_path).open("w")
        assert list(tmp_path.iterdir()) == []
        trail.leased(lease("a", 100))
        assert [file.stem for file in trail_files(tmp_path)] == ["w"]
        trail.end()
        trail.leased(lease("b", 100))
        assert trail_files(tmp_path) == []

    def test_others_may_not_read_it(self, tmp_path: Path) -> None:
        trail = open_trail(tmp_path)
        (file,) = trail_files(tmp_path)
        assert file.stat().st_mode & 0o077 == 0
        trail.end()


async def test_without_a_folder_nothing_is_kept() -> None:
    trails = NoTrails()
    trail = trails.open("w")
    trail.leased(lease("a", 1))
    trail.reserved(1, [("a", 1)])
    trail.booked(Booking(1), 1)
    trail.begin_anew(Remains("w"))
    assert not trail.is_long
    trail.leave()
    trail.end()
    assert await trails.left_behind() == ()
