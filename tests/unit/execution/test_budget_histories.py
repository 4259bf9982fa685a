"""Random histories of processes that spend, die, sleep and lose their store, against a model that only adds up."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from kit import clock
from kit.clock import CountingIds, LoopClock
from kit.ledgers import MemoryLedgerStore, asked, attempt, budget, costs, kill, trails
from pointsman_server.domain.errors import BudgetExceeded, LedgerUnavailable
from pointsman_server.domain.ledger import BudgetKey
from pointsman_server.execution.accounts import Accounts
from pointsman_server.execution.budgets import BudgetReservation

TODAY = "2025-06-15"
NAMES = ("all", "team")
KEYS = {name: BudgetKey("t", name, TODAY) for name in NAMES}
PROCESSES = 3

T = TypeVar("T")


@dataclass
class Running:
    """A call under way: who serves it, what it may cost, and the budgets it takes that from, as it knows them."""

    place: int
    reservation: BudgetReservation
    worst: int
    names: tuple[str, ...]
    limits: dict[str, int]


class Spending(RuleBasedStateMachine):
    """Whatever happens: what is spent and what may still be, together, never pass the limit at which calls begin."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner(loop_factory=clock._VirtualTimeLoop)
        self.folder = Path(tempfile.mkdtemp(prefix="trails"))
        self.store = MemoryLedgerStore()
        self.ids = CountingIds()
        self.limits = dict.fromkeys(NAMES, 1_000)
        self.calls: list[Running] = []
        self.spent: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.processes: list[Accounts] = []
        self.asleep: set[int] = set()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(coroutine)

    async def open(self) -> Accounts:
        accounts = Accounts(self.store, trails(self.folder), LoopClock(), self.ids, lambda _: None)
        await accounts.start()
        return accounts

    @initialize(limit=st.sampled_from([100, 1_000, 100_000]))
    def begin(self, limit: int) -> None:
        self.limits = {"all": limit, "team": max(1, limit // 3)}

        async def open_all() -> None:
            self.processes = [await self.open() for _ in range(PROCESSES)]

        self.run(open_all())

    def under_way(self, name: str) -> int:
        return sum(call.worst for call in self.calls if name in call.names)

    @rule(place=st.integers(0, PROCESSES - 1), worst=st.integers(1, 120), both=st.booleans())
    def call(self, place: int, worst: int, both: bool) -> None:
        names = NAMES if both else NAMES[:1]
        budgets = budget(self.limits["all"]), budget(self.limits["team"], "team", team="a")

        async def enter() -> BudgetReservation | None:
            call = asked(*budgets, team="a") if both else asked(*budgets)
            reservation = self.processes[place].reserve(call, worst)
            try:
                return await reservation.__aenter__()
            except (BudgetExceeded, LedgerUnavailable):
                return None

        reservation = self.run(enter())
        if reservation is None:
            return
        self.calls.append(Running(place, reservation, worst, tuple(names), dict(self.limits)))
        self.admitted(self.calls[-1])

    def admitted(self, call: Running) -> None:
        for name in call.names:
            assert self.spent[name] + self.lost[name] + self.under_way(name) <= call.limits[name]

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0), part=st.floats(0, 1), forgotten=st.booleans())
    def end(self, which: int, part: float, forgotten: bool) -> None:
        call = self.calls.pop(which % len(self.calls))
        cost = call.worst if forgotten else round(part * call.worst)

        async def leave() -> None:
            if not forgotten:
                call.reservation.settle([attempt(cost)])
            await call.reservation.__aexit__(None, None, None)

        self.run(leave())
        self.spent.update(dict.fromkeys(call.names, cost))

    @precondition(lambda self: self.calls)
    @rule(which=st.integers(0), more=st.integers(1, 80))
    def another_attempt(self, which: int, more: int) -> None:
        call = self.calls[which % len(self.calls)]

        async def cover() -> bool:
            try:
                await call.reservation.cover(call.worst + more)
            except (BudgetExceeded, LedgerUnavailable):
                return False
            return True

        if self.run(cover()):
            call.worst += more
            self.admitted(call)

    @rule(place=st.integers(0, PROCESSES - 1))
    def die(self, place: int) -> None:
        for call in [call for call in self.calls if call.place == place]:
            self.calls.remove(call)
            self.lost.update(dict.fromkeys(call.names, call.worst))

        async def again() -> None:
            if place not in self.asleep:
                await kill(self.processes[place])
            else:
                self.processes[place]._keeper._desk.trail.leave()
            self.processes[place] = await self.open()

        self.run(again())
        self.asleep.discard(place)

    @rule(place=st.integers(0, PROCESSES - 1))
    def sleep(self, place: int) -> None:
        """The process stands still: nothing of it runs but calls that are under way."""
        if place in self.asleep:
            return
        task = self.processes[place]._keeper._task
        assert task is not None

        async def stop() -> None:
            task.cancel()
            await asyncio.wait([task])

        self.run(stop())
        self.asleep.add(place)

    @rule(place=st.integers(0, PROCESSES - 1))
    def wake(self, place: int) -> None:
        if place in self.asleep:
            self.run(self.processes[place].start())
            self.asleep.discard(place)

    @rule(is_away=st.booleans())
    def store_goes_or_comes(self, is_away: bool) -> None:
        self.store.is_away = is_away

    @rule(loses_answers=st.booleans())
    def connection_is_cut_or_mended(self, loses_answers: bool) -> None:
        self.store.loses_answers = loses_answers

    @rule(seconds=st.sampled_from([0.1, 1.0, 6.0, 45.0]))
    def time_goes_by(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))

    @rule(name=st.sampled_from(NAMES), limit=st.sampled_from([0, 50, 500, 1_000, 200_000]))
    def limit_changes(self, name: str, limit: int) -> None:
        self.limits[name] = limit

    @invariant()
    def the_store_never_knows_less_than_was_leased(self) -> None:
        for one in self.store.budgets.values():
            assert min(one.settled, one.leased, one.lost) >= 0
            assert one.lost <= one.settled

    def teardown(self) -> None:
        try:
            if self.processes:
                self.run(self.rest())
        finally:
            self.runner.close()
            shutil.rmtree(self.folder)

    async def rest(self) -> None:
        """After all is quiet, what remains is the limit less what was spent, to the micro-USD."""
        self.store.is_away = self.store.loses_answers = False
        for call in self.calls:
            call.reservation.settle([])
        for place in self.asleep:
            await self.processes[place].start()
        await asyncio.sleep(60)
        for accounts in self.processes:
            await accounts.close()
        assert all(one.is_lost for one in self.store.leases.values())
        for name, key in KEYS.items():
            view = self.store.view(key)
            assert (view.leased_micro_usd, view.lost_micro_usd) == (0, self.lost[name])
            assert view.settled_micro_usd == self.spent[name] + self.lost[name]
            assert costs(self.store.entries, key) == self.spent[name]


TestSpending = Spending.TestCase
TestSpending.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
