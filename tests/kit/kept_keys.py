"""Keys in a real database, as `pointsman keys create` makes them."""

from __future__ import annotations

from collections.abc import Collection

from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.domain.caller import Role
from pointsman_server.domain.control import Key
from pointsman_server.execution.keys import NewKey, make_key


async def keep_keys(url: str, tenants: Collection[str]) -> dict[str, NewKey]:
    """A key of each tenant that may call, by tenant."""
    made = {tenant: make_key() for tenant in tenants}
    database = Database(url)
    await database.open()
    store = ControlStore(database, SystemClock())
    for tenant, key in made.items():
        await store.add_key(Key(key.id, tenant, frozenset({Role.CALL}), key.digest), "test")
    await database.close()
    return made


async def revoke_key(url: str, key: NewKey) -> None:
    """As `pointsman keys revoke` does."""
    database = Database(url)
    await database.open()
    assert await ControlStore(database, SystemClock()).revoke_key(key.id, "test")
    await database.close()
