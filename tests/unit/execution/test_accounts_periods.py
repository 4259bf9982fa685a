"""Days and months that end, alerts on the way, and what processes lease meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from kit.ledgers import asked, attempt, budget
from kit.offices import ALL, Office, in_office, spend
from pointsman_server.domain.errors import BudgetExceeded
from pointsman_server.domain.ledger import BudgetKey, BudgetView


class TestPeriods:
    def test_a_budget_day_rolls_once_whatever_the_wall_clock_does(self) -> None:
        """R26."""

        async def test(office: Office) -> None:
            accounts = await office.open()
            until_midnight = 86_400 - office.clock.now() % 86_400
            await spend(accounts, 100, 100, budget(100))
            office.clock.ahead_seconds = until_midnight - 3_000
            with pytest.raises(BudgetExceeded):
                await spend(accounts, 1, 1, budget(100))
            office.clock.ahead_seconds += 3_600  # past midnight, too early
            await spend(accounts, 60, 60, budget(100))
            office.clock.ahead_seconds -= 3_600  # yesterday again
            await spend(accounts, 40, 40, budget(100))
            with pytest.raises(BudgetExceeded):
                await spend(accounts, 1, 1, budget(100))
            await asyncio.sleep(3_000)
            with pytest.raises(BudgetExceeded):
                await spend(accounts, 1, 1, budget(100))
            assert office.view(BudgetKey("t", "all", "2025-06-16")) == BudgetView(100)

        in_office(test)

    def test_a_call_over_midnight_belongs_to_the_day_it_began(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            async with accounts.reserve(asked(budget(100)), 50) as reservation:
                office.clock.ahead_seconds = 86_400
                reservation.settle([attempt(50)])
            await spend(accounts, 100, 100, budget(100))
            await asyncio.sleep(1)
            assert office.view() == BudgetView(50)
            assert office.view(BudgetKey("t", "all", "2025-06-16")) == BudgetView(100)

        in_office(test)

    def test_leases_of_yesterday_go_back(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 1, 10, budget(10**6))
            office.clock.ahead_seconds = 86_400
            await spend(accounts, 2, 10, budget(10**6))
            await asyncio.sleep(10)
            assert office.view() == BudgetView(1)
            assert accounts.held_micro_usd == 0

        in_office(test)


class TestAlerts:
    def test_at_80_and_100_per_cent_once_over_all_processes(self) -> None:
        async def test(office: Office) -> None:
            one, other = await office.open(), await office.open()
            for accounts in (one, other) * 5:
                await spend(accounts, 100, 100, budget(1_000))
                await asyncio.sleep(1)
            told = [(alert.key, alert.percent, alert.settled_micro_usd) for alert in office.alerts]
            assert told == [(ALL, 80, 800), (ALL, 100, 1_000)]
            assert {alert.limit_micro_usd for alert in office.alerts} == {1_000}

        in_office(test)

    def test_used_up_is_also_what_refuses_calls(self) -> None:
        async def test(office: Office) -> None:
            one, other = await office.open(), await office.open()
            await spend(one, 10, 10, budget(100))
            await asyncio.sleep(1)
            for accounts in (one, other):
                with pytest.raises(BudgetExceeded):
                    await spend(accounts, 1, 95, budget(100))
                await asyncio.sleep(2)
            assert [(alert.percent, alert.settled_micro_usd) for alert in office.alerts] == [(100, 10)]

        in_office(test)

    def test_a_budget_of_nothing_is_no_news(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            with pytest.raises(BudgetExceeded):
                await spend(accounts, 1, 95, budget(0))
            await asyncio.sleep(2)
            assert office.alerts == []

        in_office(test)

    def test_comes_when_the_store_is_back(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            with pytest.raises(BudgetExceeded):
                await spend(accounts, 1, 101, budget(100))
            office.store.is_away = True
            await asyncio.sleep(5)
            assert office.alerts == []
            office.store.is_away = False
            await asyncio.sleep(5)
            assert [alert.percent for alert in office.alerts] == [100]

        in_office(test)


class TestLeases:
    def test_what_lies_idle_goes_back(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 1, 10, budget(10**6))
            await asyncio.sleep(4)
            assert office.view() == BudgetView(1, 9_999)
            await asyncio.sleep(2)
            assert office.view() == BudgetView(1)

        in_office(test)

    def test_near_the_end_slices_go_back_so_that_others_get_the_last_of_it(self) -> None:
        async def test(office: Office) -> None:
            one, other = await office.open(), await office.open()
            await spend(one, 1, 10, budget(10_000))
            assert one.held_micro_usd == 99
            async with other.reserve(asked(budget(10_000)), 9_800) as reservation:
                await asyncio.sleep(1.5)
                assert one.held_micro_usd == 0
                reservation.settle([attempt(9_800)])
            await asyncio.sleep(1)
            await spend(other, 199, 199, budget(10_000))

        in_office(test)

    def test_a_larger_call_gets_a_larger_lease_and_the_small_one_goes_back(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 1, 10, budget(10**6))
            await spend(accounts, 1, 12_000, budget(10**6))
            await asyncio.sleep(1)
            assert office.view() == BudgetView(2, 48_000 - 1)

        in_office(test)
