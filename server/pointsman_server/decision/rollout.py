"""Which calls a canary gets: always the same ones, a growing share of them as its percentage grows."""

from __future__ import annotations

import hashlib

from pointsman_server.domain.control import Rollout, RolloutKind

MOST_PERCENT = 100

_PLACES_PER_PERCENT = 1 << 32


def in_canary(rollout: Rollout, tenant: str, key: str) -> bool:
    """Whether the call of this tenant with this key (its session or its request id) gets the policy that is tried.

    The answer depends on nothing but the arguments, so all processes agree and it outlives them. A key that is in at
    one percentage is in at every higher one. Another version draws anew, so that it is not always the same who try.
    """
    if rollout.kind is not RolloutKind.CANARY or rollout.percent <= 0:
        return False
    if rollout.percent >= MOST_PERCENT:
        return True
    return _place(rollout.version, tenant, key) < rollout.percent * _PLACES_PER_PERCENT


def _place(version: str, tenant: str, key: str) -> int:
    """Evenly from 0 to 100 percent's worth of places."""
    # Lengths in front, so that no two different triples give the same bytes.
    text = "".join(f"{len(part)}:{part}" for part in (version, tenant, key))
    drawn = int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
    return drawn * MOST_PERCENT * _PLACES_PER_PERCENT >> 64
