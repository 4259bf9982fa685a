"""INSERT as both engines understand it where a row may be there already."""

from __future__ import annotations

from typing import TypeAlias

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

_Insert: TypeAlias = postgresql.Insert | sqlite.Insert


def insert_or(connection: AsyncConnection, table: Table) -> _Insert:
    """The engine's own INSERT, which knows ON CONFLICT."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)


def insert_new(connection: AsyncConnection, table: Table) -> _Insert:
    """An INSERT that leaves rows alone that are there."""
    return insert_or(connection, table).on_conflict_do_nothing()
