"""The time that all processes agree on, as part of a statement."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Float, cast, extract, func, literal

from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.domain.ports import Clock

SERVERS_CLOCK: ColumnElement[float] = cast(extract("epoch", func.clock_timestamp()), Float)
"""PostgreSQL's own. Seconds since the Unix epoch."""


def now_by(database: Database, clock: Clock) -> ColumnElement[float]:
    """The database's clock; on SQLite, which has none of its own, `clock`."""
    if database.is_sqlite:
        return literal(clock.now())
    return SERVERS_CLOCK
