"""The database that servers share, opened for a command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.cli.configuration import ConfigurationError, environment, read_settings
from pointsman_server.domain.ports import StoreUnavailableError

T = TypeVar("T")


def with_database(use: Callable[[Database], Awaitable[T]]) -> T:
    """Opens the database that `POINTSMAN_DATABASE_URL` names and gives it to `use`; returns what that returns.

    Raises `ConfigurationError` for a URL that is none, and `click.ClickException` for a database that is away.
    """
    try:
        return asyncio.run(_with_database(read_settings(environment({})).database_url, use))
    except StoreUnavailableError as error:
        raise click.ClickException(str(error)) from error


async def _with_database(url: str, use: Callable[[Database], Awaitable[T]]) -> T:
    try:
        database = Database(url)
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    try:
        await database.open()
        return await use(database)
    finally:
        await database.close()
