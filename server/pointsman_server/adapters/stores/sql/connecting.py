"""How both engines are connected to: the same rules for the service's connections and for those of migrations."""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Connection, Engine, event, make_url
from sqlalchemy.exc import ArgumentError

from pointsman_server.domain.ports import StoreUnavailableError

BUSY_SECONDS = 5.0
"""How long a writer waits for another, and how long a connection is waited for."""

IDLE_TRANSACTION_SECONDS = 30
"""After this PostgreSQL ends the transaction of a process that went silent in the middle of it."""

WRITES = "pointsman_writes"
"""Execution option of connections that will write."""

_DRIVERS = {
    ("sqlite", True): "sqlite+aiosqlite",
    ("sqlite", False): "sqlite+pysqlite",
    ("postgresql", True): "postgresql+psycopg",
    ("postgresql", False): "postgresql+psycopg",
}
_WRONG_URL = (
    "POINTSMAN_DATABASE_URL is neither sqlite:///PATH/OF/A/FILE nor postgresql://USER:PASSWORD@HOST:PORT/NAME "
    "(its value is not shown)"
)


class DatabaseUnavailableError(StoreUnavailableError):
    """The database cannot be reached or does not do what it is told; the message holds no address and no password."""


def parsed(url: str, *, is_async: bool) -> URL:
    """The URL with the driver that is used. Raises `ValueError` without quoting it, as it may hold a password."""
    try:
        given = make_url(url)
    except (ArgumentError, ValueError):
        raise ValueError(_WRONG_URL) from None
    name = given.get_backend_name()
    # Several connections work on it, so SQLite's must be a file.
    if (name, is_async) not in _DRIVERS or (name == "sqlite" and given.database in (None, "", ":memory:")):
        raise ValueError(_WRONG_URL)
    return given.set(drivername=_DRIVERS[name, is_async])


def engine_options(url: URL) -> dict[str, Any]:
    """Arguments of `create_engine`; `hide_parameters` keeps values out of every message."""
    if url.get_backend_name() == "sqlite":
        # Without an isolation level the driver leaves BEGIN to us.
        return {"hide_parameters": True, "connect_args": {"timeout": BUSY_SECONDS, "isolation_level": None}}
    arguments: dict[str, Any] = {
        "connect_timeout": int(BUSY_SECONDS),
        "application_name": "pointsman",
        # A network that swallows packets is noticed within seconds instead of hours.
        "tcp_user_timeout": int(BUSY_SECONDS * 1_000),
        "keepalives_idle": int(BUSY_SECONDS),
        "keepalives_interval": 2,
        "keepalives_count": 3,
    }
    # What the URL says goes before.
    ours = {name: value for name, value in arguments.items() if name not in url.query}
    return {"hide_parameters": True, "connect_args": ours}


def prepare(engine: Engine) -> None:
    """Makes every connection of this engine follow the rules."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    else:
        event.listen(engine, "connect", _prepare_postgresql)


def _prepare_sqlite(connection: Any, _: object) -> None:
    cursor = connection.cursor()
    # The file is in WAL mode since it was made; then NORMAL loses nothing when the process dies.
    cursor.execute("PRAGMA synchronous = NORMAL")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(WRITES, False)
    # Two that begin by reading and then write would each wait for the other; one of them would fail at once.
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _prepare_postgresql(connection: Any, _: object) -> None:
    # By statements instead of start-up options, which connection poolers refuse.
    cursor = connection.cursor()
    cursor.execute(f"SET lock_timeout = '{BUSY_SECONDS:.0f}s'")
    cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_TRANSACTION_SECONDS}s'")
    cursor.close()
    connection.commit()
