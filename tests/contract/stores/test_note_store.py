"""Notes in the database: the same on both engines, and for all processes that share it."""

from __future__ import annotations

import pytest

from kit.clock import FakeClock
from pointsman_server.adapters.stores.sql import note_store
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.note_store import SqlNotes
from pointsman_server.adapters.stores.sql.schema import shared_notes
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.domain.ports import StoreUnavailableError
from pointsman_server.execution.shared_memory import Note, NoteKind, NoteName


def name(number: object = 1, tenant: str = "shop", kind: NoteKind = NoteKind.DECISION) -> NoteName:
    return NoteName(kind, tenant, f"{number}")


@pytest.fixture
def store(database: Database) -> SqlNotes:
    return SqlNotes(database, SystemClock())


async def value(store: SqlNotes, some: NoteName) -> bytes | None:
    found = await store.read(some)
    return None if found is None else found.value


async def test_what_was_written_is_read_by_its_whole_name_alone(store: SqlNotes) -> None:
    await store.write([Note(name(), b"\x00\xff", 300.0), Note(name(2), b"", 10.0)])
    found = await store.read(name())
    assert found is not None
    assert found.value == b"\x00\xff"
    assert found.left_seconds == pytest.approx(300.0, abs=5.0)
    assert await value(store, name(2)) == b""
    assert await store.read(name(3)) is None
    assert await store.read(name(tenant="other")) is None
    assert await store.read(name(kind=NoteKind.SESSION)) is None


async def test_a_later_one_takes_its_place(store: SqlNotes) -> None:
    await store.write([Note(name(), b"first", 0.001)])
    await store.write([Note(name(), b"second", 300.0)])
    assert await value(store, name()) == b"second"


async def test_one_whose_time_is_over_is_neither_read_nor_kept(store: SqlNotes, database: Database) -> None:
    await store.write([Note(name(1), b"old", -1.0), Note(name(2), b"new", 300.0)])
    assert await value(store, name(1)) is None
    await store.clean()
    async with database.read() as connection:
        kept = (await connection.execute(shared_notes.select())).all()
    assert [row.name for row in kept] == ["2"]


@pytest.mark.parametrize("kind", [NoteKind.ANSWER, NoteKind.VERDICT])
async def test_of_too_many_the_oldest_give_way(
    store: SqlNotes, kind: NoteKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(note_store, "MOST_OF_A_KIND", 3)
    many = [Note(name(number, kind=kind), b"", 100.0 + number) for number in range(5)]
    await store.write([*many, Note(name(), b"", 1.0)])
    await store.clean()
    assert [number for number in range(5) if await store.read(name(number, kind=kind))] == [2, 3, 4]
    assert await value(store, name()) == b""
    await store.clean()
    assert await store.read(name(2, kind=kind)) is not None


async def test_notes_of_a_kind_are_read_in_order_from_anywhere(store: SqlNotes) -> None:
    verdicts = [
        Note(name(number, f"t{number}", NoteKind.VERDICT), b"v%d" % number, 100.0 + number) for number in (2, 1, 3)
    ]
    await store.write([*verdicts, Note(name(4), b"", 500.0)])
    first = await store.since(NoteKind.VERDICT, 0.0, 2)
    assert [(note.name, note.value) for note in first] == [
        (name(1, "t1", NoteKind.VERDICT), b"v1"),
        (name(2, "t2", NoteKind.VERDICT), b"v2"),
    ]
    rest = await store.since(NoteKind.VERDICT, first[-1].until, 10)
    assert [note.value for note in rest] == [b"v2", b"v3"]
    assert await store.since(NoteKind.VERDICT, rest[-1].until + 1.0, 10) == []


async def test_sqlite_goes_by_the_clock_that_it_is_given(database: Database) -> None:
    if not database.is_sqlite:
        pytest.skip("PostgreSQL has a clock of its own")
    clock = FakeClock()
    store = SqlNotes(database, clock)
    await store.write([Note(name(), b"x", 10.0)])
    clock.advance(9.0)
    assert await value(store, name()) == b"x"
    clock.advance(1.0)
    assert await store.read(name()) is None


async def test_a_database_that_is_away_says_so(store: SqlNotes, database: Database) -> None:
    async with database.write() as connection:
        await connection.exec_driver_sql("DROP TABLE shared_notes")
    doings = (
        store.read(name()),
        store.write([Note(name(), b"", 1.0)]),
        store.clean(),
        store.since(NoteKind.VERDICT, 0.0, 1),
    )
    for doing in doings:
        with pytest.raises(StoreUnavailableError):
            await doing
