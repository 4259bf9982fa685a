"""Recorded calls in the database: the same on both engines, and for all processes that share it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from pointsman_server.adapters.stores.sql import trace_store
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.trace_store import SqlTraces
from pointsman_server.domain.ports import StoreUnavailableError
from pointsman_server.domain.trace import Trace, TraceLine, TraceQuery

PLENTY = 1_000


def trace(request_id: str = "r", at: float = 100.0, expires_at: float = 1_000.0, **line: Any) -> Trace:
    """A recorded call of the tenant `shop`."""
    fields = {"latency_seconds": 0.5, "tenant": "shop", "model": "m", "outcome": "OK", "cost_micro_usd": 7, **line}
    return Trace(TraceLine(request_id, at, **fields), expires_at)


@pytest.fixture
def store(database: Database) -> SqlTraces:
    return SqlTraces(database)


async def ids(store: SqlTraces, limit: int = PLENTY, **query: Any) -> list[str]:
    return [line.request_id for _, line in await store.find(TraceQuery(**query), limit)]


async def clean(
    store: SqlTraces, now: float = 0.0, tenants: Collection[str] = (), of_tenant: int = PLENTY, most: int = PLENTY
) -> int:
    return await store.clean(now, tenants, most_of_tenant=of_tenant, most=most)


async def test_what_was_written_is_read_as_it_was(store: SqlTraces) -> None:
    line = TraceLine("req-1", 1_732_900_021.065_123, 0.123_456, "shop", "m", "UNAVAILABLE", 2**40)
    written = Trace(line, 1_733_000_000.5, b"\x00\xff account", {"agent": "Grüße", "a": ""}, "masked 🙂\n", "ja")
    await store.write([written])
    assert await store.get("req-1") == written
    ((place, found),) = await store.find(TraceQuery(), 10)
    assert (found, place.started_at) == (line, line.started_at)


async def test_a_request_that_nobody_knows(store: SqlTraces) -> None:
    assert await store.get("nobody") is None
    assert await store.find(TraceQuery(request_id="nobody"), 10) == []


async def test_the_newest_come_first_whenever_they_were_written(store: SqlTraces) -> None:
    await store.write([trace("b", 2.0), trace("d", 4.0)])
    await store.write([trace("a", 1.0), trace("c", 3.0)])
    assert await ids(store) == ["d", "c", "b", "a"]
    assert await ids(store, limit=2) == ["d", "c"]


async def test_a_request_id_that_was_used_again_names_the_last(store: SqlTraces) -> None:
    await store.write([trace("r", 2.0, outcome="UNAVAILABLE"), trace("r", 3.0), trace("r", 1.0, outcome="ABORTED")])
    found = await store.get("r")
    assert found is not None
    assert found.line.started_at == 3.0
    assert await ids(store, request_id="r") == ["r", "r", "r"]


async def test_each_condition_and_all_together(store: SqlTraces) -> None:
    await store.write(
        [
            trace("a", 1.0),
            trace("b", 2.0, tenant="other"),
            trace("c", 3.0, model="n"),
            trace("d", 4.0, outcome="CANCELLED"),
            trace("e", 5.0),
        ]
    )
    assert await ids(store, request_id="c") == ["c"]
    assert await ids(store, tenant="other") == ["b"]
    assert await ids(store, model="n") == ["c"]
    assert await ids(store, outcome="CANCELLED") == ["d"]
    assert await ids(store, start=3.0) == ["e", "d", "c"]
    assert await ids(store, end=3.0) == ["b", "a"]
    assert await ids(store, start=2.0, end=4.0) == ["c", "b"]
    assert await ids(store, request_id="e", tenant="shop", model="m", outcome="OK", start=5.0, end=6.0) == ["e"]
    assert await ids(store, tenant="shop", model="o") == []


async def test_pages_fit_together_while_calls_come_in(store: SqlTraces) -> None:
    await store.write([trace(name, 7.0) for name in "abc"] + [trace("z", 1.0)])  # three at the very same time
    first = await store.find(TraceQuery(), 2)
    await store.write([trace("new", 9.0), trace("late", 7.0)])
    rest = await store.find(TraceQuery(after=first[-1][0]), PLENTY)
    assert [line.request_id for _, line in (*first, *rest)] == ["c", "b", "a", "z"]


async def test_what_expired_goes(store: SqlTraces) -> None:
    await store.write([trace("a", expires_at=10.0), trace("b", expires_at=10.5), trace("c", expires_at=11.0)])
    assert await clean(store, now=10.5) == 2
    assert await ids(store) == ["c"]
    assert await clean(store, now=10.5) == 0


async def test_of_a_tenant_with_too_many_the_oldest_go(store: SqlTraces) -> None:
    await store.write([trace(name, place) for place, name in enumerate("dacb")])
    await store.write([trace("x", 0.0, tenant="quiet"), trace("y", 1.0, tenant="quiet"), trace("z", 2.0, tenant="q")])
    assert await clean(store, tenants=["shop", "q", "gone"], of_tenant=2) == 2
    assert await ids(store) == ["b", "z", "c", "y", "x"]


async def test_of_too_many_in_all_the_oldest_go(store: SqlTraces) -> None:
    await store.write([trace(f"{place}", place, tenant=f"t{place % 3}") for place in range(9)])
    assert await clean(store, most=4) == 5
    assert await ids(store) == ["8", "7", "6", "5"]
    assert await clean(store, most=4) == 0


async def test_only_some_go_at_once(store: SqlTraces, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_store, "MOST_AT_ONCE", 3)
    await store.write([trace(f"{place}", place, expires_at=place) for place in range(8)])
    removed = [await clean(store, now=1.0, tenants=["shop"], of_tenant=4, most=2) for _ in range(4)]
    assert removed == [3, 3, 0, 0]
    assert await ids(store) == ["7", "6"]


async def test_another_process_sees_it(store: SqlTraces, database_url: str) -> None:
    await store.write([trace("a")])
    other = Database(database_url)
    assert await ids(SqlTraces(other)) == ["a"]
    await other.close()


async def test_a_database_that_is_away_is_said_to_be() -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    store = SqlTraces(away)
    with pytest.raises(StoreUnavailableError):
        await store.write([trace()])
    with pytest.raises(StoreUnavailableError):
        await store.get("r")
    with pytest.raises(StoreUnavailableError):
        await store.find(TraceQuery(), 1)
    with pytest.raises(StoreUnavailableError):
        await clean(store)
    await away.close()


async def test_the_last_answer_of_a_tenant_is_found_among_failures_and_other_tenants_calls(store: SqlTraces) -> None:
    await store.write([trace("r", 1.0, model="first"), trace("r", 2.0, model="second")])
    await store.write([trace("r", 3.0, outcome="UNAVAILABLE"), trace("r", 4.0, tenant="other", model="theirs")])
    found = await store.answered("r", "shop")
    assert found is not None
    assert found.line.model == "second"
    assert await store.answered("r", "third") is None
    assert await store.answered("s", "shop") is None
