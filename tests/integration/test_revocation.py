"""A key that ends takes its running streams with it, on every process, and what they cost is booked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import select

from kit.callers import bearer
from kit.kept_keys import keep_keys, revoke_key
from kit.running import RichError, connected, one_deployment_each, router, running_service, spec
from kit.upstream import Upstream, chunk, running_upstream, sse_script
from pointsman.v1.router_service_pb2 import StreamCompleteRequest
from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.schema import ledger_entries
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.domain.caller import Role
from pointsman_server.domain.control import Key
from pointsman_server.execution.keys import NewKey, make_key

pytestmark = pytest.mark.slow

ENDLESS = sse_script(chunk("One two three four five"), end="stall", done=False)
EVERYWHERE_SECONDS = 2.0


@dataclass
class Site:
    """Two processes' worth of service over one database."""

    url: str
    stubs: list[Any]
    upstream: Upstream

    async def stream(self, place: int, key: NewKey) -> Any:
        """A stream whose first piece has come."""
        request = StreamCompleteRequest(completion=spec())
        events = aiter(self.stubs[place].StreamComplete(request, metadata=bearer(key.text), timeout=60))
        while (await anext(events)).WhichOneof("event") != "delta":
            pass
        return events

    async def booked(self) -> list[tuple[str, int, int]]:
        """Tenant, output tokens and cost of what the ledger has."""
        database = Database(self.url)
        async with database.read() as connection:
            wanted = select(ledger_entries.c.tenant, ledger_entries.c.output_tokens, ledger_entries.c.cost_micro_usd)
            rows = [tuple(row) for row in await connection.execute(wanted)]
        await database.close()
        return rows


@asynccontextmanager
async def running_site(folder: Path) -> AsyncGenerator[Site, None]:
    url = f"sqlite:///{folder}/pointsman.db"
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(running_upstream(ENDLESS))
        policy = one_deployment_each({"up": upstream.base_url}, timeouts={"idle_seconds": 60})
        stubs = []
        for number in range(2):
            settings = {"database_url": url, "state_dir": str(folder / f"state-{number}")}
            service = await stack.enter_async_context(running_service(policy, **settings))
            stubs.append(router(await stack.enter_async_context(connected(service))))
        yield Site(url, stubs, upstream)


async def ended(events: Any) -> RichError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(anext(events), 30)
    return RichError(caught.value)


async def test_a_revoked_key_ends_its_streams_on_every_process_and_no_others(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/pointsman.db"
    keys = await keep_keys(url, ("shop", "other"))
    async with running_site(tmp_path) as site:
        streams = [await site.stream(place, keys["shop"]) for place in range(2)]
        spared = await site.stream(0, keys["other"])
        began = time.monotonic()
        await revoke_key(url, keys["shop"])
        for error in await asyncio.gather(*map(ended, streams)):
            assert (error.code, error.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
            assert "carries no valid credentials" in error.message
        assert time.monotonic() - began < EVERYWHERE_SECONDS
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(spared), 0.5)
        await asyncio.sleep(1.0)
        booked = [(tokens, cost) for tenant, tokens, cost in await site.booked() if tenant == "shop"]
        assert len(booked) == 2
        assert all(tokens >= 4 and cost > 0 for tokens, cost in booked), "what was read is paid for"
        assert site.upstream.calls == 3


async def test_a_key_that_expires_ends_them_at_its_time(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/pointsman.db"
    await keep_keys(url, ("shop",))
    async with running_site(tmp_path) as site:
        made = make_key()
        expires_at = time.time() + 3.0
        key = Key(made.id, "shop", frozenset({Role.CALL}), made.digest, expires_at=expires_at)
        database = Database(url)
        await ControlStore(database, SystemClock()).add_key(replace(key, created_at=time.time()), "test")
        await database.close()
        await asyncio.sleep(1.5)
        stream = await site.stream(1, made)
        error = await ended(stream)
        assert error.code is grpc.StatusCode.UNAUTHENTICATED
        assert 0.0 <= time.time() - expires_at < EVERYWHERE_SECONDS
        await asyncio.wait_for(site.upstream.nobody_connected.wait(), 5)
