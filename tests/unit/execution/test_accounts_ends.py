"""What becomes of money when a process dies, and when it ends in order."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from kit.ledgers import asked, attempt, budget, kill, trail_files, trails
from kit.offices import Office, in_office, spend
from pointsman_server.adapters.stores import ledger_trail
from pointsman_server.adapters.stores.ledger_trail import NoTrails
from pointsman_server.domain.ledger import BudgetView
from pointsman_server.execution.accounts import Accounts


class TestDeath:
    def test_nothing_settled_is_lost_and_nothing_free_is_kept(self, tmp_path: Path) -> None:
        """R22: what was settled is booked, what was under way is booked at its worst, all else returns, once."""

        async def test(office: Office) -> None:
            dying = await office.open(trails(tmp_path))
            await spend(dying, 30, 100, budget(10**6))
            await asyncio.sleep(1)
            await spend(dying, 40, 100, budget(10**6))
            async with dying.reserve(asked(budget(10**6)), 77) as reservation:
                await kill(dying)
                reservation.settle([attempt(1)])  # too late
            office.running.remove(dying)
            await office.open(trails(tmp_path))
            assert office.view() == BudgetView(30 + 40 + 77, 0, 77)
            assert [one.cost_micro_usd for one in office.store.entries] == [30, 40]
            assert [file.stem for file in trail_files(tmp_path)] != ["writer_1"]
            await asyncio.sleep(60)
            assert office.view() == BudgetView(30 + 40 + 77, 0, 77)

        in_office(test)

    def test_another_process_of_the_machine_sees_to_it(self, tmp_path: Path) -> None:
        async def test(office: Office) -> None:
            dying = await office.open(trails(tmp_path))
            await office.open(trails(tmp_path))
            await spend(dying, 30, 100, budget(10**6))
            await kill(dying)
            office.running.remove(dying)
            await asyncio.sleep(6)
            assert office.view() == BudgetView(30)

        in_office(test)

    def test_without_a_trail_all_it_held_is_booked_as_lost(self) -> None:
        async def test(office: Office) -> None:
            dying, other = await office.open(), await office.open()
            await spend(dying, 30, 100, budget(10**6))
            await asyncio.sleep(1)
            await spend(dying, 40, 100, budget(10**6))
            await kill(dying)
            office.running.remove(dying)
            await asyncio.sleep(25)
            assert office.view() == BudgetView(30, 9_970)
            await asyncio.sleep(15)
            assert office.view() == BudgetView(10_000, 0, 9_970)
            assert len(office.store.entries) == 1
            await spend(other, 1, 10, budget(10**6))

        in_office(test)

    def test_who_comes_too_late_with_a_trail_puts_it_right(self, tmp_path: Path) -> None:
        async def test(office: Office) -> None:
            dying, _ = await office.open(trails(tmp_path)), await office.open()
            await spend(dying, 30, 100, budget(10**6))
            await kill(dying)
            office.running.remove(dying)
            await asyncio.sleep(60)
            assert office.view() == BudgetView(10_000, 0, 10_000)
            await office.open(trails(tmp_path))
            assert office.view() == BudgetView(30)

        in_office(test)

    def test_a_trail_that_may_lack_something_returns_nothing(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """After a power cut: what it tells is true, and what else was done nobody knows."""

        async def test(office: Office) -> None:
            dying = await office.open(trails(tmp_path))
            await spend(dying, 30, 100, budget(10**6))
            await kill(dying)
            office.running.remove(dying)
            monkeypatch.setattr(ledger_trail, "_BOOT_ID", tmp_path / "none")
            await office.open(trails(tmp_path))
            assert office.view() == BudgetView(10_000, 0, 9_970)
            assert len(office.store.entries) == 1

        in_office(test)

    def test_who_was_taken_for_dead_and_lives_puts_it_right(self) -> None:
        async def test(office: Office) -> None:
            sleeping = await office.open()
            async with sleeping.reserve(asked(budget(10**6)), 100) as reservation:
                task = sleeping._keeper._task
                assert task is not None
                task.cancel()
                await asyncio.wait([task])
                await office.open()
                await asyncio.sleep(60)
                assert office.view() == BudgetView(10_000, 0, 10_000)
                await sleeping.start()
                await asyncio.sleep(2)
                assert office.view() == BudgetView(100, 0, 100)
                reservation.settle([attempt(60)])
            await asyncio.sleep(1)
            assert office.view() == BudgetView(60)

        in_office(test)

    def test_a_store_that_was_away_makes_nobody_look_dead(self) -> None:
        async def test(office: Office) -> None:
            one, _ = await office.open(), await office.open()
            async with one.reserve(asked(budget(10**6)), 100) as reservation:
                await asyncio.sleep(10)
                office.store.is_away = True
                await asyncio.sleep(300)
                office.store.is_away = False
                await asyncio.sleep(20)
                assert office.view().lost_micro_usd == 0
                reservation.settle([attempt(60)])

        in_office(test)

    def test_what_was_left_is_taken_up_when_the_store_is_back(self, tmp_path: Path) -> None:
        async def test(office: Office) -> None:
            dying = await office.open(trails(tmp_path))
            await spend(dying, 30, 100, budget(10**6))
            await kill(dying)
            office.running.remove(dying)
            office.store.is_away = True
            await office.open(trails(tmp_path))
            await asyncio.sleep(30)
            office.store.is_away = False
            await asyncio.sleep(6)
            assert office.view() == BudgetView(30)

        in_office(test)

    def test_a_death_after_a_death(self, tmp_path: Path) -> None:
        """The second process dies while it works for the first one: nothing is booked twice."""

        async def test(office: Office) -> None:
            first = await office.open(trails(tmp_path))
            for _ in range(3):
                await spend(first, 30, 100, budget(10**6))
            await kill(first)
            office.running.remove(first)
            office.store.loses_answers = True
            second = await office.open(trails(tmp_path))
            await kill(second)
            office.running.remove(second)
            office.store.loses_answers = False
            await office.open(trails(tmp_path))
            assert office.view() == BudgetView(90)
            assert len(office.store.entries) == 3

        in_office(test)


class TestTheEnd:
    def test_in_order_everything_is_written_and_returned(self, tmp_path: Path) -> None:
        """R21."""

        async def test(office: Office) -> None:
            accounts = await office.open(trails(tmp_path))
            for _ in range(700):
                await spend(accounts, 3, 10, budget(10**6))
            await accounts.close()
            office.running.clear()
            assert office.view() == BudgetView(2_100)
            assert len(office.store.entries) == 700
            assert trail_files(tmp_path) == []

        in_office(test)

    def test_without_the_store_the_next_start_finds_it(self, tmp_path: Path) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open(trails(tmp_path))
            await spend(accounts, 30, 100, budget(10**6))
            office.store.is_away = True
            started = office.clock.monotonic()
            await accounts.close()
            assert office.clock.monotonic() - started <= 12
            office.running.clear()
            office.store.is_away = False
            await office.open(trails(tmp_path))
            assert office.view() == BudgetView(30)
            assert len(office.store.entries) == 1

        in_office(test)

    def test_waits_for_what_is_being_asked(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await asyncio.sleep(1)
            office.store.seconds = 2
            waiting = asyncio.create_task(spend(accounts, 1, 60, budget(100)))
            await asyncio.sleep(0.5)
            waiting.cancel()
            await asyncio.wait([waiting])
            await accounts.close()
            office.running.clear()
            assert office.view() == BudgetView()

        in_office(test)

    def test_does_not_wait_for_a_store_that_hangs(self, tmp_path: Path) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open(trails(tmp_path))
            await spend(accounts, 30, 100, budget(10**6))
            office.store.seconds = 1_000
            await asyncio.sleep(1)
            started = office.clock.monotonic()
            await accounts.close()
            assert office.clock.monotonic() - started == pytest.approx(10)
            office.running.clear()
            office.store.seconds = 0
            await office.open(trails(tmp_path))
            assert office.view() == BudgetView(30)

        in_office(test)

    def test_a_call_that_still_runs_is_booked_by_whoever_comes_next(self, tmp_path: Path) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open(trails(tmp_path))
            async with accounts.reserve(asked(budget(10**6)), 100) as reservation:
                await accounts.close()
                reservation.settle([attempt(10)])  # too late
            office.running.clear()
            assert office.view() == BudgetView(0, 100)
            await office.open(trails(tmp_path))
            assert office.view() == BudgetView(100, 0, 100)

        in_office(test)

    def test_before_the_beginning_is_nothing(self) -> None:
        async def test(office: Office) -> None:
            await Accounts(office.store, NoTrails(), office.clock, office.ids, office.alerts.append).close()

        in_office(test)
