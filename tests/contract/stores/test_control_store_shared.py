"""What operators set stays whole when several processes set it at once, and when the database goes and comes."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE

import pytest
from sqlalchemy import insert, select

from kit.clock import FakeClock
from kit.databases import PostgresServer
from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.schema import policies
from pointsman_server.domain.ports import StoreUnavailableError


@pytest.fixture
def store(database: Database) -> ControlStore:
    return ControlStore(database, FakeClock())


CHANGES = 25

CHANGE = """
import asyncio, sys
from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.domain.caller import Role
from pointsman_server.domain.control import Key

class Clock:
    monotonic = now = staticmethod(lambda: 1.0)

async def main(url, name):
    database = Database(url)
    store, seen = ControlStore(database, Clock()), []
    for number in range({changes}):
        key = Key(f"{{name}}-{{number}}", name, frozenset(), f"{{name:>16}}{{number:>16}}".encode())
        await store.add_key(key, name)
        await store.set_flag("shared", "", f"{{name}}-{{number}}", name)
        seen.append(await store.revision())
    await database.close()
    assert seen == sorted(set(seen)), seen

print("ready", flush=True)
sys.stdin.readline()
asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_that_change_at_once_lose_nothing(store: ControlStore, database_url: str) -> None:
    names = ["a", "b", "c", "d"]
    command = [sys.executable, "-c", CHANGE.format(changes=CHANGES), database_url]
    processes = [await asyncio.create_subprocess_exec(*command, name, stdin=PIPE, stdout=PIPE) for name in names]
    for process in processes:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
    await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    assert [process.returncode for process in processes] == [0, 0, 0, 0]
    control = await store.load()
    in_all = len(names) * CHANGES
    assert control.revision == 2 * in_all
    assert {key.id for key in control.keys.values()} == {
        f"{name}-{number}" for name in names for number in range(CHANGES)
    }
    events = list(reversed(await store.audit(limit=1_000)))
    assert len(events) == 2 * in_all
    # Each change of the flag names what the change before it left there: no two worked side by side.
    changes = [event for event in events if event.action == "flag_set"]
    assert [event.before for event in changes] == ["null", *(event.after for event in changes[:-1])]
    assert json.loads(changes[-1].after) == {"value": control.flags["shared", ""]}


async def test_a_server_that_is_away_is_told_and_nothing_is_lost(postgres: PostgresServer) -> None:
    database = Database(postgres.make())
    await database.open()
    store = ControlStore(database, FakeClock())
    await store.set_flag("hedging", "", True, "ops")
    postgres.kill()
    with pytest.raises(StoreUnavailableError):
        await store.revision()
    with pytest.raises(StoreUnavailableError):
        await store.set_flag("hedging", "", False, "ops")
    postgres.start()
    assert (await store.load()).flags == {("hedging", ""): True}
    await store.set_flag("hedging", "", False, "ops")
    assert await store.revision() == 2
    await database.close()


async def test_a_policy_kept_twice_at_once_is_kept_once(store: ControlStore, database: Database) -> None:
    await asyncio.gather(*(store.keep_policy("v1", "a\n") for _ in range(5)))
    async with database.read() as connection:
        assert (await connection.execute(select(policies))).all() == [("v1", "a\n")]
    async with database.write() as connection:
        await connection.execute(insert(policies).values(version="v2", yaml="b\n"))
    assert await store.apply_policy("v2", "b\n", "ann", "")
