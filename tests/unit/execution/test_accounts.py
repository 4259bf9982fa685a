"""A process's accounts as a whole, in virtual time, over a store in memory."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from kit.catalog import snapshot
from kit.ledgers import MODEL, asked, attempt, budget, kill, trail_files, trails
from kit.offices import MONTH, TODAY, Office, in_office, spend
from pointsman_server.domain.errors import BudgetExceeded, LedgerUnavailable, RouterError
from pointsman_server.domain.governance import Governance, Period, TenantPolicy
from pointsman_server.domain.ledger import BudgetKey, BudgetView


class TestReserving:
    def test_books_what_was_spent_and_frees_the_rest(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 30, 100, budget(100))
            await asyncio.sleep(1)
            assert office.view() == BudgetView(30)
            assert [one.cost_micro_usd for one in office.store.entries] == [30]

        in_office(test)

    def test_refuses_what_does_not_fit(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            with pytest.raises(BudgetExceeded) as refused:
                await spend(accounts, 1, 101, budget(100, "small", Period.MONTH))
            assert (refused.value.budget, refused.value.period) == ("small", Period.MONTH)
            await asyncio.sleep(1)
            assert office.store.entries == []

        in_office(test)

    @pytest.mark.parametrize(("limit", "worst"), [(0, 1), (1, 2)])
    def test_refuses_everything_of_next_to_nothing(self, limit: int, worst: int) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            for _ in range(3):
                with pytest.raises(BudgetExceeded):
                    await spend(accounts, 0, worst, budget(limit))
            assert office.view() == BudgetView()

        in_office(test)

    def test_a_budget_of_one_micro_usd_admits_one_call_for_it(self) -> None:
        async def test(office: Office) -> None:
            accounts, other = await office.open(), await office.open()
            both = (spend(one, 1, 1, budget(1)) for one in (accounts, other))
            ended = await asyncio.gather(*both, return_exceptions=True)
            assert sorted(type(one).__name__ for one in ended) == ["BudgetExceeded", "NoneType"]

        in_office(test)

    def test_exact_boundary_is_admitted_once(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 100, 100, budget(100))
            with pytest.raises(BudgetExceeded):
                await spend(accounts, 1, 1, budget(100))
            assert office.view().committed_micro_usd == 100

        in_office(test)

    def test_takes_of_all_budgets_or_of_none(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            budgets = (budget(100), budget(50, "month", Period.MONTH), budget(10, "team", team="a"))
            with pytest.raises(BudgetExceeded) as refused:
                await spend(accounts, 1, 20, *budgets, team="a")
            assert refused.value.budget == "team"
            await spend(accounts, 20, 20, *budgets, team="b")
            await spend(accounts, 9, 10, *budgets, team="a")
            with pytest.raises(BudgetExceeded) as refused:
                await spend(accounts, 1, 30, *budgets)
            assert refused.value.budget == "month"
            await asyncio.sleep(1)
            assert office.view() == BudgetView(29)
            assert office.view(BudgetKey("t", "month", MONTH)) == BudgetView(29)
            assert office.view(BudgetKey("t", "team", TODAY)) == BudgetView(9)

        in_office(test)

    def test_one_tenants_calls_leave_anothers_budget_alone(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 100, 100, budget(100))
            await spend(accounts, 100, 100, budget(100), tenant="u")
            await asyncio.sleep(1)
            assert office.view(BudgetKey("u", "all", TODAY)) == office.view() == BudgetView(100)

        in_office(test)

    def test_a_tenant_nobody_knows_has_the_budget_of_all_others(self) -> None:
        """LiteLLM #26672 and #40095: an unknown end user had none."""

        async def test(office: Office) -> None:
            accounts = await office.open()
            governance = Governance(others=TenantPolicy(budgets=(budget(100),)))
            call = replace(asked(tenant="stranger"), snapshot=snapshot(MODEL, governance=governance))
            async with accounts.reserve(call, 100) as reservation:
                reservation.settle([attempt(100)])
            with pytest.raises(BudgetExceeded):
                await accounts.reserve(call, 1).__aenter__()

        in_office(test)

    def test_a_call_that_cannot_cost_anything_needs_no_budget(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 0, 0, budget(0))
            await asyncio.sleep(1)
            assert [one.cost_micro_usd for one in office.store.entries] == [0]

        in_office(test)

    def test_many_calls_share_a_lease(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            for _ in range(200):
                await spend(accounts, 50, 100, budget(10**6))
            assert office.store.asked <= 4
            await asyncio.sleep(1)
            assert office.view().settled_micro_usd == 200 * 50

        in_office(test)

    def test_without_budgets_nothing_is_asked(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            office.store.is_away = True
            async with asyncio.timeout(0):
                await spend(accounts, 50)
            assert accounts.waiting == 1

        in_office(test)

    def test_what_was_refused_is_not_asked_again_at_once(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 60, 60, budget(100))
            await asyncio.sleep(0.6)
            before = office.store.asked
            for _ in range(50):
                with pytest.raises(BudgetExceeded):
                    await spend(accounts, 1, 50, budget(100))
            assert office.store.asked == before + 1
            await spend(accounts, 40, 40, budget(100))

        in_office(test)


class TestLimits:
    def test_lowered_below_what_was_spent_refuses_at_once_and_raised_admits(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 500, 1_000, budget(10**6))
            with pytest.raises(BudgetExceeded):
                await spend(accounts, 1, 10, budget(400))
            await asyncio.sleep(0.5)
            assert office.view() == BudgetView(500)
            await spend(accounts, 1, 10, budget(511))

        in_office(test)

    def test_lowered_and_still_enough_admits(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 500, 1_000, budget(10**6))
            assert office.view().leased_micro_usd == 10_000
            await spend(accounts, 1, 10, budget(2_000))
            assert office.view() == BudgetView(500, 40)

        in_office(test)


class TestKeeping:
    def test_a_bug_in_the_store_stops_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
                patch.setattr(office.store, "book", lambda *_: 1 // 0)
                await spend(accounts, 5)
                await asyncio.sleep(3)
            assert {"event": "bookkeeping_failed", "error": "ZeroDivisionError", "log_level": "error"} in logs
            await asyncio.sleep(3)
            assert len(office.store.entries) == 1

        in_office(test)

    def test_old_entries_are_forgotten(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 5)
            await asyncio.sleep(3_600)
            assert len(office.store.entries) == 1
            office.clock.ahead_seconds = 33 * 86_400
            await asyncio.sleep(3_600)
            assert office.store.entries == []

        in_office(test)

    def test_a_long_trail_is_begun_anew(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pointsman_server.adapters.stores.ledger_trail.LONG_BYTES", 4_000)

        async def test(office: Office) -> None:
            dying = await office.open(trails(tmp_path))
            async with dying.reserve(asked(budget(10**6)), 77):
                for _ in range(100):
                    await spend(dying, 3, 10, budget(10**6))
                    await asyncio.sleep(0.1)
                (file,) = trail_files(tmp_path)
                assert file.stat().st_size < 8_000
                await spend(dying, 3, 10, budget(10**6))
                await kill(dying)
            office.running.remove(dying)
            await office.open(trails(tmp_path))
            assert office.view() == BudgetView(303 + 77, 0, 77)

        in_office(test)


def test_every_refusal_is_told_to_callers() -> None:
    assert issubclass(BudgetExceeded, RouterError)
    assert issubclass(LedgerUnavailable, RouterError)
