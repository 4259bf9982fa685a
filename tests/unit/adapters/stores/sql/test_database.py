from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, closing, nullcontext
from pathlib import Path

import pytest
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from kit.databases import PostgresServer
from pointsman_server.adapters.stores.sql import connecting
from pointsman_server.adapters.stores.sql import database as module
from pointsman_server.adapters.stores.sql.database import MOST_CONNECTIONS, Database, DatabaseUnavailableError
from pointsman_server.adapters.stores.sql.schema import control_revision, flags

SECRET = "hunter2-secret"
REVISION = select(control_revision.c.revision)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for others ends soon."""
    monkeypatch.setattr(connecting, "BUSY_SECONDS", 0.2)
    monkeypatch.setattr(module, "BUSY_SECONDS", 0.2)


@asynccontextmanager
async def opened(url: str) -> AsyncGenerator[Database, None]:
    database = Database(url)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def revision(connection: AsyncConnection) -> int:
    return int((await connection.execute(REVISION)).scalar_one())


async def raise_revision(database: Database) -> None:
    async with database.write() as connection:
        before = int((await connection.execute(REVISION.with_for_update())).scalar_one())
        await asyncio.sleep(0)
        await connection.execute(update(control_revision).values(revision=before + 1))


async def test_what_is_written_stays(database: Database) -> None:
    await raise_revision(database)
    async with database.read() as connection:
        assert await revision(connection) == 1


async def test_an_exception_undoes_the_transaction(database: Database) -> None:
    async def fail() -> None:
        async with database.write() as connection:
            await connection.execute(update(control_revision).values(revision=7))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    async with database.read() as connection:
        assert await revision(connection) == 0


async def test_a_cancelled_writer_leaves_nothing_behind_and_lets_others_write(database: Database) -> None:
    is_in = asyncio.Event()

    async def write() -> None:
        async with database.write() as connection:
            await connection.execute(update(control_revision).values(revision=7))
            is_in.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await is_in.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await raise_revision(database)
    async with database.read() as connection:
        assert await revision(connection) == 1


async def test_reading_changes_nothing(database: Database) -> None:
    async def change() -> None:
        async with database.read() as connection:
            await connection.execute(update(control_revision).values(revision=7))

    with nullcontext() if database.is_sqlite else pytest.raises(DatabaseUnavailableError, match="25006"):
        await change()
    async with database.read() as connection:
        assert await revision(connection) == 0


async def test_a_reader_sees_one_moment(database: Database) -> None:
    async with database.read() as connection:
        assert await revision(connection) == 0
        await raise_revision(database)
        assert await revision(connection) == 0
    async with database.read() as connection:
        assert await revision(connection) == 1


async def test_writers_do_not_overwrite_each_other(database: Database) -> None:
    await asyncio.gather(*(raise_revision(database) for _ in range(40)))
    async with database.read() as connection:
        assert await revision(connection) == 40


async def test_two_processes_do_not_overwrite_each_other(database: Database, database_url: str) -> None:
    async with opened(database_url) as other:
        await asyncio.gather(*(raise_revision(one) for one in (database, other) for _ in range(20)))
    async with database.read() as connection:
        assert await revision(connection) == 40


async def test_errors_hold_no_values(database: Database) -> None:
    row = {"name": SECRET, "tenant": SECRET, "value_json": SECRET}
    with pytest.raises(DatabaseUnavailableError) as caught:
        async with database.write() as connection:
            await connection.execute(insert(flags), [row, row])
    assert SECRET not in str(caught.value)
    assert ("UNIQUE constraint" if database.is_sqlite else "23505") in str(caught.value)
    assert caught.value.__suppress_context__


async def test_errors_of_the_body_pass_as_they_are(database: Database) -> None:
    with pytest.raises(TimeoutError):
        async with database.write():
            raise TimeoutError
    with pytest.raises(KeyError):
        async with database.read():
            raise KeyError


async def test_a_transaction_that_takes_forever_is_given_up(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_SECONDS", 0.1)

    async def take_forever() -> None:
        async with database.write() as connection:
            await connection.execute(delete(control_revision))
            await asyncio.Event().wait()

    with pytest.raises(DatabaseUnavailableError, match="did not answer"):
        await take_forever()
    async with database.read() as connection:
        assert await revision(connection) == 0


@pytest.mark.usefixtures("impatient")
async def test_connections_are_bounded(database_url: str) -> None:
    async with opened(database_url) as database:
        async with AsyncExitStack() as held:
            for _ in range(MOST_CONNECTIONS):
                await held.enter_async_context(database.read())
            with pytest.raises(DatabaseUnavailableError, match="all connections to it are in use"):
                await held.enter_async_context(database.read())
        async with database.read() as connection:
            assert await revision(connection) == 0


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        f"mysql://user:{SECRET}@host/name",
        f"postgresql://user:{SECRET}@host:port/name",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///",
    ],
)
def test_other_urls_are_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ValueError, match="POINTSMAN_DATABASE_URL") as caught:
        Database(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg2", "postgresql+asyncpg"])
async def test_any_driver_that_the_url_names_is_ours(scheme: str, postgres_server: PostgresServer) -> None:
    url = postgres_server.make()
    async with opened(url.replace("postgresql", scheme, 1)) as database:
        assert not database.is_sqlite
        await raise_revision(database)
    postgres_server.drop(url)


async def test_what_the_url_says_about_connecting_is_heeded(postgres_server: PostgresServer) -> None:
    url = postgres_server.make()
    name = select(func.current_setting("application_name"))
    for more, expected in (("", "pointsman"), ("&application_name=mine&connect_timeout=3", "mine")):
        async with opened(url + more) as database, database.read() as connection:
            assert (await connection.execute(name)).scalar() == expected
    postgres_server.drop(url)


class TestFile:
    """What is so for SQLite only."""

    async def test_the_file_and_its_folder_are_made_for_the_service_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "folder" / "pointsman.db"
        async with opened(f"sqlite:///{path}"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    async def test_readers_do_not_wait_for_writers(self, tmp_path: Path) -> None:
        async with opened(f"sqlite:///{tmp_path}/file.db") as database, database.write() as writer:
            await writer.execute(update(control_revision).values(revision=7))
            async with database.read() as reader:
                assert await revision(reader) == 0

    @pytest.mark.usefixtures("impatient")
    async def test_a_file_that_others_lock_for_too_long_is_told_and_recovered_from(self, tmp_path: Path) -> None:
        path = tmp_path / "file.db"
        async with opened(f"sqlite:///{path}") as database:
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(DatabaseUnavailableError, match="database is locked"):
                    await raise_revision(database)
            await raise_revision(database)

    @pytest.mark.usefixtures("impatient")
    async def test_a_writer_does_not_queue_forever(self, tmp_path: Path) -> None:
        async with opened(f"sqlite:///{tmp_path}/file.db") as database:
            async with database.write():
                with pytest.raises(DatabaseUnavailableError, match="busy"):
                    await raise_revision(database)
            await raise_revision(database)

    async def test_a_folder_that_cannot_be_made_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DatabaseUnavailableError, match="cannot be made"):
            await Database(f"sqlite:///{tmp_path}/file/pointsman.db").open()

    async def test_a_file_that_is_no_database_is_told(self, tmp_path: Path) -> None:
        path = tmp_path / "file.db"
        path.write_text("these are words, and not a database at all\n" * 100)
        with pytest.raises(DatabaseUnavailableError, match="file is not a database"):
            await Database(f"sqlite:///{path}").open()


class TestServer:
    """What is so for PostgreSQL only."""

    async def test_nobody_there_is_told_without_the_password(self) -> None:
        database = Database(f"postgresql://user:{SECRET}@127.0.0.1:1/name")
        with pytest.raises(DatabaseUnavailableError, match="check POINTSMAN_DATABASE_URL") as caught:
            await database.open()
        assert SECRET not in str(caught.value)
        assert "127.0.0.1" not in str(caught.value)

    async def test_a_server_that_goes_and_comes_is_used_again(self, postgres: PostgresServer) -> None:
        async with opened(postgres.make()) as database:
            await raise_revision(database)
            for end in (postgres.stop, postgres.kill):
                end()
                with pytest.raises(DatabaseUnavailableError) as caught:
                    await raise_revision(database)
                assert "host" not in str(caught.value)
                postgres.start()
                await raise_revision(database)
            async with database.read() as connection:
                assert await revision(connection) == 3

    async def test_a_server_that_goes_in_the_middle_undoes_the_transaction(self, postgres: PostgresServer) -> None:
        async def lose_it(database: Database) -> None:
            async with database.write() as connection:
                await connection.execute(update(control_revision).values(revision=7))
                postgres.kill()
                await connection.execute(update(control_revision).values(revision=8))

        async with opened(postgres.make()) as database:
            with pytest.raises(DatabaseUnavailableError):
                await lose_it(database)
            postgres.start()
            async with database.read() as connection:
                assert await revision(connection) == 0

    @pytest.mark.usefixtures("impatient")
    async def test_a_writer_does_not_wait_forever_for_another(
        self, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(connecting, "BUSY_SECONDS", 1.0)
        url = postgres_server.make()
        async with opened(url) as database:
            async with database.write() as holder:
                await holder.execute(update(control_revision).values(revision=7))
                with pytest.raises(DatabaseUnavailableError, match="55P03"):
                    await raise_revision(database)
            await raise_revision(database)
        postgres_server.drop(url)
