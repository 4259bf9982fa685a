"""INSERT as both engines understand it where a row may be there already."""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

from sqlalchemy import Table
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

Insert: TypeAlias = postgresql.Insert | sqlite.Insert


def insert_or(connection: AsyncConnection, table: Table) -> Insert:
    """The engine's own INSERT, which knows ON CONFLICT."""
    return insert_of(connection.dialect.name, table)


def insert_of(engine: str, table: Table) -> Insert:
    """The same, for the engine with this name."""
    return sqlite.insert(table) if engine == "sqlite" else postgresql.insert(table)


def insert_new(connection: AsyncConnection, table: Table) -> Insert:
    """An INSERT that leaves rows alone that are there."""
    return _insert_new(table, connection.dialect.name)


def insert_or_add(connection: AsyncConnection, table: Table, sums: tuple[str, ...]) -> Insert:
    """An INSERT that adds to these columns of a row that is there already."""
    return _insert_or_add(table, sums, connection.dialect.name)


# Making a statement costs more than running it.
@cache
def _insert_new(table: Table, engine: str) -> Insert:
    return insert_of(engine, table).on_conflict_do_nothing()


@cache
def _insert_or_add(table: Table, sums: tuple[str, ...], engine: str) -> Insert:
    statement = insert_of(engine, table)
    added = {name: table.c[name] + statement.excluded[name] for name in sums}
    return statement.on_conflict_do_update(index_elements=[column.name for column in table.primary_key], set_=added)
