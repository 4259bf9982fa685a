"""Cached answers in the database: the same on both engines, and for all processes that share it."""

from __future__ import annotations

from typing import Any

import pytest

from pointsman_server.adapters.stores.sql.cache_store import SqlCache
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.domain.cache import CachedAnswer, Card, Entry, Traits
from pointsman_server.domain.message import ReasoningPart, TextPart
from pointsman_server.domain.ports import StoreUnavailableError
from pointsman_server.domain.reply import Citation

HERE, THERE = b"h" * 32, b"t" * 32
WHOLE = CachedAnswer(
    parts=(ReasoningPart("hm", "sealed", redacted=True), TextPart("Grüße 🙂", "signed")),
    citations=(Citation("https://a.example", "A", "doc", "quoted", 1, 5),),
    raw_finish_reason="end_turn",
    model="m-1",
    deployment_id="up",
    cost_micro_usd=12,
    certainty=0.75,
)


def entry(name: str, *, tenant: str = "shop", at: float = 100.0, most: int = 100, **changes: Any) -> Entry:
    """An entry that is kept for ten seconds, unless it is said otherwise."""
    fields = {"key": name.encode().ljust(32), "partition": HERE, "stored_at": at, "expires_at": at + 10}
    answer = CachedAnswer((TextPart(name),), (), "stop", "m", "up", 1)
    return Entry(Card(**{**fields, **changes}), tenant, changes.pop("answer", answer), most)


@pytest.fixture
def store(database: Database) -> SqlCache:
    return SqlCache(database)


async def names(store: SqlCache, partition: bytes = HERE, now: float = 100.0) -> set[str]:
    return {card.key.decode().strip() for card in await store.cards(partition, now)}


async def test_what_was_written_is_read_as_it_was(store: SqlCache) -> None:
    card = Card(b"k" * 32, HERE, 1.5, 9.5, b"\x00\x01\xff\x7f", Traits(("n:5",), ("a",), ("a", "b")))
    await store.write([Entry(card, "shop", WHOLE, 100)], {})
    assert list(await store.cards(HERE, 2.0)) == [card]
    assert await store.answer(card.key) == WHOLE


async def test_a_card_without_a_vector(store: SqlCache) -> None:
    await store.write([entry("a")], {})
    (card,) = await store.cards(HERE, 100.0)
    assert (card.vector, card.traits) == (b"", None)


async def test_partitions_never_meet(store: SqlCache) -> None:
    await store.write([entry("a"), entry("b", partition=THERE)], {})
    assert await names(store) == {"a"}
    assert await names(store, THERE) == {"b"}


async def test_what_expired_is_not_found_and_goes(store: SqlCache, database: Database) -> None:
    await store.write([entry("a", at=100.0), entry("b", at=105.0)], {})
    assert await names(store, now=110.0) == {"b"}
    await store.clean(110.0)
    assert await store.answer(b"a".ljust(32)) is None
    assert await store.answer(b"b".ljust(32)) is not None


async def test_a_newer_answer_takes_the_place_of_the_older(store: SqlCache) -> None:
    await store.write([entry("a", at=100.0)], {})
    newer = Entry(entry("a", at=200.0).card, "shop", WHOLE, 100)
    await store.write([newer], {})
    (card,) = await store.cards(HERE, 200.0)
    assert card.stored_at == 200.0
    assert await store.answer(card.key) == WHOLE


async def test_of_two_answers_written_at_once_the_last_one_stays(store: SqlCache) -> None:
    await store.write([entry("a"), Entry(entry("a").card, "shop", WHOLE, 100)], {})
    assert await store.answer(b"a".ljust(32)) == WHOLE


async def test_a_tenant_keeps_what_it_used_last(store: SqlCache) -> None:
    others = [entry("x", tenant="other", at=1.0)]
    await store.write([*others, *(entry(name, at=100.0 + place, most=3) for place, name in enumerate("abc"))], {})
    assert await store.write([], {b"a".ljust(32): 104.0}) == 0
    assert await store.write([entry("d", at=105.0, most=3)], {}) == 1
    assert await names(store, now=10.0) == {"a", "c", "d", "x"}


async def test_noting_a_use_of_what_is_gone_does_nothing(store: SqlCache) -> None:
    assert await store.write([], {b"gone".ljust(32): 1.0}) == 0
    assert await names(store) == set()


async def test_another_process_sees_it(store: SqlCache, database_url: str) -> None:
    await store.write([entry("a")], {})
    other = Database(database_url)
    assert await names(SqlCache(other)) == {"a"}
    await other.close()


async def test_a_database_that_is_away_is_said_to_be() -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    store = SqlCache(away)
    with pytest.raises(StoreUnavailableError):
        await store.cards(HERE, 1.0)
    with pytest.raises(StoreUnavailableError):
        await store.write([entry("a")], {})
    await away.close()
