"""One suite for every store: the two databases, and the one in memory that other tests stand on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from itertools import count
from pathlib import Path

import pytest

from kit.clock import FakeClock
from kit.databases import PostgresServer
from kit.ledgers import MemoryLedgerStore, entry
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.ledger_store import SqlLedgerStore
from pointsman_server.adapters.stores.sql.usage import UsageReader
from pointsman_server.domain.ledger import Booking, BudgetKey, BudgetView, Lease, LeaseChange, LeaseWish, Refusal
from pointsman_server.domain.ledger_ports import LedgerStore

DAY = BudgetKey("t", "day", "2026-11-21")
MONTH = BudgetKey("t", "month", "2026-11")
_numbers = count(1)


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[LedgerStore, None]:
    if request.param == "memory":
        yield MemoryLedgerStore()
        return
    url = f"sqlite:///{tmp_path}/ledger.db"
    if request.param == "postgresql":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        url = server.make()
    database = Database(url)
    await database.open()
    try:
        yield SqlLedgerStore(database, FakeClock())
        found = await UsageReader(database).verify(0.0)
        assert not [problem for problem in found.problems if "are settled" not in problem]
    finally:
        await database.close()


def wish(limit: int, needed: int, key: BudgetKey = DAY, *, least: int = 10**9, most: int = 10**9) -> LeaseWish:
    """Asks for as much as is needed, or for a slice where there is enough."""
    return LeaseWish(f"lease_{next(_numbers)}", key, limit, needed, least, most)


async def granted(store: LedgerStore, *wishes: LeaseWish, writer: str = "w") -> Sequence[Lease]:
    answer = await store.lease(writer, wishes)
    assert not isinstance(answer, Refusal)
    return answer


async def view(store: LedgerStore, key: BudgetKey = DAY) -> BudgetView:
    """How a budget stands, as its pulse tells."""
    return (await store.pulse("observer", [key])).views.get(key, BudgetView())


async def book(store: LedgerStore, number: int, *changes: LeaseChange, writer: str = "w") -> None:
    await store.book(writer, [Booking(number, changes)])


class TestLeasing:
    async def test_until_the_last_micro_usd_and_no_further(self, store: LedgerStore) -> None:
        await granted(store, wish(100, 60))
        assert await store.lease("w", [wish(100, 41)]) == Refusal(DAY, BudgetView(leased_micro_usd=60))
        (last,) = await granted(store, wish(100, 40))
        assert (last.amount_micro_usd, last.is_slice) == (40, False)
        assert isinstance(await store.lease("w", [wish(100, 1)]), Refusal)

    async def test_a_slice_while_enough_remains_and_never_more_than_a_part_of_it(self, store: LedgerStore) -> None:
        leases = [(await granted(store, wish(2_000, 5, least=90, most=95)))[0] for _ in range(4)]
        assert [(one.amount_micro_usd, one.is_slice) for one in leases] == [
            (95, True),
            (95, True),
            (90, True),
            (5, False),
        ]

    async def test_of_several_budgets_all_or_nothing(self, store: LedgerStore) -> None:
        refusal = await store.lease("w", [wish(10, 20, MONTH), wish(100, 20, DAY)])
        assert refusal == Refusal(MONTH, BudgetView())
        assert await view(store) == BudgetView()
        assert len(await granted(store, wish(30, 20, MONTH), wish(100, 20, DAY))) == 2

    @pytest.mark.parametrize("limit", [0, 1])
    async def test_of_next_to_nothing(self, store: LedgerStore, limit: int) -> None:
        assert isinstance(await store.lease("w", [wish(limit, 2)]), Refusal)

    async def test_of_one_micro_usd_once(self, store: LedgerStore) -> None:
        answers = await asyncio.gather(*(store.lease(f"w{n}", [wish(1, 1)]) for n in range(8)))
        assert sum(not isinstance(answer, Refusal) for answer in answers) == 1

    async def test_at_once_by_many(self, store: LedgerStore) -> None:
        wishes = ([wish(100, 7), wish(90, 7, MONTH)] for _ in range(40))
        answers = await asyncio.gather(*(store.lease(f"w{n % 4}", one) for n, one in enumerate(wishes)))
        assert sum(not isinstance(answer, Refusal) for answer in answers) == 12
        assert (await view(store)).leased_micro_usd == (await view(store, MONTH)).leased_micro_usd == 84

    async def test_a_lower_limit_refuses_and_a_higher_one_grants(self, store: LedgerStore) -> None:
        await granted(store, wish(100, 50))
        assert isinstance(await store.lease("w", [wish(40, 1)]), Refusal)
        assert await granted(store, wish(101, 51))

    async def test_one_tenant_does_not_touch_another(self, store: LedgerStore) -> None:
        other = DAY._replace(tenant="u")
        await granted(store, wish(10, 10))
        await granted(store, wish(10, 10, other))
        assert await view(store) == await view(store, other) == BudgetView(leased_micro_usd=10)


class TestBooking:
    async def test_spends_returns_and_loses(self, store: LedgerStore) -> None:
        (lease,) = await granted(store, wish(100, 50))
        await book(store, 1, LeaseChange(lease.id, DAY, 20, 10, 5))
        assert await view(store) == BudgetView(settled_micro_usd=25, leased_micro_usd=15, lost_micro_usd=5)
        await book(store, 2, LeaseChange(lease.id, DAY, returned_micro_usd=15))
        assert await view(store) == BudgetView(settled_micro_usd=25, lost_micro_usd=5)
        assert (await store.pulse("w", [])).leases == frozenset()

    async def test_what_was_spent_beyond_the_lease_counts(self, store: LedgerStore) -> None:
        (lease,) = await granted(store, wish(100, 50))
        await book(store, 1, LeaseChange(lease.id, DAY, 50, beyond_micro_usd=70))
        assert await view(store) == BudgetView(settled_micro_usd=120)
        assert isinstance(await store.lease("w", [wish(100, 1)]), Refusal)

    async def test_and_so_does_what_was_spent_without_one(self, store: LedgerStore) -> None:
        both = [LeaseChange("", key, beyond_micro_usd=amount) for key, amount in ((DAY, 3), (MONTH, 4))]
        assert await store.book("w", [Booking(1, tuple(both))]) == {DAY: BudgetView(3), MONTH: BudgetView(4)}

    async def test_nothing_twice(self, store: LedgerStore) -> None:
        (lease,) = await granted(store, wish(100, 50))
        bookings = [
            Booking(number, (LeaseChange(lease.id, DAY, 10),), (entry(10, DAY, attempt=number),))
            for number in (1, 2, 3)
        ]
        await store.book("w", bookings[:2])
        await store.book("w", bookings)
        await store.book("w", bookings)
        assert await view(store) == BudgetView(30, 20)

    async def test_writers_have_numbers_of_their_own(self, store: LedgerStore) -> None:
        for writer in ("w", "v"):
            (lease,) = await granted(store, wish(100, 10), writer=writer)
            await book(store, 1, LeaseChange(lease.id, DAY, 10), writer=writer)
        assert (await view(store)).settled_micro_usd == 20

    async def test_a_doubtful_lease_that_was_granted_returns(self, store: LedgerStore) -> None:
        (lease,) = await granted(store, wish(100, 50))
        await book(store, 1, LeaseChange(lease.id, DAY, is_doubtful=True))
        assert await view(store) == BudgetView()

    async def test_a_doubtful_lease_that_was_not_granted_changes_nothing(self, store: LedgerStore) -> None:
        await granted(store, wish(100, 50))
        await book(store, 1, LeaseChange("lease_of_nobody", DAY, is_doubtful=True))
        assert await view(store) == BudgetView(leased_micro_usd=50)

    async def test_tells_how_the_budgets_stand(self, store: LedgerStore) -> None:
        (lease,) = await granted(store, wish(100, 50))
        assert await store.book("w", [Booking(1, (LeaseChange(lease.id, DAY, 20),))]) == {DAY: BudgetView(20, 30)}
        assert await store.book("w", [Booking(2, (), (entry(),))]) == {}
        assert await store.book("w", []) == {}

    async def test_at_once_by_many(self, store: LedgerStore) -> None:
        async def spend(writer: str) -> None:
            for number in range(1, 6):
                leases = await granted(store, wish(10**6, 9), wish(10**6, 9, MONTH), writer=writer)
                changes = tuple(LeaseChange(lease.id, lease.key, 4, 5) for lease in leases)
                await store.book(writer, [Booking(number, changes, (entry(4, DAY, MONTH),))])

        await asyncio.gather(*(spend(f"w{n}") for n in range(6)))
        assert await view(store) == await view(store, MONTH) == BudgetView(120)


class TestTakingAway:
    async def test_books_everything_as_lost(self, store: LedgerStore) -> None:
        (lease, _) = await granted(store, wish(100, 50), wish(100, 50, MONTH))
        await book(store, 1, LeaseChange(lease.id, DAY, 20))
        assert await store.take_away("w", None) == 80
        assert await view(store) == BudgetView(50, 0, 30)
        assert await store.take_away("w", None) == 0
        assert await view(store) == BudgetView(50, 0, 30)

    async def test_only_from_who_stood_still(self, store: LedgerStore) -> None:
        await granted(store, wish(100, 50))
        assert await store.lessees() == {"w": -1}
        await store.pulse("w", [])
        assert await store.take_away("w", -1) == 0
        beats = (await store.lessees())["w"]
        assert await store.take_away("w", beats) == 50
        assert await store.lessees() == {}

    async def test_a_booking_is_a_sign_of_life(self, store: LedgerStore) -> None:
        (lease,) = await granted(store, wish(100, 50))
        await store.pulse("w", [])
        beats = (await store.lessees())["w"]
        await book(store, 1, LeaseChange(lease.id, DAY, 1))
        assert (await store.lessees())["w"] > beats

    async def test_once_by_many(self, store: LedgerStore) -> None:
        await granted(store, wish(100, 50))
        await store.pulse("w", [])
        taken = await asyncio.gather(*(store.take_away("w", 1) for _ in range(6)))
        assert sorted(taken) == [0, 0, 0, 0, 0, 50]

    async def test_what_is_known_after_all_is_not_lost(self, store: LedgerStore) -> None:
        (lease,) = await granted(store, wish(100, 50))
        await store.take_away("w", None)
        await book(store, 1, LeaseChange(lease.id, DAY, 20, 25))
        assert await view(store) == BudgetView(25, 0, 5)
        await book(store, 2, LeaseChange(lease.id, DAY, lost_micro_usd=5, beyond_micro_usd=7))
        assert await view(store) == BudgetView(32, 0, 5)

    async def test_a_doubtful_lease_that_was_taken_away_returns_too(self, store: LedgerStore) -> None:
        (lease,) = await granted(store, wish(100, 50))
        await store.take_away("w", None)
        await book(store, 1, LeaseChange(lease.id, DAY, is_doubtful=True))
        assert await view(store) == BudgetView()

    async def test_what_a_forgotten_lease_spent_is_booked_all_the_same(self, store: LedgerStore) -> None:
        await book(store, 1, LeaseChange("lease_of_nobody", DAY, 20, 5))
        assert await view(store) == BudgetView(20)

    async def test_gives_back_what_was_never_touched(self, store: LedgerStore) -> None:
        await granted(store, wish(100, 50))
        await granted(store, wish(100, 30), writer="v")
        await store.take_away("w", None)
        await granted(store, wish(100, 7))
        assert await store.give_back("w") == 57
        assert await view(store) == BudgetView(leased_micro_usd=30)
        assert await store.give_back("w") == 0


class TestAlerts:
    async def test_each_percentage_once(self, store: LedgerStore) -> None:
        assert [await store.mark_alerted(DAY, percent) for percent in (80, 80, 100, 100, 80)] == [
            True,
            False,
            True,
            False,
            False,
        ]
        assert (await view(store)).alerted_percent == 100

    async def test_once_by_many(self, store: LedgerStore) -> None:
        marked = await asyncio.gather(*(store.mark_alerted(DAY, 80) for _ in range(6)))
        assert sum(marked) == 1


async def test_pulses_tell_which_leases_stand(store: LedgerStore) -> None:
    (lease,) = await granted(store, wish(100, 50))
    await granted(store, wish(100, 5), writer="v")
    pulse = await store.pulse("w", [DAY, MONTH])
    assert pulse.leases == {lease.id}
    assert pulse.views == {DAY: BudgetView(leased_micro_usd=55)}
