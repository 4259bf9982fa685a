"""How this server talks to Redis: with short patience, and nothing is sent twice."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def redis_client(url: str, answer_seconds: float) -> Any:
    """A client that gives up when Redis has not answered for so long. It connects when it is first used.

    Raises `ValueError` for a URL that is none of a Redis server, without quoting it: it may hold a password.
    """
    try:
        return Redis.from_url(
            url,
            protocol=2,
            socket_timeout=answer_seconds,
            socket_connect_timeout=answer_seconds,
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError:
        raise ValueError("POINTSMAN_REDIS_URL is no URL of a Redis server (not shown)") from None
