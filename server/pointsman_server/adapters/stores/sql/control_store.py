"""What operators set, in the database: keys, flags, kill switches, policies, rollouts, and the record of every change.

A change, its audit event and the raised revision are one transaction. Changes of all processes come one after the
other, so "before" in an audit event is what was really there, and no two changes share a revision.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from enum import Enum
from functools import lru_cache
from math import inf, nextafter
from typing import Any

from sqlalchemy import Row, and_, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from pointsman_server.adapters.stores.sql.audit_trail import Change, read_events, write_event
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.schema import (
    api_keys,
    control_revision,
    flags,
    kill_switches,
    policies,
    policy_applications,
    rollouts,
)
from pointsman_server.domain.caller import Role
from pointsman_server.domain.control import (
    AuditEvent,
    Control,
    Key,
    KillScope,
    KillSwitch,
    PolicyVersion,
    Rollout,
    RolloutKind,
)
from pointsman_server.domain.ports import Clock

_ONLY_ROW = 1


class _Action(Enum):
    KEY_CREATED = "key_created"
    KEY_REVOKED = "key_revoked"
    FLAG_SET = "flag_set"
    FLAG_CLEARED = "flag_cleared"
    KILL_SWITCH_ENGAGED = "kill_switch_engaged"
    KILL_SWITCH_RELEASED = "kill_switch_released"
    POLICY_APPLIED = "policy_applied"
    ROLLOUT_SET = "rollout_set"
    ROLLOUT_ENDED = "rollout_ended"


class ControlStore:
    """See `ControlKeeper`. Every method raises `DatabaseUnavailableError` when the database is away."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def revision(self) -> int:
        """See `ControlKeeper.revision`."""
        async with self._database.read() as connection:
            return await _revision(connection)

    async def load(self) -> Control:
        """See `ControlKeeper.load`."""
        async with self._database.read() as connection:
            keys = [_key(row) for row in await connection.execute(select(api_keys))]
            set_flags = await connection.execute(select(flags))
            switches = await connection.execute(select(kill_switches))
            applied = await _last_application(connection)
            return Control(
                revision=await _revision(connection),
                keys={key.digest: key for key in keys},
                flags={(row.name, row.tenant): json.loads(row.value_json) for row in set_flags},
                kill_switches=frozenset(KillSwitch(KillScope(row.scope), row.target, row.comment) for row in switches),
                policy_version="" if applied is None else applied.version,
                rollout=await _rollout(connection),
            )

    async def add_key(self, key: Key, actor: str) -> None:
        """See `ControlKeeper.add_key`."""
        taken = select(api_keys.c.id).where(or_(api_keys.c.id == key.id, api_keys.c.digest == key.digest))
        async with self._changing() as connection:
            if (await connection.execute(taken)).first() is not None:
                raise ValueError(f"a key with the id {key.id}, or with the same secret, exists already; make a new one")
            await connection.execute(insert(api_keys).values(_key_row(key)))
            await self._record(connection, Change(actor, _Action.KEY_CREATED.value, key.id, None, _told(key)))

    async def revoke_key(self, key_id: str, actor: str) -> bool:
        """See `ControlKeeper.revoke_key`."""
        this_one = api_keys.c.id == key_id
        async with self._changing() as connection:
            row = (await connection.execute(select(api_keys).where(this_one))).first()
            if row is None or row.revoked_at is not None:
                return False
            now = self._clock.now()
            await connection.execute(update(api_keys).where(this_one).values(revoked_at=now))
            before = _told(_key(row))
            after = {**before, "revoked_at": now}
            await self._record(connection, Change(actor, _Action.KEY_REVOKED.value, key_id, before, after))
            return True

    async def keys(self) -> list[Key]:
        """See `ControlKeeper.keys`."""
        async with self._database.read() as connection:
            rows = await connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id))
            return [_key(row) for row in rows]

    async def set_flag(self, name: str, tenant: str, value: Any, actor: str) -> bool:
        """See `ControlKeeper.set_flag`."""
        text = json.dumps(value, sort_keys=True, allow_nan=False)
        return await self._put_flag(name, tenant, text, actor)

    async def clear_flag(self, name: str, tenant: str, actor: str) -> bool:
        """See `ControlKeeper.clear_flag`."""
        return await self._put_flag(name, tenant, None, actor)

    async def _put_flag(self, name: str, tenant: str, text: str | None, actor: str) -> bool:
        this_one = and_(flags.c.name == name, flags.c.tenant == tenant)
        async with self._changing() as connection:
            before = (await connection.execute(select(flags.c.value_json).where(this_one))).scalar()
            if before == text:
                return False
            await connection.execute(delete(flags).where(this_one))
            if text is not None:
                await connection.execute(insert(flags).values(name=name, tenant=tenant, value_json=text))
            action = _Action.FLAG_CLEARED if text is None else _Action.FLAG_SET
            target = f"{name} for {tenant}" if tenant else name
            await self._record(connection, Change(actor, action.value, target, _flag(before), _flag(text)))
            return True

    async def set_kill_switch(self, scope: KillScope, target: str, engaged: bool, comment: str, actor: str) -> bool:
        """See `ControlKeeper.set_kill_switch`."""
        comment = _storable(comment)
        this_one = and_(kill_switches.c.scope == scope.value, kill_switches.c.target == target)
        async with self._changing() as connection:
            before = (await connection.execute(select(kill_switches.c.comment).where(this_one))).scalar()
            if before == (comment if engaged else None):
                return False
            await connection.execute(delete(kill_switches).where(this_one))
            if engaged:
                row = {"scope": scope.value, "target": target, "comment": comment}
                await connection.execute(insert(kill_switches).values(row))
            change = Change(
                actor,
                (_Action.KILL_SWITCH_ENGAGED if engaged else _Action.KILL_SWITCH_RELEASED).value,
                f"{scope.value} {target}" if target else scope.value,
                None if before is None else {"comment": before},
                {"comment": comment} if engaged else None,
                comment,
            )
            await self._record(connection, change)
            return True

    async def keep_policy(self, version: str, yaml: str) -> None:
        """See `ControlKeeper.keep_policy`."""
        async with self._changing() as connection:
            await _keep_policy(connection, version, yaml)

    async def apply_policy(self, version: str, yaml: str, author: str, comment: str) -> bool:
        """See `ControlKeeper.apply_policy`."""
        comment = _storable(comment)
        async with self._changing() as connection:
            last = await _last_application(connection)
            if last is not None and last.version == version:
                return False
            await _keep_policy(connection, version, yaml)
            # Strictly growing, whatever the clocks of the processes say: pages of the history are cut by it.
            now = self._clock.now() if last is None else max(self._clock.now(), nextafter(last.applied_at, inf))
            row = {"version": version, "author": author, "applied_at": now, "comment": comment}
            await connection.execute(insert(policy_applications).values(row))
            before = None if last is None else {"version": last.version}
            change = Change(author, _Action.POLICY_APPLIED.value, version, before, {"version": version}, comment)
            await self._record(connection, change)
            return True

    async def policy(self, version: str) -> PolicyVersion | None:
        """See `ControlKeeper.policy`."""
        applications = policy_applications.c
        last = select(policy_applications).where(applications.version == version).order_by(applications.id.desc())
        async with self._database.read() as connection:
            yaml = (await connection.execute(select(policies.c.yaml).where(policies.c.version == version))).scalar()
            if yaml is None:
                return None
            row = (await connection.execute(last.limit(1))).first()
            if row is None:
                return PolicyVersion(version, yaml, author="", applied_at=0.0, comment="")
            return PolicyVersion(version, yaml, row.author, row.applied_at, row.comment)

    async def policies(self, limit: int = 100, before: float | None = None) -> list[PolicyVersion]:
        """See `ControlKeeper.policies`."""
        query = select(policy_applications).order_by(policy_applications.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(policy_applications.c.applied_at < before)
        async with self._database.read() as connection:
            rows = await connection.execute(query)
            return [PolicyVersion(row.version, "", row.author, row.applied_at, row.comment) for row in rows]

    async def set_rollout(self, rollout: Rollout | None, actor: str, comment: str = "") -> bool:
        """See `ControlKeeper.set_rollout`."""
        async with self._changing() as connection:
            before = await _rollout(connection)
            if before == rollout:
                return False
            await connection.execute(delete(rollouts))
            if rollout is not None:
                await connection.execute(insert(rollouts).values({"id": _ONLY_ROW, **_rollout_row(rollout)}))
            action = _Action.ROLLOUT_ENDED if rollout is None else _Action.ROLLOUT_SET
            told, after = _told_rollout(before), _told_rollout(rollout)
            await self._record(connection, Change(actor, action.value, "rollout", told, after, _storable(comment)))
            return True

    async def note(
        self,
        actor: str,
        action: str,
        target: str,
        *,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        comment: str = "",
    ) -> None:
        """See `ControlKeeper.note`."""
        change = Change(actor, action, target, before, after, _storable(comment))
        async with self._database.write() as connection:
            await write_event(connection, change, self._clock.now())

    async def audit(
        self,
        limit: int = 100,
        before_id: int | None = None,
        *,
        start: float | None = None,
        end: float | None = None,
        actor: str = "",
        action: str = "",
    ) -> list[AuditEvent]:
        """See `ControlKeeper.audit`."""
        async with self._database.read() as connection:
            return await read_events(connection, limit, before_id, start, end, actor, action)

    @asynccontextmanager
    async def _changing(self) -> AsyncGenerator[AsyncConnection, None]:
        async with self._database.write() as connection:
            # PostgreSQL lets the next change in when this transaction ended; on SQLite every writer waits anyway.
            await connection.execute(select(control_revision).with_for_update())
            yield connection

    async def _record(self, connection: AsyncConnection, change: Change) -> None:
        await write_event(connection, change, self._clock.now())
        await connection.execute(update(control_revision).values(revision=control_revision.c.revision + 1))


async def _revision(connection: AsyncConnection) -> int:
    return int((await connection.execute(select(control_revision.c.revision))).scalar_one())


async def _last_application(connection: AsyncConnection) -> Row[Any] | None:
    last = select(policy_applications).order_by(policy_applications.c.id.desc()).limit(1)
    return (await connection.execute(last)).first()


async def _keep_policy(connection: AsyncConnection, version: str, yaml: str) -> None:
    known = select(policies.c.version).where(policies.c.version == version)
    if (await connection.execute(known)).first() is None:
        await connection.execute(insert(policies).values(version=version, yaml=yaml))


async def _rollout(connection: AsyncConnection) -> Rollout | None:
    row = (await connection.execute(select(rollouts))).first()
    return None if row is None else Rollout(row.version, RolloutKind(row.kind), row.percent)


def _told_rollout(rollout: Rollout | None) -> dict[str, Any] | None:
    return None if rollout is None else _rollout_row(rollout)


def _rollout_row(rollout: Rollout) -> dict[str, Any]:
    return {"version": rollout.version, "kind": rollout.kind.value, "percent": rollout.percent}


def _flag(text: str | None) -> dict[str, Any] | None:
    return None if text is None else {"value": json.loads(text)}


def _key(row: Row[Any]) -> Key:
    # By position: a change loads all keys, and naming columns for thousands of them holds the event loop up.
    key_id, digest, tenant, roles, note, created_at, expires_at, revoked_at = tuple(row)
    return Key(key_id, tenant, _roles(roles), digest, note, created_at, expires_at, revoked_at)


@lru_cache(maxsize=64)
def _roles(text: str) -> frozenset[Role]:
    return frozenset(Role(role) for role in text.split(",") if role)


def _key_row(key: Key) -> dict[str, Any]:
    return {**_told(key), "digest": key.digest, "roles": ",".join(_told(key)["roles"])}


def _told(key: Key) -> dict[str, Any]:
    """Everything but the digest."""
    return {
        "id": key.id,
        "tenant": key.tenant,
        "roles": sorted(role.value for role in key.roles),
        "note": _storable(key.note),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }


def _storable(text: str) -> str:
    """PostgreSQL cannot keep the character zero."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
