"""Brings a database's schema up to date, forward only."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from importlib.resources import files
from time import monotonic, sleep

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, create_engine, func, select
from sqlalchemy.pool import NullPool

from pointsman_server.adapters.stores.sql.connecting import (
    BUSY_SECONDS,
    WRITES,
    DatabaseUnavailableError,
    engine_options,
    prepare,
)

_ADVISORY_LOCK = 0x706F_696E_7473_6D6E
"""Any number that nobody else's program would lock in the same PostgreSQL database."""

_ONE_AT_A_TIME = threading.Lock()
"""Alembic keeps the migration under way in a global variable."""


def migrate(url: URL, revision: str = "head") -> None:
    """Brings the schema to this revision. Processes that do it at once do it one after the other.

    All of it is one transaction: a migration that fails leaves the database as it was. Raises
    `DatabaseUnavailableError` when the database was made by a newer version, else SQLAlchemy's errors.
    """
    engine = create_engine(url, poolclass=NullPool, **engine_options(url))
    prepare(engine)
    try:
        if engine.dialect.name == "sqlite":
            _use_write_ahead_log(str(url.database))
        with _ONE_AT_A_TIME, engine.execution_options(**{WRITES: True}).begin() as connection:
            _upgrade(connection, revision)
    finally:
        engine.dispose()


def _upgrade(connection: Connection, revision: str) -> None:
    if connection.dialect.name == "postgresql":
        # Another process may take its time to migrate large tables.
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        connection.execute(select(func.pg_advisory_xact_lock(_ADVISORY_LOCK)))
    config = Config()
    # Percent signs are references to options there.
    config.set_main_option("script_location", str(files(__package__) / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError:
        raise DatabaseUnavailableError(
            "the database was made by a newer version of pointsman; run that version, or restore a backup"
        ) from None


def _use_write_ahead_log(path: str) -> None:
    """The file remembers it. SQLite does not always wait for others here, so this does."""
    until = monotonic() + BUSY_SECONDS
    while True:
        try:
            with closing(sqlite3.connect(path, timeout=0.0)) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() > until:
                raise DatabaseUnavailableError(f"the database's file cannot be used: {error}") from None
            sleep(0.02)
        else:
            return
