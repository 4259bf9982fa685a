from __future__ import annotations

import asyncio
import shutil
import sqlite3
import sys
from asyncio.subprocess import PIPE
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, func, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from kit.databases import PostgresServer
from pointsman_server.adapters.stores.sql import connecting, migrating
from pointsman_server.adapters.stores.sql.connecting import parsed
from pointsman_server.adapters.stores.sql.database import Database, DatabaseUnavailableError
from pointsman_server.adapters.stores.sql.migrating import migrate
from pointsman_server.adapters.stores.sql.schema import api_keys, control_revision, metadata

FOLDER = Path(migrating.__file__).parent / "migrations"

NEXT = """
import sqlalchemy as sa
from alembic import op

revision, down_revision = "9999", "{down}"


def upgrade():
    op.add_column("api_keys", sa.Column("colour", sa.String(8), nullable=False, server_default="blue"))
    {then}
"""

OPEN = """
import asyncio, sys
from pointsman_server.adapters.stores.sql import migrating
from pointsman_server.adapters.stores.sql.database import Database

database = Database(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
asyncio.run(database.open())
"""


def with_next_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: str = "pass") -> None:
    """As if this program had one migration more."""
    shutil.copytree(FOLDER, tmp_path / "sql" / "migrations")
    last = max(path.name[:4] for path in FOLDER.glob("versions/0*.py"))
    (tmp_path / "sql" / "migrations" / "versions" / "9999_next.py").write_text(NEXT.format(down=last, then=then))
    monkeypatch.setattr(migrating, "files", lambda _: tmp_path / "sql")


def test_the_migrations_make_exactly_the_tables_of_the_schema(database_url: str) -> None:
    url = parsed(database_url, is_async=False)
    migrate(url)
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert connection.execute(select(control_revision)).all() == [(1, 0)]
    engine.dispose()


async def test_opening_again_changes_nothing(database: Database, database_url: str) -> None:
    key = {"id": "k", "digest": b"d" * 32, "tenant": "t", "roles": "", "note": "", "created_at": 1.0}
    async with database.write() as connection:
        await connection.execute(api_keys.insert().values(key))
    again = Database(database_url)
    await again.open()
    async with again.read() as connection:
        assert (await connection.execute(select(api_keys.c.id))).scalars().all() == ["k"]
    await again.close()


def test_an_older_database_is_brought_up_to_date_with_what_is_in_it(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = parsed(database_url, is_async=False)
    migrate(url, "0001")
    engine = create_engine(url)
    with engine.begin() as connection:
        key = {"id": "k", "digest": b"d" * 32, "tenant": "t", "roles": "call", "note": "", "created_at": 1.0}
        connection.execute(api_keys.insert().values(key))
    with_next_version(tmp_path, monkeypatch)
    migrate(url)
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT id, tenant, colour FROM api_keys").all() == [("k", "t", "blue")]
    engine.dispose()


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = parsed(database_url, is_async=False)
    migrate(url)
    with monkeypatch.context() as patched:
        with_next_version(tmp_path, patched, then='op.drop_table("no_such_table")')
        with pytest.raises(SQLAlchemyError):
            migrate(url)
    engine = create_engine(url)
    assert "colour" not in [column["name"] for column in inspect(engine).get_columns("api_keys")]
    engine.dispose()
    migrate(url)


async def test_a_database_of_a_newer_version_is_refused(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        with_next_version(tmp_path, patched)
        await Database(database_url).open()
    with pytest.raises(DatabaseUnavailableError, match="newer version of pointsman"):
        await Database(database_url).open()


async def test_processes_that_start_at_once_make_the_tables_once(database_url: str) -> None:
    command = [sys.executable, "-c", OPEN, database_url]
    processes = [await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE) for _ in range(4)]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    database = Database(database_url)
    async with database.read() as connection:
        assert (await connection.execute(select(func.count()).select_from(control_revision))).scalar() == 1
    await database.close()


async def test_databases_of_one_process_are_opened_at_once(tmp_path: Path, postgres_server: PostgresServer) -> None:
    urls = [f"sqlite:///{tmp_path}/{number}.db" for number in range(3)]
    urls += [postgres_server.make() for _ in range(3)]
    databases = [Database(url) for url in urls]
    await asyncio.gather(*(database.open() for database in databases))
    for database in databases:
        async with database.read() as connection:
            assert (await connection.execute(select(control_revision.c.revision))).scalar() == 0
        await database.close()
    for url in urls[3:]:
        postgres_server.drop(url)


async def test_an_empty_file_becomes_a_database(tmp_path: Path) -> None:
    path = tmp_path / "pointsman.db"
    path.touch()
    database = Database(f"sqlite:///{path}")
    await database.open()
    await database.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_file_that_others_lock_for_too_long_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "pointsman.db"
    for module in (connecting, migrating):
        monkeypatch.setattr(module, "BUSY_SECONDS", 0.1)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        other.execute("CREATE TABLE something (id INTEGER)")
        with pytest.raises(DatabaseUnavailableError, match="database is locked"):
            await Database(f"sqlite:///{path}").open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseUnavailableError, match="cannot be prepared: database is locked"):
            await Database(f"sqlite:///{path}").open()


async def test_opening_waits_for_others_who_use_the_file(tmp_path: Path) -> None:
    path = tmp_path / "pointsman.db"
    database = Database(f"sqlite:///{path}")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        opening = asyncio.create_task(database.open())
        await asyncio.sleep(0.2)
        assert not opening.done()
        other.execute("ROLLBACK")
    await opening
    await database.close()


async def test_a_folder_with_a_percent_sign_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FOLDER, tmp_path / "100%(here)s" / "migrations")
    monkeypatch.setattr(migrating, "files", lambda _: tmp_path / "100%(here)s")
    database = Database(f"sqlite:///{tmp_path}/100%.db")
    await database.open()
    await database.close()
    assert (tmp_path / "100%.db").exists()
