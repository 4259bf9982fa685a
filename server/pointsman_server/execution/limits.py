"""Rate limits: how much tenants, the people behind their calls, and network addresses may ask for within a minute."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from hashlib import blake2b
from ipaddress import IPv6Address, IPv6Network
from typing import NamedTuple

from pointsman_server.domain.errors import CountersUnavailable, RateLimited
from pointsman_server.domain.governance import Governance, WhenCountersFail
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.counters import Counters
from pointsman_server.execution.lease import Answer, Permit, Refusal
from pointsman_server.execution.permits import AWAY_SECONDS, Permits

_REQUESTS, _TOKENS = "requests", "tokens"
_TENANT, _END_USER, _PEER = "tenant", "end_user", "peer"
_HASH_BYTES = 16
_HOST_BITS = 64
"""Of an IPv6 address; whoever has one such address has all that differ in these."""


class _Demand(NamedTuple):
    """A counter that a call is counted in; `key` is the kind of limit, the unit, the tenant and who, in the clear."""

    key: tuple[str, ...]
    limit: int

    def refused(self, seconds: float | None) -> RateLimited:
        """The error for the caller."""
        kind, unit, tenant, _ = self.key
        # Neither the person nor the address is repeated: the caller knows both.
        subject = {_TENANT: f"tenants/{tenant}", _END_USER: f"tenants/{tenant}/end_user", _PEER: "peer"}[kind]
        return RateLimited(subject, f"{self.limit} {unit} a minute", seconds)


class Limits:
    """The limits of the policy, counted together with all processes that share the counters.

    `salt` goes into the hashes under which people and addresses are counted; processes that share counters share it.
    """

    def __init__(self, counters: Counters, clock: Clock, salt: bytes) -> None:
        self._clock = clock
        self._salt = salt
        self._permits = Permits(counters, clock, self._name_of)

    @property
    def is_blind(self) -> bool:
        """Whether the counters cannot be reached now, so that the policy alone says who passes."""
        return self._permits.is_away

    async def admit(self, tenant: str, end_user: str, peer: str, governance: Governance) -> None:
        """Counts one call. Raises `RateLimited`, and `CountersUnavailable` where the policy wants that.

        `end_user` and `peer`, a network address, may be empty: then their limits do not apply.
        """
        policy = governance.of(tenant)
        mine, users = policy.limit.requests_per_minute, policy.end_user_limit.requests_per_minute
        peers = governance.peer_limit.requests_per_minute
        if mine is None and (users is None or not end_user) and (peers is None or not peer):
            return
        demands = _demands(_REQUESTS, (tenant, end_user, peer), (mine, users, peers))
        await self._take(demands, 1, governance.when_counters_fail)

    async def charge(self, tenant: str, end_user: str, peer: str, governance: Governance, tokens: int) -> TokenCharge:
        """Counts the tokens that a call will need at most; `TokenCharge.correct` says later what it needed.

        Raises what `admit` raises.
        """
        policy = governance.of(tenant)
        mine, users = policy.limit.tokens_per_minute, policy.end_user_limit.tokens_per_minute
        peers = governance.peer_limit.tokens_per_minute
        if mine is None and (users is None or not end_user) and (peers is None or not peer):
            return NO_CHARGE
        demands = _demands(_TOKENS, (tenant, end_user, peer), (mine, users, peers))
        permits = await self._take(demands, tokens, governance.when_counters_fail)
        return TokenCharge(permits, tokens, self._permits.give_back)

    async def close(self) -> None:
        """Gives back what was taken of the counters and not used."""
        await self._permits.close()

    async def _take(
        self, demands: Sequence[_Demand], amount: int, when_counters_fail: WhenCountersFail
    ) -> list[Permit]:
        """All of the permits or none."""
        now, take_now = self._clock.monotonic(), self._permits.take_now
        taken: list[Permit] = []
        missing: list[_Demand] = []
        for demand in demands:
            permit = take_now(demand.key, amount, now)
            if permit is None:
                missing.append(demand)
            else:
                taken.append(permit)
        if missing:
            try:
                taken += await self._ask(missing, amount, when_counters_fail)
            except BaseException:
                self._give_back(taken, amount)
                raise
        return taken

    async def _ask(self, demands: Sequence[_Demand], amount: int, when_counters_fail: WhenCountersFail) -> list[Permit]:
        now = self._clock.monotonic()
        known = [self._permits.answer_now(key, amount, limit, now) for key, limit in demands]
        _refuse(demands, known)
        questions = [self._permits.ask(key, amount, limit) for key, limit in demands]
        answers: list[Answer] = []
        try:
            await asyncio.wait(questions)
            answers = [question.result() for question in questions]
            _refuse(demands, answers)
            if when_counters_fail is WhenCountersFail.REFUSE and None in answers:
                raise CountersUnavailable(AWAY_SECONDS)
        except BaseException:
            self._withdraw(questions, amount)
            raise
        return [answer for answer in answers if isinstance(answer, Permit)]

    def _withdraw(self, questions: Sequence[asyncio.Future[Answer]], amount: int) -> None:
        answers = [question.result() for question in questions if not question.cancel()]
        self._give_back([answer for answer in answers if isinstance(answer, Permit)], amount)

    def _give_back(self, permits: Sequence[Permit], amount: int) -> None:
        for permit in permits:
            self._permits.give_back(permit, amount)

    def _name_of(self, key: tuple[str, ...]) -> str:
        kind, unit, tenant, who = key
        if kind == _TENANT:
            return f"{kind}/{tenant}/{unit}"
        hashed = blake2b(who.encode(), digest_size=_HASH_BYTES, key=self._salt).hexdigest()
        return f"{kind}/{tenant}/{hashed}/{unit}"


class TokenCharge:
    """Tokens that were counted before they were used."""

    def __init__(
        self, taken: Sequence[Permit], tokens: int, give_back: Callable[[Permit, int], None] | None = None
    ) -> None:
        self._taken = taken
        self._tokens = tokens
        self._give_back = give_back

    def correct(self, tokens: int) -> None:
        """The call needed so many, input and output of all attempts; the last word counts."""
        if self._give_back is None or tokens == self._tokens:
            return
        for permit in self._taken:
            self._give_back(permit, self._tokens - tokens)
        self._tokens = tokens


NO_CHARGE = TokenCharge((), 0)
"""Of calls whose tokens nobody limits."""


def _demands(unit: str, who: tuple[str, str, str], limits: tuple[int | None, int | None, int | None]) -> list[_Demand]:
    (tenant, end_user, peer), (mine, users, peers) = who, limits
    demands = []
    if mine is not None:
        demands.append(_Demand((_TENANT, unit, tenant, ""), mine))
    if users is not None and end_user:
        demands.append(_Demand((_END_USER, unit, tenant, end_user), users))
    if peers is not None and peer:
        demands.append(_Demand((_PEER, unit, "", network_of(peer)), peers))
    return demands


def _refuse(demands: Sequence[_Demand], answers: Sequence[Answer]) -> None:
    """Raises for the limit that is longest to wait for."""
    worst: RateLimited | None = None
    for demand, answer in zip(demands, answers, strict=True):
        if isinstance(answer, Refusal):
            refused = demand.refused(answer.seconds)
            if worst is None or _patience(refused) > _patience(worst):
                worst = refused
    if worst is not None:
        raise worst


def _patience(refused: RateLimited) -> float:
    return math.inf if refused.retry_after_seconds is None else refused.retry_after_seconds


@lru_cache(maxsize=4096)
def network_of(address: str) -> str:
    """Whom an address is counted as: itself, or an IPv6 address's network of 2^64."""
    try:
        read = IPv6Address(address)
    except ValueError:
        return address
    if read.ipv4_mapped is not None:
        return str(read.ipv4_mapped)
    return str(IPv6Network((int(read), 128 - _HOST_BITS), strict=False))
