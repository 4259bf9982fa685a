"""What operators set, changed from the command line: directly in the database that the servers share."""

from __future__ import annotations

import getpass
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.cli.database import with_database

T = TypeVar("T")


def with_control_store(use: Callable[[ControlStore], Awaitable[T]]) -> T:
    """Gives the store of the database that `POINTSMAN_DATABASE_URL` names to `use`; see `with_database`."""
    return with_database(lambda database: use(ControlStore(database, SystemClock())))


def operator_name() -> str:
    """Who makes the change, for its record."""
    try:
        return f"cli:{getpass.getuser()}"[:128]
    except (KeyError, OSError):  # a user id without a name, in a container for example
        return "cli"
