"""What is to be written down, in order, until it is: nothing is lost on the way and nothing arrives twice."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from itertools import islice

import structlog

from pointsman_server.domain.ledger import Booking, BudgetKey, BudgetView, Entry, LeaseChange
from pointsman_server.domain.ledger_ports import LedgerStore, Trail
from pointsman_server.domain.ports import Clock, StoreUnavailableError

_LOG = structlog.stdlib.get_logger("pointsman.ledger")

MOST_AT_ONCE = 500
"""Bookings in one transaction."""

MOST_WAITING = 50_000
"""Bookings that wait while the store is away; calls that would add to them are refused."""

GATHER_SECONDS = 0.25
"""Bookings are gathered for so long and written together."""

_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 5.0


class BookingQueue:
    """The bookings of this process."""

    def __init__(self, store: LedgerStore, writer: str, trail: Trail, clock: Clock) -> None:
        self._store = store
        self._writer = writer
        self._trail = trail
        self._clock = clock
        self._waiting: deque[Booking] = deque()
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._pause_seconds = 0.0
        self._not_before = 0.0
        self.number = 0

    @property
    def is_full(self) -> bool:
        """Whether so much waits that no more may be spent."""
        return len(self._waiting) >= MOST_WAITING

    @property
    def waiting(self) -> Sequence[Booking]:
        """What is not yet written down."""
        return tuple(self._waiting)

    def add(
        self,
        changes: Sequence[LeaseChange] = (),
        entries: Sequence[Entry] = (),
        *,
        reservation: int | None = None,
        urgent: bool = False,
    ) -> None:
        """Takes one more; `urgent` if others wait for what it returns."""
        self.number += 1
        booking = Booking(self.number, tuple(changes), tuple(entries))
        self._trail.booked(booking, reservation)
        self._waiting.append(booking)
        if urgent or len(self._waiting) >= MOST_AT_ONCE:
            self._news.set()

    def hurry(self) -> None:
        """Ends a wait."""
        self._news.set()

    async def wait(self) -> None:
        """Until it is time to write."""
        try:
            async with asyncio.timeout(GATHER_SECONDS):
                await self._news.wait()
        except TimeoutError:
            pass
        self._news.clear()

    async def write(self) -> Mapping[BudgetKey, BudgetView]:
        """Writes what waits now; gives how the budgets stand that it touched. Raises `StoreUnavailableError`.

        After a failure nothing is tried for a while. What comes meanwhile is for the next time: gathered it costs less.
        """
        views: dict[BudgetKey, BudgetView] = {}
        async with self._turn:
            last = self.number
            while self._waiting and self._waiting[0].number <= last and self._clock.monotonic() >= self._not_before:
                some = tuple(islice(self._waiting, MOST_AT_ONCE))
                try:
                    views |= await self._store.book(self._writer, some)
                except StoreUnavailableError:
                    self._put_off()
                    raise
                self._written(len(some))
        return views

    async def write_all(self) -> None:
        """Writes what waits now, whether that failed lately or not. Raises `StoreUnavailableError`."""
        self._not_before = 0.0
        await self.write()

    def _written(self, count: int) -> None:
        for _ in range(count):
            self._waiting.popleft()
        if self._pause_seconds:
            self._pause_seconds = 0.0
            _LOG.info("ledger_written_again", waiting=len(self._waiting))

    def _put_off(self) -> None:
        if not self._pause_seconds:
            _LOG.warning("ledger_not_written", waiting=len(self._waiting), remedy="see that the database answers")
        self._pause_seconds = min(max(_FIRST_PAUSE_SECONDS, 2 * self._pause_seconds), _LONGEST_PAUSE_SECONDS)
        self._not_before = self._clock.monotonic() + self._pause_seconds
