"""What the books say, on both databases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Table, delete, update

from kit.clock import FakeClock
from kit.ledgers import entry
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.entries import digest_of
from pointsman_server.adapters.stores.sql.ledger_store import SqlLedgerStore
from pointsman_server.adapters.stores.sql.schema import budget_leases, budget_states, ledger_entries, usage_daily
from pointsman_server.adapters.stores.sql.usage import UsageReader
from pointsman_server.domain.ledger import (
    Booking,
    BudgetKey,
    BudgetView,
    Entry,
    EntryOutcome,
    LeaseChange,
    LeaseWish,
    UsageDimension,
    UsageQuery,
)

DAY_20, DAY_21 = (datetime(2026, 11, day, 12, tzinfo=UTC).timestamp() for day in (20, 21))
KEY = BudgetKey("t", "all", "2026-11-21")
TENANT, MODEL, DAY, LABEL = (
    UsageDimension.TENANT,
    UsageDimension.MODEL,
    UsageDimension.DAY,
    UsageDimension.LABEL,
)

USED = (
    entry(5, at=DAY_20, model="small"),
    entry(70, at=DAY_20, model="large", calls=0, outcome=EntryOutcome.FAILED, labels_json='{"team":"a"}'),
    entry(80, KEY, at=DAY_21, model="large", labels_json='{"team":"a"}'),
    entry(90, KEY, at=DAY_21, model="large", labels_json='{"app":"x","team":"b"}', estimated=True),
    entry(1, at=DAY_21, tenant="u", model="small"),
)


async def write(database: Database, entries: Sequence[Entry] = USED) -> SqlLedgerStore:
    """The entries, with what they cost booked on the budget of the day."""
    store = SqlLedgerStore(database, FakeClock())
    booked = sum(one.cost_micro_usd for one in entries if "all" in one.budgets_json)
    await store.lease("w", [LeaseWish("lease_1", KEY, 1_000, 200, 10**9, 10**9)])
    change = LeaseChange("lease_1", KEY, booked)
    await store.book("w", [Booking(1, (change,), tuple(entries))])
    return store


async def used(database: Database, *by: UsageDimension, **asked: Any) -> list[dict[str, Any]]:
    """Rows with what they are grouped by, calls and cost."""
    rows = await UsageReader(database).usage(UsageQuery(frozenset(by), **asked))
    kept = ("calls", "cost_micro_usd")
    return [
        {name: value for name, value in asdict(row).items() if name in kept or (value and not isinstance(value, int))}
        for row in rows
    ]


class TestUsage:
    async def test_of_nothing_is_nothing(self, database: Database) -> None:
        assert await UsageReader(database).usage(UsageQuery()) == []
        assert await UsageReader(database).usage(UsageQuery(frozenset({TENANT}))) == []

    async def test_all_together(self, database: Database) -> None:
        await write(database)
        (row,) = await UsageReader(database).usage(UsageQuery())
        assert {name: value for name, value in asdict(row).items() if value} == {
            "calls": 4,
            "input_tokens": 50,
            "cached_input_tokens": 20,
            "cache_write_input_tokens": 10,
            "output_tokens": 25,
            "reasoning_tokens": 15,
            "cost_micro_usd": 246,
            "estimated_cost_micro_usd": 90,
        }

    async def test_by_tenant_and_by_model(self, database: Database) -> None:
        await write(database)
        assert await used(database, TENANT) == [
            {"tenant": "t", "calls": 3, "cost_micro_usd": 245},
            {"tenant": "u", "calls": 1, "cost_micro_usd": 1},
        ]
        assert await used(database, MODEL, TENANT) == [
            {"tenant": "t", "model": "large", "calls": 2, "cost_micro_usd": 240},
            {"tenant": "t", "model": "small", "calls": 1, "cost_micro_usd": 5},
            {"tenant": "u", "model": "small", "calls": 1, "cost_micro_usd": 1},
        ]

    async def test_by_day_and_by_a_label(self, database: Database) -> None:
        await write(database)
        assert await used(database, DAY) == [
            {"day": "2026-11-20", "calls": 1, "cost_micro_usd": 75},
            {"day": "2026-11-21", "calls": 3, "cost_micro_usd": 171},
        ]
        assert await used(database, LABEL, label="team") == [
            {"calls": 2, "cost_micro_usd": 6},
            {"label_value": "a", "calls": 1, "cost_micro_usd": 150},
            {"label_value": "b", "calls": 1, "cost_micro_usd": 90},
        ]

    async def test_of_some_days_and_of_one_tenant(self, database: Database) -> None:
        await write(database)
        assert await used(database, first_day="2026-11-21", tenant="t") == [{"calls": 2, "cost_micro_usd": 170}]
        assert await used(database, end_day="2026-11-21") == [{"calls": 1, "cost_micro_usd": 75}]
        assert await used(database, TENANT, first_day="2027-01-01") == []

    async def test_adds_up_over_bookings_and_writers(self, database: Database) -> None:
        store = SqlLedgerStore(database, FakeClock())
        for writer in ("w", "v"):
            for number in (1, 2, 3):
                await store.book(writer, [Booking(number, (), USED[:1])])
        assert await used(database) == [{"calls": 6, "cost_micro_usd": 30}]

    async def test_labels_as_long_as_requests_may_carry(self, database: Database) -> None:
        labels = "{" + ",".join(f'"{"k" * 62}{n:02}":"{"v" * 256}"' for n in range(32)) + "}"
        price = "a name of a price list, a model and a surcharge, each as long as it likes " * 3
        await write(database, [entry(3, labels_json=labels, price_version=price), entry(4, labels_json=labels)])
        assert await used(database, LABEL, label="k" * 62 + "07") == [
            {"label_value": "v" * 256, "calls": 2, "cost_micro_usd": 7}
        ]


async def verified(database: Database, kept_since: float = 0.0) -> list[str]:
    return list((await UsageReader(database).verify(kept_since)).problems)


class TestVerifying:
    async def test_right_books_are_right(self, database: Database) -> None:
        await write(database)
        found = await UsageReader(database).verify(0.0)
        assert (found.days, found.entries, found.problems) == (2, 5, ())
        (check,) = found.budgets
        assert (check.key, check.view, check.booked_micro_usd) == (KEY, BudgetView(170, 30), 170)

    async def test_empty_books_are_right(self, database: Database) -> None:
        found = await UsageReader(database).verify(0.0)
        assert (found.budgets, found.days, found.entries, found.problems) == ((), 0, 0, ())

    async def test_what_was_lost_is_known(self, database: Database) -> None:
        store = await write(database)
        await store.take_away("w", None)
        assert await verified(database) == []

    @pytest.mark.parametrize(
        ("table", "values", "problem"),
        [
            (
                ledger_entries,
                {"cost_micro_usd": ledger_entries.c.cost_micro_usd + 1},
                "tenant t, budget all, 2026-11-21: 170 micro-USD are settled, the entries have 172 and 0 were lost",
            ),
            (
                ledger_entries,
                {"input_tokens": 11},
                "2026-11-20, tenant t, model small, labels {}: the sum of input_tokens is 10, the entries have 11",
            ),
            (
                usage_daily,
                {"estimated_cost_micro_usd": 0},
                '2026-11-21, tenant t, model large, labels {"app":"x","team":"b"}: the sum of estimated_cost_micro_usd '
                "is 0, the entries have 90",
            ),
            (
                budget_states,
                {"settled_micro_usd": 169},
                "tenant t, budget all, 2026-11-21: 169 micro-USD are settled, the entries have 170 and 0 were lost",
            ),
            (
                budget_states,
                {"leased_micro_usd": -1},
                "tenant t, budget all, 2026-11-21: -1 micro-USD are leased, the leases have 30",
            ),
            (budget_states, {"leased_micro_usd": -1}, "tenant t, budget all, 2026-11-21: an amount is below zero"),
            (
                budget_leases,
                {"amount_micro_usd": 31},
                "tenant t, budget all, 2026-11-21: 30 micro-USD are leased, the leases have 31",
            ),
        ],
    )
    async def test_every_wrong_sum_is_found(
        self, database: Database, table: Table, values: dict[str, Any], problem: str
    ) -> None:
        await write(database)
        async with database.write() as connection:
            await connection.execute(update(table).values(values))
        assert problem in await verified(database)

    async def test_rows_that_are_gone_are_found(self, database: Database) -> None:
        await write(database)
        async with database.write() as connection:
            await connection.execute(delete(usage_daily).where(usage_daily.c.tenant == "u"))
            await connection.execute(delete(ledger_entries).where(ledger_entries.c.model == "small"))
            await connection.execute(delete(budget_states))
        problems = "\n".join(await verified(database))
        assert "model small, labels {}: the sum of cost_micro_usd is 5, the entries have 0" in problems
        assert "tenant t, budget all, 2026-11-21: 0 micro-USD are settled, the entries have 170" in problems

    async def test_days_whose_entries_were_forgotten_are_left_out(self, database: Database) -> None:
        store = await write(database)
        await store.forget(DAY_21)
        assert len(await verified(database)) > 0
        found = await UsageReader(database).verify(DAY_21 - 12 * 3_600)
        assert (found.problems, found.days) == ((), 1)
        later = await UsageReader(database).verify(DAY_21)
        assert (later.problems, later.days, later.budgets[0].booked_micro_usd) == ((), 0, None)

    async def test_months_that_began_before_are_not_judged(self, database: Database) -> None:
        store = SqlLedgerStore(database, FakeClock())
        month = BudgetKey("t", "month", "2026-11")
        change = LeaseChange("", month, beyond_micro_usd=9)
        await store.book("w", [Booking(1, (change,), (entry(9, month, at=DAY_21),))])
        await store.forget(DAY_21 + 1)
        found = await UsageReader(database).verify(DAY_21 - 86_400)
        assert found.budgets[0].booked_micro_usd is None
        whole = await UsageReader(database).verify(datetime(2026, 11, 1, tzinfo=UTC).timestamp())
        assert whole.budgets[0].booked_micro_usd == 0


class TestForgetting:
    async def test_sums_and_budgets_stay(self, database: Database) -> None:
        store = await write(database)
        await store.forget(DAY_21 + 1)
        assert (await used(database))[0]["cost_micro_usd"] == 246
        assert (await store.pulse("v", [KEY])).views == {KEY: BudgetView(170, 30)}

    async def test_writers_go_when_nothing_is_left_of_them(self, database: Database) -> None:
        store = await write(database)
        await store.take_away("w", None)
        await store.forget(0.0)
        await store.book("w", [Booking(1, (LeaseChange("lease_1", KEY, 30),))])
        assert (await store.pulse("v", [KEY])).views == {KEY: BudgetView(200, 0, 30)}, "a number is used once"
        await store.forget(10**10)
        await store.book("w", [Booking(1, (LeaseChange("lease_1", KEY, 30),))])
        assert (await store.pulse("v", [KEY])).views == {KEY: BudgetView(230, 0, 30)}

    async def test_writers_with_leases_stay(self, database: Database) -> None:
        store = await write(database)
        await store.forget(10**10)
        assert list(await store.lessees()) == ["w"]
        assert (await store.lessees())["w"] > 0


def test_labels_have_a_key_of_their_own() -> None:
    assert digest_of("{}") != digest_of('{"a":"b"}')
    assert len(digest_of("{}")) == 16
