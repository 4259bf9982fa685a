"""Counters of rate limits in Redis: one hash for each, with what was taken by grain, changed by one script.

Grains are those of Redis's own clock. A hash is gone a minute after its last use, and all of them when Redis restarts
without a disk: then every limit begins anew.
"""

from __future__ import annotations

from collections.abc import Sequence

from pointsman_server.adapters.stores.redis_connection import redis_client
from pointsman_server.execution.counters import GRAIN_SECONDS, HELD_GRAINS, USABLE_GRAINS, Corrections, Grant, Want

KEY = "pointsman:limits:"
"""With a counter's name after it."""

_ANSWER_SECONDS = 1.0
_GRAIN_MICROSECONDS = round(GRAIN_SECONDS * 1_000_000)
_KEPT_MILLISECONDS = round((HELD_GRAINS + 1) * GRAIN_SECONDS * 1_000)

_TAKE = f"""
local least, wanted, limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local grain = math.floor(now / {_GRAIN_MICROSECONDS})
local counted = redis.call('HGETALL', KEYS[1])
local left, to_come = limit, 0
for i = 1, #counted, 2 do
  local one, count = tonumber(counted[i]), tonumber(counted[i + 1])
  if one > grain - {HELD_GRAINS} then left = left - count end
  if one > grain then to_come = to_come + count end
  if one > grain or one <= grain - {HELD_GRAINS} then redis.call('HDEL', KEYS[1], counted[i]) end
end
local amount = 0
if left >= least then amount = math.min(wanted, left) end
if amount + to_come ~= 0 then redis.call('HINCRBY', KEYS[1], grain, amount + to_come) end
redis.call('PEXPIRE', KEYS[1], {_KEPT_MILLISECONDS})
local held = {{}}
if amount < wanted then held = redis.call('HGETALL', KEYS[1]) end
return {{amount, grain, (grain + {USABLE_GRAINS}) * {_GRAIN_MICROSECONDS} - now, math.max(0, left - amount), held}}
"""
"""See `WindowCount`, which does the same."""

_CORRECT = "if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then redis.call('HINCRBY', KEYS[1], ARGV[1], ARGV[2]) end"


class RedisCounters:
    """See `Counters`. Raises `ValueError` for a URL that is none of a Redis server, without quoting it."""

    patience_seconds = 0.05

    def __init__(self, url: str) -> None:
        self._redis = redis_client(url, _ANSWER_SECONDS)

    async def take(self, wants: Sequence[Want], corrections: Corrections) -> Sequence[Grant]:
        """See `Counters.take`."""
        async with self._redis.pipeline(transaction=False) as commands:
            for (name, grain), amount in corrections.items():
                commands.eval(_CORRECT, 1, KEY + name, grain, -amount)
            for want in wants:
                commands.eval(_TAKE, 1, KEY + want.name, want.least, want.amount, want.limit)
            answers = await commands.execute()
        return [_grant(*answer) for answer in answers[len(corrections) :]]

    async def check(self) -> None:
        """See `Counters.check`."""
        await self._redis.ping()

    async def close(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()


def _grant(amount: int, grain: int, usable_microseconds: int, left: int, held: list[bytes]) -> Grant:
    grains, counts = map(int, held[::2]), map(int, held[1::2])
    return Grant(amount, grain, usable_microseconds / 1_000_000, left, tuple(sorted(zip(grains, counts, strict=True))))
