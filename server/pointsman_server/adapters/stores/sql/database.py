"""The database: SQLite in one file, or PostgreSQL; connections, transactions and migrations."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import URL, create_engine, event, make_url
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

BUSY_SECONDS = 5.0
"""How long a writer waits for another; also how long a connection is waited for."""

MOST_CONNECTIONS = 4
"""Of one process to PostgreSQL."""

_ASYNC = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg"}
_SYNC = {"sqlite": "sqlite+pysqlite", "postgresql": "postgresql+psycopg"}


class DatabaseUnavailableError(Exception):
    """The database cannot be reached or does not do what it is told; the message holds no address and no password."""


class Database:
    """One database. `write` is a transaction that may change things, `read` one that may not."""

    def __init__(self, url: str) -> None:
        self._url = make_url(url)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {} if self.is_sqlite else {"pool_size": MOST_CONNECTIONS, "max_overflow": 0}
        if not self.is_sqlite:
            options["pool_timeout"] = BUSY_SECONDS
            options["pool_pre_ping"] = True
        self._engine = create_async_engine(self._with(_ASYNC), **options)
        if self.is_sqlite:
            event.listen(self._engine.sync_engine, "connect", _prepare_sqlite)

    async def open(self) -> None:
        """Makes the file's folder and brings the schema up to date. Raises `DatabaseUnavailableError`."""
        if self.is_sqlite and self._url.database:
            Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
        try:
            await asyncio.to_thread(migrate, self._with(_SYNC))
        except (DBAPIError, OSError) as error:
            raise DatabaseUnavailableError(f"the database cannot be prepared ({type(error).__name__})") from error

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncConnection, None]:
        """A transaction, committed at the end and rolled back by an exception."""
        async with self._engine.connect() as connection:
            if self.is_sqlite:
                # Otherwise two that began by reading both wait for the other to let them write.
                await connection.exec_driver_sql("BEGIN IMMEDIATE")
            async with connection.begin() if not connection.in_transaction() else _running(connection):
                yield connection

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection, None]:
        """A view of the data at one moment."""
        async with self._engine.connect() as connection:
            yield connection

    async def close(self) -> None:
        """Closes all connections."""
        await self._engine.dispose()

    def _with(self, drivers: dict[str, str]) -> URL:
        return self._url.set(drivername=drivers[self._url.get_backend_name()])


def migrate(url: URL, revision: str = "head") -> None:
    """Brings the schema to this revision, forward only. Two processes that do it at once do it one after the other."""
    config = Config()
    config.set_main_option("script_location", str(files(__package__) / "migrations"))
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            _lock(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            connection.commit()
    finally:
        engine.dispose()
