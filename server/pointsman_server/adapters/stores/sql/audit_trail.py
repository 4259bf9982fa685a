"""The record of changes: who did what to what, when, and what was there before and after."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from pointsman_server.adapters.stores.sql.schema import audit_events
from pointsman_server.domain.control import AuditEvent


@dataclass(frozen=True, slots=True)
class Change:
    """A change to be recorded. `before` and `after` are plain values for JSON, never a secret; None is nothing there.

    `action` and `target` are names of our own or bounded by the contract: at most 64 and 256 characters.
    """

    actor: str
    action: str
    target: str
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None
    comment: str = ""


async def write_event(connection: AsyncConnection, change: Change, at: float) -> None:
    """Adds the change to the record."""
    row = {
        "at": at,
        "actor": change.actor,
        "action": change.action,
        "target": change.target,
        "before": _json(change.before),
        "after": _json(change.after),
        "comment": change.comment,
    }
    await connection.execute(insert(audit_events).values(row))


async def read_events(
    connection: AsyncConnection,
    limit: int,
    before_id: int | None,
    start: float | None,
    end: float | None,
    actor: str,
    action: str,
) -> list[AuditEvent]:
    """Newest first; see `ControlKeeper.audit`."""
    column = audit_events.c
    statement = select(audit_events).order_by(column.id.desc()).limit(limit)
    if before_id is not None:
        statement = statement.where(column.id < before_id)
    if start is not None:
        statement = statement.where(column.at >= start)
    if end is not None:
        statement = statement.where(column.at < end)
    if actor:
        statement = statement.where(column.actor == actor)
    if action:
        statement = statement.where(column.action == action)
    return [AuditEvent(*row) for row in await connection.execute(statement)]


def _json(value: Mapping[str, Any] | None) -> str:
    return json.dumps(value, sort_keys=True, allow_nan=False)
