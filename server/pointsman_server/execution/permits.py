"""What this process may let through without asking the shared counters again, and how it asks them.

Permits of a counter are taken a few at a time, the more the faster they are used up, and what is left over is given
back when its time is over. Where many are used, new ones are asked for before those at hand run out, so that hardly any
call waits. All that is wanted at one moment is asked for at once, and while an answer is on its way whatever else comes
up waits for the next. Counters that cannot be reached are asked again in the background: no call waits then.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

import structlog

from pointsman_server.domain.ports import Clock
from pointsman_server.execution.counters import GRAIN_SECONDS, Counters, Grant, Want
from pointsman_server.execution.lease import AHEAD_SECONDS, LEAST_CHUNK_AHEAD, Answer, Lease, Permit, Refusal

CHUNKS_OF_A_LIMIT = 2_000
"""So many of the largest chunks make up a limit: what eight processes hold unused is less than 1 % of it, also while
each of them is getting new ones ahead of time."""

AWAY_SECONDS = 1.0
"""How long counters that cannot be reached are left alone before they are tried again."""

LONGEST_SECONDS = 5.0
"""After this a question to the counters is given up."""

QUIET_SECONDS = 10.0
"""How long nothing is said of another loss: counters may come and go."""

MOST_IN_A_QUESTION = 200
MOST_CORRECTIONS = 10_000

_LOG = structlog.stdlib.get_logger("pointsman.limits")


_Waiter = tuple[int, asyncio.Future[Answer]]


@dataclass(slots=True)
class _Question:
    """What is wanted of one counter by those who wait."""

    lease: Lease
    limit: int
    waiters: list[_Waiter]
    is_ahead: bool = False
    """Whether permits are at hand meanwhile."""

    def want(self) -> Want | None:
        """What to ask for; None when nobody waits any more."""
        needs = [amount for amount, answer in self.waiters if not answer.done()]
        if not needs and not self.is_ahead:
            return None
        lease = self.lease
        # Twice what was used of the last ones: the more the faster they go.
        lease.chunk = min(2 * (lease.used + sum(needs)), max(1, self.limit // CHUNKS_OF_A_LIMIT))
        return Want(lease.name, min(needs, default=1), max(sum(needs), lease.chunk, 1), self.limit)


class Permits:
    """Takes permits of shared counters. `name_of` gives a counter's name for a key of the caller's choice."""

    def __init__(self, counters: Counters, clock: Clock, name_of: Callable[[tuple[str, ...]], str]) -> None:
        self._counters = counters
        self._clock = clock
        self._name_of = name_of
        self._leases: dict[tuple[str, ...], Lease] = {}
        self._busy: set[Lease] = set()
        """Those that are worth asking for ahead of time."""
        self._questions: dict[Lease, _Question] = {}
        self._under_way: list[_Question] = []
        self._corrections: dict[tuple[str, int], int] = {}
        self._asking: asyncio.Task[None] | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._losing: asyncio.TimerHandle | None = None
        self._told_at = -math.inf
        self.is_away = False
        """Whether the counters cannot be reached now."""

    def __len__(self) -> int:
        return len(self._leases)

    def take_now(self, key: tuple[str, ...], amount: int, now: float) -> Permit | None:
        """A permit that is at hand; None says that the counter has to be asked."""
        lease = self._leases.get(key)
        if lease is None:
            return None
        permit = lease.take(amount, now)
        if permit is not None and lease in self._busy and lease.is_due(now):
            self._ask_ahead(lease, now)
        return permit

    def answer_now(self, key: tuple[str, ...], amount: int, limit: int, now: float) -> Refusal | None:
        """A refusal that is known without asking."""
        return self._lease(key).refusal(amount, limit, now)

    def ask(self, key: tuple[str, ...], amount: int, limit: int) -> asyncio.Future[Answer]:
        """Asks the counter for a permit. Who does not want the answer any more cancels it."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        if self.is_away:
            answer.set_result(None)
            return answer
        lease = self._lease(key)
        lease.is_asking = True
        question = self._questions.setdefault(lease, _Question(lease, limit, []))
        question.limit = lease.limit = limit
        question.waiters.append((amount, answer))
        self._start_asking()
        return answer

    def give_back(self, permit: Permit, amount: int) -> None:
        """So much of a permit was not used; less than zero says that more was used."""
        lease = permit.lease
        if amount > 0 and lease.grain == permit.grain and self._clock.monotonic() < lease.usable_until:
            lease.amount += amount
            return
        lease.short_until = -math.inf
        self._correct(lease.name, permit.grain, amount)

    async def close(self) -> None:
        """Gives back all that is at hand."""
        for timer in (self._sweeping, self._losing):
            if timer is not None:
                timer.cancel()
        if self._asking is not None:
            self._asking.cancel()
            with suppress(asyncio.CancelledError):
                await self._asking
        for lease in self._leases.values():
            self._release(lease)
        if self._corrections and not self.is_away:
            with suppress(Exception):
                async with asyncio.timeout(AWAY_SECONDS):
                    await self._counters.take((), self._corrections)

    def _ask_ahead(self, wanted: Lease, now: float) -> None:
        if self.is_away:
            return
        for lease in self._busy:
            if lease is wanted or (not lease.is_asking and lease.ends_within(2 * AHEAD_SECONDS, now)):
                lease.is_asking = True
                self._questions[lease] = _Question(lease, lease.limit, [], is_ahead=True)
        self._start_asking()

    def _lease(self, key: tuple[str, ...]) -> Lease:
        lease = self._leases.get(key)
        if lease is None:
            lease = self._leases[key] = Lease(self._name_of(key))
            self._sweep_soon()
        return lease

    def _correct(self, name: str, grain: int, amount: int) -> None:
        if len(self._corrections) < MOST_CORRECTIONS:
            self._corrections[name, grain] = self._corrections.get((name, grain), 0) + amount
            self._sweep_soon()

    def _release(self, lease: Lease) -> None:
        if lease.amount:
            self._correct(lease.name, lease.grain, lease.amount)
        lease.amount, lease.usable_until = 0, -math.inf

    @property
    def _asks_soon(self) -> bool:
        """Whether permits are asked for all the time: then the next question takes corrections along."""
        now = self._clock.monotonic()
        return any(now < lease.usable_until for lease in self._busy)

    def _sweep_soon(self) -> None:
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(GRAIN_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        now = self._clock.monotonic()
        for key, lease in list(self._leases.items()):
            if lease.is_over(now):
                self._release(lease)
            if lease.is_forgotten(now):
                self._busy.discard(lease)
                del self._leases[key]
        if self._corrections and not self.is_away and not self._asks_soon:
            self._start_asking()
        if self._leases:
            self._sweep_soon()

    def _start_asking(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._keep_asking(), name="ask-counters")

    async def _keep_asking(self) -> None:
        try:
            while self._questions or (self._corrections and not self._asks_soon):
                try:
                    await self._ask_once()
                except Exception as error:  # whatever it is: limits are not worth a broken service
                    self._lose(type(error).__name__)
                    await self._wait_until_back()
                self._find()
        finally:
            self._answer_nobody()

    async def _ask_once(self) -> None:
        wants = self._next_question()
        corrections = dict(islice(self._corrections.items(), MOST_IN_A_QUESTION))
        for place in corrections:
            del self._corrections[place]
        asked_at = self._clock.monotonic()
        self._lose_after(self._counters.patience_seconds)
        async with asyncio.timeout(LONGEST_SECONDS):
            grants = await self._counters.take(tuple(wants), corrections)
        self._stop_waiting()
        under_way, self._under_way = self._under_way, []
        for question, grant in zip(under_way, grants, strict=True):
            self._deliver(question, grant, asked_at)

    def _next_question(self) -> list[Want]:
        wants: list[Want] = []
        for lease, question in list(self._questions.items())[:MOST_IN_A_QUESTION]:
            del self._questions[lease]
            want = question.want()
            if want is None:
                lease.is_asking = False
                continue
            if not question.is_ahead:
                # What is left is too little or too old: with it given back there is one amount of one grain again.
                self._release(lease)
            wants.append(want)
            self._under_way.append(question)
        return wants

    def _deliver(self, question: _Question, grant: Grant, asked_at: float) -> None:
        now, lease = self._clock.monotonic(), question.lease
        lease.is_asking = lease in self._questions
        # Reckoned from the moment of the question, which is earlier than that of the grant: never too long.
        usable_until = asked_at + grant.usable_seconds
        if grant.amount and now >= usable_until:
            self._correct(lease.name, grant.grain, grant.amount)
            self._ask_again(question)
            return
        if lease.grain != grant.grain:
            self._release(lease)
        lease.amount, lease.grain, lease.usable_until = lease.amount + grant.amount, grant.grain, usable_until
        lease.grant, lease.granted_at, lease.used = grant, now, 0
        if lease.chunk >= LEAST_CHUNK_AHEAD:
            self._busy.add(lease)
        else:
            self._busy.discard(lease)
        lease.short_until = usable_until - GRAIN_SECONDS if grant.held else -math.inf
        for amount, answer in question.waiters:
            if not answer.done():
                answer.set_result(lease.take(amount, now) or lease.shortage(amount, question.limit, grant, now))

    def _ask_again(self, question: _Question) -> None:
        question.lease.is_asking = True
        newer = self._questions.get(question.lease)
        if newer is None:
            self._questions[question.lease] = question
        else:
            newer.waiters[:0] = question.waiters

    def _lose_after(self, seconds: float, halves: int = 2) -> None:
        # In two steps: after a pause of the whole process, what has arrived meanwhile gets its turn.
        loop = asyncio.get_running_loop()
        if halves:
            self._losing = loop.call_later(seconds / 2, self._lose_after, seconds, halves - 1)
        else:
            self._lose("slow")

    def _stop_waiting(self) -> None:
        if self._losing is not None:
            self._losing.cancel()
            self._losing = None

    def _lose(self, error: str) -> None:
        self._stop_waiting()
        now = self._clock.monotonic()
        if not self.is_away and now - self._told_at >= QUIET_SECONDS:
            self._told_at = now
            _LOG.warning("rate_limit_counters_lost", error=error)
        self.is_away = True
        self._answer_nobody()

    def _find(self) -> None:
        if self.is_away:
            self.is_away = False
            _LOG.info("rate_limit_counters_back")

    def _answer_nobody(self) -> None:
        for question in (*self._under_way, *self._questions.values()):
            for _, answer in question.waiters:
                if not answer.done():
                    answer.set_result(None)

    async def _wait_until_back(self) -> None:
        for question in self._under_way:
            question.lease.is_asking = False
        self._under_way.clear()
        while True:
            await asyncio.sleep(AWAY_SECONDS)
            with suppress(Exception):
                async with asyncio.timeout(LONGEST_SECONDS):
                    await self._counters.check()
                break
        # What was to be corrected before does not count any more, or will not for long.
        self._corrections.clear()
