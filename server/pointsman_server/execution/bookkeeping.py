"""What a process does for its accounts in the background, and for those of processes that have ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress

import structlog

from pointsman_server.domain.ledger import Booking, BudgetAlert, BudgetKey, BudgetView, LeaseChange, Remains
from pointsman_server.domain.ledger_ports import LeftTrail, Trails
from pointsman_server.domain.ports import StoreUnavailableError
from pointsman_server.execution.booking import MOST_AT_ONCE
from pointsman_server.execution.budgets import BudgetBook
from pointsman_server.execution.purse import Purse
from pointsman_server.execution.purses import Desk, Purses

_LOG = structlog.stdlib.get_logger("pointsman.ledger")

PULSE_SECONDS = 1.0
"""While a process holds leases it shows so often that it lives."""

LOOK_SECONDS = 5.0
"""How often the processes that have ended are looked for."""

STILL_LOOKS = 7
"""Looks in a row in which a process stood still before its leases are taken away: at least 30 seconds."""

FORGET_SECONDS = 3600.0
"""How often old entries are looked for."""

KEPT_SECONDS = 32 * 86_400.0
"""Entries are kept for longer than any month, so that a month's budget can be checked to its end."""

CLOSE_SECONDS = 10.0
"""So long a process waits at its end for its accounts to be written down."""

ALERT_PERCENT = (80, 100)

_AFTER_BUG_SECONDS = 1.0


class Bookkeeper:
    """Writes, shows that this process lives, tells of used-up budgets, and looks after what others left behind.

    `on_alert` is told of the alerts that fall to this process; it must not block and not raise.
    """

    def __init__(
        self, desk: Desk, purses: Purses, book: BudgetBook, trails: Trails, on_alert: Callable[[BudgetAlert], None]
    ) -> None:
        self._desk = desk
        self._purses = purses
        self._book = book
        self._trails = trails
        self._on_alert = on_alert
        self._still: dict[str, tuple[int, int]] = {}
        self._due: dict[str, float] = {}
        self._ending = False
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Takes up what this machine's processes left behind, and begins."""
        try:
            await self._recover()
        except StoreUnavailableError:
            _LOG.warning("ledger_not_recovered", remedy="see that the database answers; it is tried again and again")
        self._task = asyncio.create_task(self._work(), name="bookkeeping")

    async def close(self) -> None:
        """Writes everything down and returns what is left; what cannot be written in time stays in the trail."""
        self._ending = True
        self._desk.queue.hurry()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                if self._task is not None:
                    await self._task
                await self._purses.settle_down()
                await self._write_all()
        except TimeoutError:
            waiting = len(self._desk.queue.waiting)
            _LOG.error("ledger_left_behind", waiting=waiting, remedy="start again on this machine to write it")
            self._desk.trail.leave()
            return
        if self._book.outstanding:
            self._desk.trail.leave()
        else:
            self._desk.trail.end()

    async def _write_all(self) -> None:
        while self._desk.queue.waiting:
            with suppress(StoreUnavailableError):
                await self._desk.queue.write()
            if self._desk.queue.waiting:
                await self._desk.queue.wait()

    async def _work(self) -> None:
        while not self._ending:
            await self._desk.queue.wait()
            try:
                await self._step()
            except StoreUnavailableError:
                continue  # the queue says so, and tries again in its time
            except Exception as error:
                # Without this task nothing would be booked any more.
                _LOG.error("bookkeeping_failed", error=type(error).__name__)
                await asyncio.sleep(_AFTER_BUG_SECONDS)

    async def _step(self) -> None:
        self._purses.tidy()
        await self._take_note(await self._desk.queue.write())
        if self._desk.trail.is_long:
            self._desk.trail.begin_anew(self._book.remains())
        if self._is_due("pulse", PULSE_SECONDS):
            await self._pulse()
        if self._is_due("look", LOOK_SECONDS):
            await self._recover()
            await self._look_for_dead()
        if self._is_due("forget", FORGET_SECONDS):
            await self._desk.store.forget(self._desk.clock.now() - KEPT_SECONDS)

    def _is_due(self, what: str, every_seconds: float) -> bool:
        now = self._desk.clock.monotonic()
        if now < self._due.get(what, now):
            return False
        self._due[what] = now + every_seconds
        return True

    async def _pulse(self) -> None:
        held = self._purses.held()
        keys = {purse.key for purse, _ in held.values()}
        if held:
            pulse = await self._desk.store.pulse(self._desk.writer, keys)
            for name in held.keys() - pulse.leases:
                # Somebody thought that this process was dead. What was spent is booked already; the rest goes back.
                purse, lease = held[name]
                self._purses.surrender(purse.end(lease), urgent=True)
            await self._take_note(pulse.views)
        for key, refused in tuple(self._purses.exhausted.items()):
            await self._alert(self._purses.of(key), 100, refused)
            del self._purses.exhausted[key]

    async def _take_note(self, views: Mapping[BudgetKey, BudgetView]) -> None:
        for key, view in views.items():
            if key not in self._purses:
                continue
            purse = self._purses.of(key)
            purse.refused_until = 0.0
            if purse.is_near_end(view.committed_micro_usd):
                self._purses.surrender(purse.surrender(), urgent=True)
            for percent in ALERT_PERCENT:
                if purse.limit_micro_usd and view.settled_micro_usd * 100 >= purse.limit_micro_usd * percent:
                    await self._alert(purse, percent, view)

    async def _alert(self, purse: Purse, percent: int, view: BudgetView) -> None:
        if max(purse.alerted_percent, view.alerted_percent) >= percent or not purse.limit_micro_usd:
            return
        is_first = await self._desk.store.mark_alerted(purse.key, percent)
        purse.alerted_percent = percent
        if is_first:
            alert = BudgetAlert(purse.key, percent, purse.limit_micro_usd, view.settled_micro_usd)
            _LOG.warning(
                "budget_alert",
                **purse.key._asdict(),
                percent=percent,
                limit_micro_usd=alert.limit_micro_usd,
                settled_micro_usd=alert.settled_micro_usd,
            )
            self._on_alert(alert)

    async def _look_for_dead(self) -> None:
        lessees = await self._desk.store.lessees()
        self._still = {
            writer: (beats, looks + 1 if beats == seen else 1)
            for writer, beats in lessees.items()
            for seen, looks in (self._still.get(writer, (beats, 0)),)
            if writer != self._desk.writer
        }
        for writer, (beats, looks) in self._still.items():
            if looks >= STILL_LOOKS:
                lost = await self._desk.store.take_away(writer, beats)
                _LOG.warning("leases_lost", writer=writer, booked_micro_usd=lost)

    async def _recover(self) -> None:
        left = await self._trails.left_behind()
        with ExitStack() as claims:
            for trail in left:
                claims.callback(trail.leave)
            for trail in left:
                await self._follow(trail)

    async def _follow(self, trail: LeftTrail) -> None:
        remains, store = trail.remains, self._desk.store
        for begin in range(0, len(remains.bookings), MOST_AT_ONCE):
            await store.book(remains.writer, remains.bookings[begin : begin + MOST_AT_ONCE])
        if remains.is_whole:
            changes = tuple(_last_changes(remains))
            await store.book(remains.writer, [Booking(remains.number + 1, changes)])
            # What the trail does not know was granted in the last moment, and nothing was taken from it.
            await store.give_back(remains.writer)
            lost = sum(change.lost_micro_usd for change in changes)
        else:
            lost = await store.take_away(remains.writer, None)
        trail.remove()
        _LOG.warning("ledger_recovered", writer=remains.writer, bookings=len(remains.bookings), booked_micro_usd=lost)


def _last_changes(remains: Remains) -> Iterator[LeaseChange]:
    """Nobody can tell what became of calls that were under way, so they are booked as if they had cost the most."""
    lost: Counter[str] = Counter()
    for takes in remains.outstanding.values():
        for lease_id, amount in takes:
            lost[lease_id] += amount
    for lease_id, (key, left) in remains.leases.items():
        taken = min(lost[lease_id], left)
        yield LeaseChange(lease_id, key, returned_micro_usd=left - taken, lost_micro_usd=taken)
