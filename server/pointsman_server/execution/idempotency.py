"""Calls that their callers named are made once: who asks again by the same name gets the first answer.

A name belongs to a tenant and is claimed in a store that all processes share, so whoever comes while the call runs
waits for it, wherever it runs. A claim ends with the answer, or with the error, which is not kept: then the next one
tries. A claim whose process died runs out by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import structlog

from pointsman_server.domain.errors import AnswersUnavailable, DeadlineExceeded, RequestIdReused, Step
from pointsman_server.domain.ports import Clock, Ids, StoreUnavailableError
from pointsman_server.execution.sealing import Seal

KEPT_SECONDS = 24 * 3600.0
MOST_BYTES = 1_000_000
"""Larger answers are not kept; that there was one is."""

LEASE_SECONDS = 15.0
"""How long a claim outlives its process."""

KEEPING_SECONDS = 1.0
"""How long an answer waits for being stored before it goes to its caller."""

CLEANING_SECONDS = 60.0
_RETRY_SECONDS = 1.0

_FIRST_PAUSE_SECONDS = 0.02
_LONGEST_PAUSE_SECONDS = 0.5

TOO_LARGE = b""
"""What is kept in the place of an answer that is too large; no answer is empty."""

_LOG = structlog.stdlib.get_logger("pointsman.idempotency")


class CallName(NamedTuple):
    """What a tenant calls one of its calls."""

    tenant: str
    request_id: str


class Holding(NamedTuple):
    """A name and the one claim to it."""

    name: CallName
    owner: str


@dataclass(frozen=True, slots=True)
class Found:
    """What is known of a name: the digest of its seal, and the sealed answer, None while the call runs."""

    digest: bytes
    answer: bytes | None = field(repr=False)


class AnswerStore(Protocol):
    """Claims and answers of all processes. Everything raises `StoreUnavailableError`."""

    async def claim(self, holding: Holding, digest: bytes, lease_seconds: float) -> Found | None:
        """Claims the name for this owner; or says what is there already, in which case nothing is changed."""
        ...

    async def look(self, name: CallName, lease_seconds: float) -> Found | None:
        """What is there; None if the name can be claimed."""
        ...

    async def renew(self, holdings: Collection[Holding], lease_seconds: float) -> None:
        """Lengthens the claims that are still theirs."""
        ...

    async def keep(self, holding: Holding, answer: bytes, kept_seconds: float) -> bool:
        """Puts the answer in the place of the claim; False if the claim is no longer the owner's."""
        ...

    async def release(self, holding: Holding) -> None:
        """Gives the name back, if it is still the owner's."""
        ...

    async def clean(self) -> None:
        """Removes answers and claims whose time is over."""
        ...


class Claim:
    """The one call by a name: with the `answer` that there was already, or to be made and then kept."""

    def __init__(self, seal: Seal, answer: bytes | None = None) -> None:
        self.answer = answer
        self.kept: bytes | None = None
        self._seal = seal

    def keep(self, answer: bytes) -> None:
        """This is the answer from now on; it is stored, sealed, when the call ends, even by an error."""
        self.kept = self._seal.close(answer) if len(answer) <= MOST_BYTES else TOO_LARGE


@dataclass(eq=False, slots=True)
class _Running:
    """A call that this process makes, or waits for in another one; those who wait here look at it when it is over.

    `digest` is empty until the store agrees that the name stands for that. `may_hold` says whether the name may be
    claimed by this call.
    """

    digest: bytes = b""
    may_hold: bool = False
    answer: bytes | None = None
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Idempotency:
    """Makes named calls once: start → close. `ids` give names to claims that no other process gives."""

    def __init__(self, store: AnswerStore, clock: Clock, ids: Ids, lease_seconds: float = LEASE_SECONDS) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids
        self._lease_seconds = lease_seconds
        self._running: dict[CallName, _Running] = {}
        self._holdings: set[Holding] = set()
        self._ends: set[asyncio.Task[None]] = set()
        self._housekeeping: asyncio.Task[None] | None = None

    @property
    def running_calls(self) -> int:
        """Named calls that this process makes or waits for."""
        return len(self._running)

    def start(self) -> None:
        """Begins to lengthen claims while their calls run, and to remove what is too old."""
        self._housekeeping = asyncio.create_task(self._keep_house(), name="keep-answers")

    async def close(self) -> None:
        """Ends it, after the claims of calls that ended were given back."""
        await asyncio.gather(*self._ends)
        if self._housekeeping is not None:
            self._housekeeping.cancel()
            with suppress(asyncio.CancelledError):
                await self._housekeeping

    @asynccontextmanager
    async def once(self, tenant: str, request_id: str, asked: bytes, deadline: float) -> AsyncGenerator[Claim, None]:
        """The claim to this name, after waiting for whoever has it, until the deadline (monotonic, in seconds).

        `asked` is a hash of all that is asked, at least 16 bytes, and is kept by nobody. If the claim has no `answer`,
        the caller makes the call and gives the answer to `keep`. Raises `RequestIdReused` if the name was given to
        something else or its answer cannot be told again, `DeadlineExceeded`, and `AnswersUnavailable`.
        """
        name, seal = CallName(tenant, request_id), Seal.of(asked)
        running = await self._wait_for_turn(name, seal.digest, deadline)
        if running.over.is_set():
            yield Claim(seal, _read(running.answer, seal))
            return
        holding = Holding(name, self._ids.new("claim"))
        claim = Claim(seal)
        try:
            running.answer = await self._claim(holding, running, seal.digest, deadline)
            claim.answer = _read(running.answer, seal)
            yield claim
        finally:
            # In a task of its own: a caller who went away must not leave the name behind.
            end = asyncio.create_task(self._end(holding, running, claim.kept), name="end-claim")
            self._ends.add(end)
            end.add_done_callback(self._ends.discard)
            if claim.kept is not None:
                await asyncio.wait((end,), timeout=KEEPING_SECONDS)

    async def _wait_for_turn(self, name: CallName, digest: bytes, deadline: float) -> _Running:
        """The call of this process that has an answer; or a new one, which it is now the caller's turn to make."""
        while (running := self._running.get(name)) is not None:
            if running.digest:
                _compare(running.digest, digest)
            try:
                async with asyncio.timeout(max(0.0, deadline - self._clock.monotonic())):
                    await running.over.wait()
            except TimeoutError:
                raise DeadlineExceeded(Step.RECALL) from None
            if running.answer is not None:
                _compare(running.digest, digest)
                return running
        running = self._running[name] = _Running()
        return running

    async def _claim(self, holding: Holding, running: _Running, digest: bytes, deadline: float) -> bytes | None:
        """The answer that there is; None if the name is claimed."""
        try:
            found = await self._try_to_claim(holding, running, digest)
            while found is not None and found.answer is None:
                await self._wait_elsewhere(holding.name, digest, deadline)
                found = await self._try_to_claim(holding, running, digest)
        except StoreUnavailableError as error:
            running.may_hold = False
            _LOG.warning("stored_answers_unavailable", reason=str(error))
            raise AnswersUnavailable(_RETRY_SECONDS) from None
        running.digest = digest
        if found is not None:
            return found.answer
        self._holdings.add(holding)
        return None

    async def _try_to_claim(self, holding: Holding, running: _Running, digest: bytes) -> Found | None:
        running.may_hold = True  # from now on, even if this is cancelled before it returns
        found = await self._store.claim(holding, digest, self._lease_seconds)
        running.may_hold = found is None
        if found is not None:
            _compare(found.digest, digest)
        return found

    async def _wait_elsewhere(self, name: CallName, digest: bytes, deadline: float) -> None:
        """Waits until the call that another process makes has its answer, or is given up."""
        pause_seconds = _FIRST_PAUSE_SECONDS
        while True:
            await self._pause(pause_seconds, deadline)
            pause_seconds = min(1.5 * pause_seconds, _LONGEST_PAUSE_SECONDS)
            found = await self._store.look(name, self._lease_seconds)
            if found is None or found.answer is not None:
                return
            _compare(found.digest, digest)

    async def _pause(self, seconds: float, deadline: float) -> None:
        left_seconds = deadline - self._clock.monotonic()
        if left_seconds <= 0:
            raise DeadlineExceeded(Step.RECALL)
        await asyncio.sleep(min(seconds, left_seconds))

    async def _end(self, holding: Holding, running: _Running, answer: bytes | None) -> None:
        self._holdings.discard(holding)
        try:
            if answer is not None:
                await self._keep(holding, running, answer)
            elif running.may_hold:
                await self._store.release(holding)
        except StoreUnavailableError as error:
            _LOG.warning("answer_not_kept", reason=str(error))
        finally:
            del self._running[holding.name]
            running.over.set()

    async def _keep(self, holding: Holding, running: _Running, answer: bytes) -> None:
        if await self._store.keep(holding, answer, KEPT_SECONDS):
            running.answer = answer
        else:
            _LOG.warning("answer_not_kept", reason="the claim ran out while the call was made")

    async def _keep_house(self) -> None:
        clean_at = self._clock.monotonic()
        while True:
            try:
                if self._holdings:
                    await self._store.renew(tuple(self._holdings), self._lease_seconds)
                if self._clock.monotonic() >= clean_at:
                    clean_at = self._clock.monotonic() + CLEANING_SECONDS
                    await self._store.clean()
            except StoreUnavailableError as error:
                _LOG.warning("claims_not_renewed", reason=str(error))
            await asyncio.sleep(self._lease_seconds / 3)


def _compare(known: bytes, digest: bytes) -> None:
    if known != digest:
        raise RequestIdReused("was used for a call with another content")


def _read(answer: bytes | None, seal: Seal) -> bytes | None:
    if answer is None:
        return None
    if answer == TOO_LARGE:
        raise RequestIdReused("names a call that was answered, but its answer was too large to be kept")
    try:
        return seal.open(answer)
    except ValueError:
        raise RequestIdReused("names a call that was answered, but its answer cannot be read any more") from None
