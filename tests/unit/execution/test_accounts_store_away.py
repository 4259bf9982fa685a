"""A process's accounts while their store is away, slow, or loses answers."""

from __future__ import annotations

import asyncio

import pytest

from kit.ledgers import budget
from kit.offices import TODAY, Office, in_office, spend
from pointsman_server.domain.errors import DeadlineExceeded, LedgerUnavailable, Step
from pointsman_server.domain.ledger import BudgetKey, BudgetView
from pointsman_server.execution import booking


class TestStoreAway:
    def test_nothing_is_spent_without_it(self) -> None:
        """LiteLLM #33923: failed reservations were not rejected."""

        async def test(office: Office) -> None:
            accounts = await office.open()
            office.store.is_away = True
            with pytest.raises(LedgerUnavailable) as refused:
                await spend(accounts, 1, 10, budget(100))
            assert refused.value.retry_after_seconds > 0
            office.store.is_away = False
            with pytest.raises(LedgerUnavailable):
                await spend(accounts, 1, 10, budget(100))
            await asyncio.sleep(0.25)
            await spend(accounts, 1, 10, budget(100))

        in_office(test)

    def test_what_is_leased_can_be_spent(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 1, 10, budget(10**6))
            office.store.is_away = True
            for _ in range(5):
                await spend(accounts, 7, 10, budget(10**6))
            await asyncio.sleep(60)
            office.store.is_away = False
            await asyncio.sleep(10)
            assert office.view() == BudgetView(36)

        in_office(test)

    def test_answers_that_are_lost_change_nothing(self) -> None:
        """Busbar: a flush that was repeated counted twice."""

        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 1, 10, budget(10**6))
            office.store.loses_answers = True
            for _ in range(5):
                await spend(accounts, 7, 10, budget(10**6))
            with pytest.raises(LedgerUnavailable):
                await spend(accounts, 7, 10, budget(5_000, "other"))
            await asyncio.sleep(20)
            office.store.loses_answers = False
            await asyncio.sleep(10)
            assert office.view() == BudgetView(36)
            assert office.view(BudgetKey("t", "other", TODAY)) == BudgetView()
            assert len(office.store.entries) == 6

        in_office(test)

    def test_a_store_that_takes_its_time_is_not_waited_for_forever(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            office.store.seconds = 7
            started = office.clock.monotonic()
            with pytest.raises(LedgerUnavailable):
                await spend(accounts, 1, 10, budget(100))
            assert office.clock.monotonic() - started == pytest.approx(5)
            await asyncio.sleep(20)
            office.store.seconds = 0
            await asyncio.sleep(10)
            assert office.view() == BudgetView()

        in_office(test)

    def test_a_deadline_comes_first(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            office.store.seconds = 7
            deadline = office.clock.monotonic() + 2
            with pytest.raises(DeadlineExceeded) as ended:
                await spend(accounts, 1, 10, budget(100), deadline=deadline)
            assert ended.value.step is Step.RESERVE
            assert office.clock.monotonic() == pytest.approx(deadline)

        in_office(test)

    def test_who_hangs_up_meanwhile_leaves_nothing_reserved(self) -> None:
        """LiteLLM PR #30522: a reservation stayed when its call was cancelled."""

        async def test(office: Office) -> None:
            accounts = await office.open()
            office.store.seconds = 0.5
            waiting = asyncio.create_task(spend(accounts, 1, 60, budget(100)))
            await asyncio.sleep(0.2)
            waiting.cancel()
            await asyncio.wait([waiting])
            await asyncio.sleep(5)
            assert office.view() == BudgetView()
            await spend(accounts, 100, 100, budget(100))

        in_office(test)

    def test_who_hangs_up_while_a_slice_is_leased_leaves_it_for_others(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            office.store.seconds = 0.5
            waiting = asyncio.create_task(spend(accounts, 1, 60, budget(10**6)))
            await asyncio.sleep(0.2)
            waiting.cancel()
            await asyncio.sleep(2)
            assert accounts.held_micro_usd == 10_000
            office.store.is_away = True
            await spend(accounts, 0, 60, budget(10**6))

        in_office(test)

    def test_who_hangs_up_while_the_answer_is_lost_leaves_nothing_either(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            office.store.seconds, office.store.loses_answers = 0.5, True
            waiting = asyncio.create_task(spend(accounts, 1, 60, budget(100)))
            await asyncio.sleep(0.2)
            waiting.cancel()
            await asyncio.sleep(2)
            office.store.loses_answers = False
            await asyncio.sleep(10)
            assert office.view() == BudgetView()

        in_office(test)

    def test_who_hangs_up_before_a_refusal_changes_nothing(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            office.store.seconds = 0.5
            waiting = asyncio.create_task(spend(accounts, 1, 101, budget(100)))
            await asyncio.sleep(0.2)
            waiting.cancel()
            await asyncio.sleep(5)
            assert office.view() == BudgetView()

        in_office(test)

    def test_too_much_that_waits_to_be_written_stops_spending(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(booking, "MOST_WAITING", 3)

        async def test(office: Office) -> None:
            accounts = await office.open()
            office.store.is_away = True
            for _ in range(3):
                await spend(accounts, 1)
            with pytest.raises(LedgerUnavailable):
                await spend(accounts, 1)
            office.store.is_away = False
            await asyncio.sleep(10)
            await spend(accounts, 1)

        in_office(test)
