"""A process's accounts as a whole, in virtual time, over a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import structlog

from kit.catalog import snapshot
from kit.clock import CountingIds, LoopClock, in_virtual_time
from kit.ledgers import MODEL, MemoryLedgerStore, asked, attempt, budget, costs, kill, trail_files, trails
from pointsman_server.adapters.stores import ledger_trail
from pointsman_server.adapters.stores.ledger_trail import NoTrails
from pointsman_server.domain.call import Attempt, AttemptOutcome
from pointsman_server.domain.errors import BudgetExceeded, DeadlineExceeded, LedgerUnavailable, RouterError, Step
from pointsman_server.domain.governance import Governance, Period, TenantPolicy
from pointsman_server.domain.ledger import BudgetAlert, BudgetKey, BudgetView, EntryOutcome
from pointsman_server.domain.ledger_ports import Trails
from pointsman_server.execution import booking
from pointsman_server.execution.accounts import Accounts

TODAY, MONTH = "2025-06-15", "2025-06"
"""When the loop's clock begins: 2025-06-15 15:06:40 UTC."""

ALL = BudgetKey("t", "all", TODAY)


class JumpingClock(LoopClock):
    """The wall clock may be set."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def now(self) -> float:
        return super().now() + self.ahead_seconds


@dataclass
class Office:
    """Processes that share a store."""

    store: MemoryLedgerStore = field(default_factory=MemoryLedgerStore)
    clock: JumpingClock = field(default_factory=JumpingClock)
    ids: CountingIds = field(default_factory=CountingIds)
    alerts: list[BudgetAlert] = field(default_factory=list)
    running: list[Accounts] = field(default_factory=list)

    async def open(self, where: Trails | None = None) -> Accounts:
        accounts = Accounts(self.store, where or NoTrails(), self.clock, self.ids, self.alerts.append)
        await accounts.start()
        self.running.append(accounts)
        return accounts

    async def close(self) -> None:
        for accounts in self.running:
            await accounts.close()

    def view(self, key: BudgetKey = ALL) -> BudgetView:
        return self.store.view(key)._replace(alerted_percent=0)


def in_office(test: Callable[[Office], Awaitable[None]]) -> None:
    """Runs a test in virtual time, and looks at the end whether the books are right."""

    async def run() -> None:
        office = Office()
        await test(office)
        office.store.is_away = office.store.loses_answers = False
        office.store.seconds = 0
        await office.close()
        for key, one in office.store.budgets.items():
            assert one.leased == 0
            assert one.settled == costs(office.store.entries, key) + one.lost
        assert all(one.is_lost for one in office.store.leases.values())

    in_virtual_time(run())


async def spend(accounts: Accounts, cost: int, worst: int = 100, *budgets: Any, **about: Any) -> None:
    async with accounts.reserve(asked(*budgets, **about), worst) as reservation:
        reservation.settle([attempt(cost)])


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


class TestSettling:
    def test_twice_or_later_is_an_error(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            async with accounts.reserve(asked(budget(100)), 50) as reservation:
                reservation.settle([attempt(10)])
                with pytest.raises(ValueError, match="settled once"):
                    reservation.settle([attempt(10)])
            with pytest.raises(ValueError, match="settled once"):
                reservation.settle([])
            await asyncio.sleep(1)
            assert office.view() == BudgetView(10)

        in_office(test)

    def test_not_at_all_books_the_worst_case(self) -> None:
        """A hang-up is no refund: a reservation that nobody settles, for whatever reason, is taken for spent."""

        async def test(office: Office) -> None:
            accounts = await office.open()
            async with accounts.reserve(asked(budget(100)), 50):
                pass
            with pytest.raises(ZeroDivisionError):
                async with accounts.reserve(asked(budget(100)), 20):
                    raise ZeroDivisionError
            with pytest.raises(ValueError, match="settled once"):
                accounts.reserve(asked(), 1).settle([])
            await asyncio.sleep(1)
            assert office.view() == BudgetView(70)
            assert [(one.outcome, one.cost_micro_usd, one.calls) for one in office.store.entries] == [
                (EntryOutcome.UNSETTLED, 50, 1),
                (EntryOutcome.UNSETTLED, 20, 1),
            ]

        in_office(test)

    def test_a_call_that_nobody_was_asked_for_leaves_nothing(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            async with accounts.reserve(asked(), 50) as reservation:
                reservation.settle([])
            assert accounts.waiting == 0

        in_office(test)

    def test_an_entry_for_each_attempt(self) -> None:
        """R16: attempts that failed are billed for what the provider reports, those that never began for nothing."""

        async def test(office: Office) -> None:
            accounts = await office.open()
            attempts: list[Attempt] = [
                attempt(0, AttemptOutcome.FAILED),
                attempt(3, AttemptOutcome.CANCELLED),
                attempt(20),
            ]
            async with accounts.reserve(asked(budget(100), team="a", app="b"), 50) as reservation:
                reservation.settle(attempts, estimated=True)
            async with accounts.reserve(asked(budget(100)), 50) as reservation:
                reservation.settle([])
            await asyncio.sleep(1)
            assert office.view() == BudgetView(23)
            told = [
                (one.attempt, one.outcome.value, one.cost_micro_usd, one.calls, one.estimated)
                for one in office.store.entries
            ]
            assert told == [
                (1, "failed", 0, 0, False),
                (2, "cancelled", 3, 0, True),
                (3, "succeeded", 20, 1, True),
            ]
            (last,) = office.store.entries[-1:]
            assert (last.request_id, last.tenant, last.deployment, last.provider, last.model) == (
                "req_test",
                "t",
                "d",
                "p",
                "m",
            )
            assert (last.labels_json, last.budgets_json) == ('{"app":"b","team":"a"}', f'[["all","{TODAY}"]]')
            assert (last.input_tokens, last.output_tokens, last.price_version) == (10, 5, "test")
            assert last.at == pytest.approx(office.clock.now(), abs=2)

        in_office(test)

    def test_three_times_the_estimate_is_booked_in_full_and_blocks(self) -> None:
        """C4, and LiteLLM #40050: what is enforced is what is recorded."""

        async def test(office: Office) -> None:
            accounts = await office.open()
            with structlog.testing.capture_logs() as logs:
                await spend(accounts, 300, 100, budget(200), budget(10**6, "other"))
            told = [line for line in logs if line["event"] == "cost_above_reservation"]
            assert [(line["tenant"], line["budget"], line["period"]) for line in told] == [
                ("t", "all", TODAY),
                ("t", "other", TODAY),
            ]
            assert {(line["reserved_micro_usd"], line["cost_micro_usd"]) for line in told} == {(100, 300)}
            with pytest.raises(BudgetExceeded):
                await spend(accounts, 1, 1, budget(200))
            await asyncio.sleep(1)
            assert office.view() == BudgetView(300)
            assert office.view(BudgetKey("t", "other", TODAY)).settled_micro_usd == 300

        in_office(test)

    def test_above_the_budget_blocks_even_before_it_is_written(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 300, 100, budget(200))
            office.store.is_away = True
            with pytest.raises(LedgerUnavailable):
                await spend(accounts, 1, 1, budget(200))
            office.store.is_away = False
            await asyncio.sleep(1)
            with pytest.raises(BudgetExceeded):
                await spend(accounts, 1, 1, budget(200))

        in_office(test)

    def test_above_the_estimate_comes_from_the_lease_while_it_lasts(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 250, 100, budget(10**6))
            await asyncio.sleep(1)
            assert office.view() == BudgetView(250, 10_000 - 250)

        in_office(test)

    def test_far_above_it_everything_in_hand_goes_back(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 20_000, 100, budget(10**6))
            await asyncio.sleep(1)
            assert office.view() == BudgetView(20_000)

        in_office(test)

    def test_a_cost_where_none_was_possible_is_booked_too(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            await spend(accounts, 7, 0, budget(100))
            await asyncio.sleep(1)
            assert office.view() == BudgetView(7)

        in_office(test)

    def test_holds_come_back_when_the_call_is_over(self) -> None:
        """LiteLLM #27639 and PR #38647: holds that stayed made a budget look used up."""

        async def test(office: Office) -> None:
            accounts, other = await office.open(), await office.open()
            async with accounts.reserve(asked(budget(100)), 100) as reservation:
                with pytest.raises(BudgetExceeded):
                    await spend(other, 1, 1, budget(100))
                reservation.settle([])
            await asyncio.sleep(0.5)
            await spend(other, 100, 100, budget(100))

        in_office(test)

    def test_concurrent_calls_cannot_pass_before_spend_is_recorded(self) -> None:
        """LiteLLM #34732 and PR #40002."""

        async def test(office: Office) -> None:
            replicas = [await office.open() for _ in range(4)]

            async def slow_call(accounts: Accounts) -> None:
                async with accounts.reserve(asked(budget(1_000)), 100) as reservation:
                    await asyncio.sleep(1)
                    reservation.settle([attempt(100)])

            calls = (slow_call(replicas[n % 4]) for n in range(64))
            ended = await asyncio.gather(*calls, return_exceptions=True)
            assert sum(one is None for one in ended) == 10
            assert all(one is None or isinstance(one, BudgetExceeded) for one in ended)
            await asyncio.sleep(1)
            assert office.view() == BudgetView(1_000)

        in_office(test)


class TestCovering:
    """C5 and C6: a fallback, a retry or a hedge is paid for beside what was asked before."""

    def test_further_attempts_take_more(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            async with accounts.reserve(asked(budget(300), budget(10**6, "other")), 100) as reservation:
                await reservation.cover(90)
                await reservation.cover(250)
                assert office.view().leased_micro_usd == 250
                with pytest.raises(BudgetExceeded):
                    await spend(accounts, 1, 51, budget(300))
                reservation.settle([attempt(80, AttemptOutcome.FAILED), attempt(150)])
            await asyncio.sleep(1)
            assert office.view() == BudgetView(230)
            assert office.view(BudgetKey("t", "other", TODAY)).settled_micro_usd == 230

        in_office(test)

    def test_what_the_budget_has_not_is_refused_and_what_was_taken_stays(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            async with accounts.reserve(asked(budget(150)), 100) as reservation:
                with pytest.raises(BudgetExceeded):
                    await reservation.cover(200)
                await reservation.cover(150)
                reservation.settle([attempt(100), attempt(20)])
            await asyncio.sleep(1)
            assert office.view() == BudgetView(120)

        in_office(test)

    def test_costs_above_all_that_was_taken_are_booked(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            async with accounts.reserve(asked(budget(150)), 100) as reservation:
                await reservation.cover(150)
                reservation.settle([attempt(170)])
            await asyncio.sleep(1)
            assert office.view() == BudgetView(170)

        in_office(test)

    def test_unsettled_all_of_it_is_booked(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            async with accounts.reserve(asked(budget(200)), 100) as reservation:
                await reservation.cover(150)
            with pytest.raises(ValueError, match="covers nothing"):
                await reservation.cover(151)
            await asyncio.sleep(1)
            assert office.view() == BudgetView(150)

        in_office(test)

    def test_after_a_death_all_of_it_is_lost(self, tmp_path: Path) -> None:
        async def test(office: Office) -> None:
            dying = await office.open(trails(tmp_path))
            async with dying.reserve(asked(budget(10**6)), 100) as reservation:
                await reservation.cover(170)
                await kill(dying)
            office.running.remove(dying)
            await office.open(trails(tmp_path))
            assert office.view() == BudgetView(170, 0, 170)

        in_office(test)

    def test_without_budgets_anything_is_covered(self) -> None:
        async def test(office: Office) -> None:
            accounts = await office.open()
            async with accounts.reserve(asked(), 100) as reservation:
                await reservation.cover(10**9)
                reservation.settle([attempt(7)])
            await asyncio.sleep(1)
            assert [one.cost_micro_usd for one in office.store.entries] == [7]

        in_office(test)


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
