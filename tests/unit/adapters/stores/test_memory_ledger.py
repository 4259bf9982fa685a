from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.catalog import call, deployment, snapshot
from kit.ledgers import attempt
from kit.properties import examples
from pointsman_server.adapters.stores.memory_ledger import MemoryLedger

CALL = call(snapshot(deployment("d")))


async def test_money_is_set_aside_and_what_it_cost_is_booked() -> None:
    ledger = MemoryLedger()
    async with ledger.reserve(CALL, 1_000) as reservation:
        assert (ledger.reserved_micro_usd, ledger.booked_micro_usd) == (1_000, 0)
        reservation.settle([attempt(240)])
    assert (ledger.reserved_micro_usd, ledger.booked_micro_usd) == (0, 240)


async def test_what_is_left_unsettled_books_the_worst_case() -> None:
    ledger = MemoryLedger()
    async with ledger.reserve(CALL, 1_000):
        pass
    held = ledger.reserve(CALL, 500)
    await held.__aenter__()
    assert not await held.__aexit__(KeyError, KeyError("x"), None)
    assert (ledger.reserved_micro_usd, ledger.booked_micro_usd) == (0, 1_500)


async def test_settling_for_nothing_books_nothing() -> None:
    ledger = MemoryLedger()
    async with ledger.reserve(CALL, 1_000) as reservation:
        reservation.settle([attempt(0)])
    assert (ledger.reserved_micro_usd, ledger.booked_micro_usd) == (0, 0)


async def test_a_cancelled_call_gives_back_what_it_held() -> None:
    ledger = MemoryLedger()

    async def hold() -> None:
        async with ledger.reserve(CALL, 1_000):
            await asyncio.get_running_loop().create_future()

    task = asyncio.create_task(hold())
    await asyncio.sleep(0)
    assert ledger.reserved_micro_usd == 1_000
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (ledger.reserved_micro_usd, ledger.booked_micro_usd) == (0, 1_000)


async def test_settling_twice_is_an_error() -> None:
    async with MemoryLedger().reserve(CALL, 10) as reservation:
        reservation.settle([attempt(1)])
        with pytest.raises(ValueError, match="once"):
            reservation.settle([attempt(1)])


costs = st.integers(0, 10_000)


@examples(50)
@given(st.lists(st.tuples(costs, st.none() | costs), max_size=8))
def test_many_at_once_end_with_nothing_held_and_the_sum_booked(calls: list[tuple[int, int | None]]) -> None:
    ledger = MemoryLedger()

    async def one(worst: int, cost: int | None) -> None:
        async with ledger.reserve(CALL, worst) as reservation:
            await asyncio.sleep(0)
            if cost is not None:
                reservation.settle([attempt(cost)])

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for worst, cost in calls:
                group.create_task(one(worst, cost))
            await asyncio.sleep(0)
            assert ledger.reserved_micro_usd <= sum(worst for worst, _ in calls)

    asyncio.run(all_of_them())
    assert ledger.reserved_micro_usd == 0
    assert ledger.booked_micro_usd == sum(worst if cost is None else cost for worst, cost in calls)
