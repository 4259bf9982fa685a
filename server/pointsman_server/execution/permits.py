"""What this process may let through without asking the shared counters again, and how it asks them.

Permits of a counter are taken a few at a time, the more the faster they are used up, and what is left over is given
back when its time is over. All that is wanted at one moment is asked for at once, and while an answer is on its way
whatever else comes up waits for the next. Counters that cannot be reached are asked again in the background: no call
waits then.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import structlog

from pointsman_server.domain.ports import Clock
from pointsman_server.execution.counters import GRAIN_SECONDS, Counters, Grant, Want, seconds_until_free

CHUNKS_OF_A_LIMIT = 1_000
"""So many of the largest chunks make up a limit: what eight processes hold unused is less than 1 % of it."""

AWAY_SECONDS = 1.0
"""How long counters that cannot be reached are left alone before they are tried again."""

LONGEST_SECONDS = 5.0
"""After this a question to the counters is given up."""

QUIET_SECONDS = 10.0
"""How long nothing is said of another loss: counters may come and go."""

MOST_IN_A_QUESTION = 200
MOST_CORRECTIONS = 10_000

_ROUNDING_SECONDS = 0.001
"""Times go to callers in whole milliseconds; none of them may be too short."""

_LOG = structlog.stdlib.get_logger("pointsman.limits")


class Permit(NamedTuple):
    """Something that was taken of a counter, in this grain."""

    lease: Lease
    grain: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """The limit leaves too little; after so many seconds it leaves enough, if nobody else comes. None is never."""

    seconds: float | None


Answer = Permit | Refusal | None
"""None: the counters cannot be reached."""

_Waiter = tuple[int, asyncio.Future[Answer]]


class Lease:
    """What this process holds of one counter, and what it last heard of it. Times are on the monotonic clock."""

    __slots__ = ("amount", "chunk", "grain", "grant", "granted_at", "is_asking", "name", "short_until", "usable_until")

    def __init__(self, name: str) -> None:
        self.name = name
        self.amount = 0
        self.grain = 0
        self.usable_until = -math.inf
        self.chunk = 1
        self.is_asking = False
        self.grant: Grant | None = None
        self.granted_at = 0.0
        self.short_until = -math.inf
        """Until then the counter is known to have no more than `grant.left`."""

    def take(self, amount: int, now: float) -> Permit | None:
        """So much of what is at hand, None if there is less."""
        if self.amount < amount or now >= self.usable_until:
            return None
        self.amount -= amount
        return Permit(self, self.grain)

    def refusal(self, amount: int, limit: int, now: float) -> Refusal | None:
        """Why asking the counter would be in vain, None if it would not."""
        if amount > limit:
            return Refusal(None)
        if self.grant is None or now >= self.short_until or amount <= self.amount + self.grant.left:
            return None
        return self.shortage(amount, limit, self.grant, now)

    def shortage(self, amount: int, limit: int, grant: Grant, now: float) -> Refusal:
        """The refusal of what this grant left too little for."""
        seconds = seconds_until_free(amount, limit, grant)
        if seconds is None:
            return Refusal(None)
        return Refusal(max(0.0, seconds - (now - self.granted_at)) + _ROUNDING_SECONDS)

    def is_over(self, now: float) -> bool:
        """Whether nothing is known or held any more."""
        return not self.is_asking and now >= self.usable_until and now >= self.short_until


@dataclass(slots=True)
class _Question:
    """What is wanted of one counter by those who wait."""

    lease: Lease
    limit: int
    waiters: list[_Waiter]

    def want(self) -> Want | None:
        """What to ask for; None when nobody waits any more."""
        needs = [amount for amount, answer in self.waiters if not answer.done()]
        if not needs:
            return None
        lease = self.lease
        lease.chunk = min(2 * lease.chunk, max(1, self.limit // CHUNKS_OF_A_LIMIT))
        return Want(lease.name, min(needs), max(sum(needs), lease.chunk), self.limit)


class Permits:
    """Takes permits of shared counters. `name_of` gives a counter's name for a key of the caller's choice."""

    def __init__(self, counters: Counters, clock: Clock, name_of: Callable[[tuple[str, ...]], str]) -> None:
        self._counters = counters
        self._clock = clock
        self._name_of = name_of
        self._leases: dict[tuple[str, ...], Lease] = {}
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
        return None if lease is None else lease.take(amount, now)

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
        question.limit = limit
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

    def _sweep_soon(self) -> None:
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(GRAIN_SECONDS, self._sweep)

    def _sweep(self) -> None:
        self._sweeping = None
        now = self._clock.monotonic()
        for key, lease in list(self._leases.items()):
            if lease.is_over(now):
                self._release(lease)
                del self._leases[key]
        if self._corrections and not self.is_away:
            self._start_asking()
        if self._leases:
            self._sweep_soon()

    def _start_asking(self) -> None:
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._keep_asking(), name="ask-counters")

    async def _keep_asking(self) -> None:
        try:
            while self._questions or self._corrections:
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
        lease.amount, lease.grain, lease.usable_until = grant.amount, grant.grain, usable_until
        lease.grant, lease.granted_at = grant, now
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
