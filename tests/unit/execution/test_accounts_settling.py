"""What of a call is booked and released, however it ends, and how a running call covers more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
import structlog

from kit.ledgers import asked, attempt, budget, kill, trails
from kit.offices import TODAY, Office, in_office, spend
from pointsman_server.domain.call import Attempt, AttemptOutcome
from pointsman_server.domain.errors import BudgetExceeded, LedgerUnavailable
from pointsman_server.domain.ledger import BudgetKey, BudgetView, EntryOutcome
from pointsman_server.execution.accounts import Accounts


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
