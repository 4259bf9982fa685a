"""The database: SQLite in one file, or PostgreSQL; connections and transactions."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from pointsman_server.adapters.stores.sql.connecting import (
    BUSY_SECONDS,
    WRITES,
    DatabaseUnavailableError,
    engine_options,
    parsed,
    prepare,
)

__all__ = ["BUSY_SECONDS", "LONGEST_SECONDS", "MOST_CONNECTIONS", "Database", "DatabaseUnavailableError"]

MOST_CONNECTIONS = 4
"""Of one process."""

LONGEST_SECONDS = 30.0
"""After this a transaction is given up, whatever it waits for."""


class Database:
    """One database. `write` is a transaction that may change things, `read` one that may not.

    Inside both, SQLAlchemy's errors are as they are; what leaves them is `DatabaseUnavailableError`. Raises
    `ValueError` for a URL of anything else than a file of SQLite or a PostgreSQL database.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        target = parsed(url, is_async=True)
        self.is_sqlite = target.get_backend_name() == "sqlite"
        self._engine = create_async_engine(
            target,
            pool_size=MOST_CONNECTIONS,
            max_overflow=0,
            pool_timeout=BUSY_SECONDS,
            pool_pre_ping=not self.is_sqlite,
            **engine_options(target),
        )
        prepare(self._engine.sync_engine)
        self._writing = self._engine.execution_options(**{WRITES: True})
        one_moment = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
        self._reading = self._engine.execution_options(**one_moment)
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Makes the file and its folder, and brings the schema up to date. Raises `DatabaseUnavailableError`."""
        # Only who opens a database needs what migrates it, which takes long to import.
        from pointsman_server.adapters.stores.sql.migrating import migrate

        url = parsed(self._url, is_async=False)
        try:
            if self.is_sqlite and url.database:
                await asyncio.to_thread(_make_file, Path(url.database))
            await asyncio.to_thread(migrate, url)
        except OSError as error:
            raise DatabaseUnavailableError(f"the database's file cannot be made: {error.strerror}") from None
        except SQLAlchemyError as error:
            raise DatabaseUnavailableError(
                f"the database cannot be prepared: {_reason(error)}; check POINTSMAN_DATABASE_URL and the server"
            ) from None

    @asynccontextmanager
    async def write(self) -> AsyncGenerator[AsyncConnection, None]:
        """A transaction, committed at the end and rolled back by an exception."""
        if not self.is_sqlite:
            async with self._guarded(self._writing.begin()) as connection:
                yield connection
            return
        # SQLite lets one write at a time, and those who wait find out by looking again and again: here they queue.
        await self._take_turn()
        try:
            async with self._guarded(self._writing.begin()) as connection:
                yield connection
        finally:
            self._turn.release()

    @asynccontextmanager
    async def read(self) -> AsyncGenerator[AsyncConnection, None]:
        """A view of the data at one moment. Changes are refused or undone."""
        async with self._guarded(self._reading.connect()) as connection:
            yield connection

    async def close(self) -> None:
        """Closes all connections."""
        await self._engine.dispose()

    async def _take_turn(self) -> None:
        try:
            async with asyncio.timeout(BUSY_SECONDS):
                await self._turn.acquire()
        except TimeoutError:
            raise DatabaseUnavailableError("the database is busy: other writers of this process wait for it") from None

    @asynccontextmanager
    async def _guarded(
        self, transaction: AbstractAsyncContextManager[AsyncConnection]
    ) -> AsyncGenerator[AsyncConnection, None]:
        patience = asyncio.timeout(LONGEST_SECONDS)
        try:
            async with patience, transaction as connection:
                yield connection
        except SQLAlchemyError as error:
            raise DatabaseUnavailableError(f"the database does not do what it is told: {_reason(error)}") from None
        except TimeoutError:
            if not patience.expired():
                raise
            raise DatabaseUnavailableError(f"the database did not answer for {LONGEST_SECONDS:.0f} seconds") from None


def _make_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # It will hold what people spend and what models answered.
    path.touch(mode=0o600, exist_ok=True)


def _reason(error: SQLAlchemyError) -> str:
    """What went wrong without values, addresses and names of users, which PostgreSQL's own words may hold."""
    if isinstance(error, PoolTimeoutError):
        return "all connections to it are in use"
    original: object = getattr(error, "orig", None)
    if isinstance(original, sqlite3.Error):
        # SQLite's own words name tables and columns at most.
        return str(original)
    state = getattr(original, "sqlstate", None)
    return f"{type(error).__name__} {state}" if state else type(error).__name__
