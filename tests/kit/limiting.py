"""Rate limits of tests: a policy in one line, and counters that can be slowed down, broken and mended."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pointsman_server.adapters.stores.memory_counters import MemoryCounters
from pointsman_server.domain.errors import RateLimited
from pointsman_server.domain.governance import Governance, RateLimit, TenantPolicy, WhenCountersFail
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.counters import Corrections, Grant, Want
from pointsman_server.execution.limits import Limits

SALT = b"salt"


def governed(
    requests: int | None = None,
    tokens: int | None = None,
    *,
    users: int | None = None,
    peers: int | None = None,
    fail: WhenCountersFail = WhenCountersFail.REFUSE,
) -> Governance:
    """The tenant `acme` with these limits for a minute; others have none, but for their addresses."""
    return Governance(
        tenants={"acme": TenantPolicy(limit=RateLimit(requests, tokens), end_user_limit=RateLimit(users))},
        peer_limit=RateLimit(peers),
        when_counters_fail=fail,
    )


class MoodyCounters:
    """Counters in memory whose answers can take a while, or fail."""

    patience_seconds = 0.05

    def __init__(self, clock: Clock) -> None:
        self._counters = MemoryCounters(clock)
        self.seconds = 0.0
        self.is_broken = False
        self.questions: list[tuple[Sequence[Want], Corrections]] = []
        self.checks = 0

    @property
    def names(self) -> set[str]:
        """Of all counters that were asked for."""
        return {want.name for wants, _ in self.questions for want in wants}

    async def take(self, wants: Sequence[Want], corrections: Corrections) -> Sequence[Grant]:
        """See `Counters.take`. What takes long is counted first, and told late."""
        self.questions.append((wants, corrections))
        if self.is_broken:
            raise ConnectionError("refused by secret-host:6379")
        grants = await self._counters.take(wants, corrections)
        if self.seconds:
            await asyncio.sleep(self.seconds)
        return grants

    async def check(self) -> None:
        """See `Counters.check`."""
        self.checks += 1
        if self.is_broken:
            raise ConnectionError("refused by secret-host:6379")


async def admitted(
    limits: Limits, governance: Governance, *, tenant: str = "acme", user: str = "", peer: str = ""
) -> bool:
    """Whether a call is let through."""
    try:
        await limits.admit(tenant, user, peer, governance)
    except RateLimited:
        return False
    return True


async def let_through(limits: Limits, governance: Governance, calls: int, *, user: str = "", peer: str = "") -> int:
    """How many of so many calls, one after the other, are let through."""
    return sum([await admitted(limits, governance, user=user, peer=peer) for _ in range(calls)])
