"""Replicas tell each other of openings, closings, resets and cooldowns through Redis.

No call waits for it. News goes into a bounded queue, which a task of its own sends; while Redis is away every replica
knows what it learned itself, and they find each other again when it is back. Times are exchanged as seconds since the
Unix epoch, because the replicas' monotonic clocks have nothing in common.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated, Any

import structlog
from pydantic import Field, TypeAdapter, ValidationError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from pointsman_server.adapters.stores.redis_connection import redis_client
from pointsman_server.domain.health import HealthNews, NewsKind
from pointsman_server.domain.ports import Clock
from pointsman_server.execution.cooldown import MAX_COOLDOWN_SECONDS
from pointsman_server.execution.health import HealthBoard

CHANNEL = "pointsman:health"
KEY = "pointsman:health:"
"""With a deployment's id after it: a hash of what is in force, for replicas that come later."""

MOST_WAITING = 1_000
"""News that waits to be sent; more is dropped and counted."""

_ANSWER_SECONDS = 2.0
_QUIET_SECONDS = 10.0
"""After this silence Redis is asked whether it is still there, and after as much again the connection is given up."""

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0

_LASTING = (NewsKind.OPENED, NewsKind.COOLED)
"""News that is in force for a time."""

_LOG = structlog.stdlib.get_logger("pointsman.stores")

_Seconds = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
_Id = Annotated[str, Field(max_length=256)]


@dataclass(frozen=True, slots=True)
class _Told:
    """News as it is exchanged; `happened_at` and `until` are seconds since the Unix epoch."""

    replica: _Id
    deployment: _Id
    kind: NewsKind
    happened_at: _Seconds
    until: _Seconds
    failed_probes: Annotated[int, Field(ge=0, le=1_000)] = 0
    by_rate: bool = False
    account: _Id = ""


_TOLD = TypeAdapter(_Told)


class SharedHealth:
    """Connects a health board with those of other replicas: start → close.

    `replica` is a name that no other process has. News of deployments that are not among `deployment_ids` is ignored.
    `dropped` counts what was not told, because Redis was away or slow for too long.
    """

    def __init__(
        self,
        url: str,
        board: HealthBoard,
        clock: Clock,
        replica: str,
        deployment_ids: Callable[[], Collection[str]],
    ) -> None:
        self._redis = redis_client(url, _ANSWER_SECONDS)
        self._board = board
        self._clock = clock
        self._replica = replica
        self._deployment_ids = deployment_ids
        self._waiting: asyncio.Queue[_Told] = asyncio.Queue(MOST_WAITING)
        self._unsent: _Told | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False
        """A cancellation alone can get lost: `asyncio.wait_for` of Python 3.11, which the library sends with, may
        swallow it. So every loop looks here too."""
        self._is_dropping = False
        self.is_connected = False
        self.dropped = 0

    def start(self) -> None:
        """Begins to tell and to listen, in the background; Redis need not be there."""
        self._board.share_with(self._take)
        self._task = asyncio.create_task(self._keep_sharing(), name="share-health")

    async def close(self) -> None:
        """Ends it; what still waits is not told."""
        self._is_closing = True
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        with suppress(Exception):
            await self._redis.aclose()

    def _take(self, news: HealthNews) -> None:
        now = self._clock.now()
        told = _Told(
            replica=self._replica,
            deployment=news.deployment_id,
            kind=news.kind,
            happened_at=now,
            until=now + news.seconds,
            failed_probes=min(news.failed_probes, 1_000),
            by_rate=news.by_rate,
            account=news.account,
        )
        try:
            self._waiting.put_nowait(told)
        except asyncio.QueueFull:
            self._drop("the queue is full")

    def _drop(self, reason: str) -> None:
        self.dropped += 1
        if not self._is_dropping:
            self._is_dropping = True
            _LOG.warning("health_news_dropping", reason=reason)

    async def _keep_sharing(self) -> None:
        pause_seconds, is_lost = _FIRST_PAUSE_SECONDS, False
        while not self._is_closing:
            started_at = self._clock.monotonic()
            try:
                await self._share()
            except Exception as error:  # whatever it is: sharing goes on when it can, and no call knows of it
                if self.is_connected or not is_lost:
                    _LOG.warning("health_sharing_lost", error=_name_of(error))
                self.is_connected, is_lost = False, True
            if self._clock.monotonic() - started_at > _QUIET_SECONDS:
                pause_seconds = _FIRST_PAUSE_SECONDS
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _LONGEST_PAUSE_SECONDS)

    async def _share(self) -> None:
        """Shares until the connection breaks, which raises."""
        async with self._redis.pubsub() as subscription:
            await subscription.subscribe(CHANNEL)
            if await subscription.get_message(timeout=_ANSWER_SECONDS) is None:
                raise RedisConnectionError("no answer to the subscription")
            # Only now: what is told while the hashes are read arrives by the channel.
            await self._catch_up()
            self.is_connected = True
            _LOG.info("health_sharing")
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._listen(subscription))
                tasks.create_task(self._send())

    async def _catch_up(self) -> None:
        async with self._redis.pipeline(transaction=False) as reads:
            for deployment_id in self._deployment_ids():
                reads.hvals(KEY + deployment_id)
            for values in await reads.execute():
                for data in values:
                    self._hear(data)

    async def _listen(self, subscription: Any) -> None:
        is_asked = False
        while not self._is_closing:
            message = await subscription.get_message(timeout=_QUIET_SECONDS)
            if message is not None:
                is_asked = False
                if message["type"] == "message":
                    self._hear(message["data"])
            elif is_asked:
                raise RedisConnectionError("silent for too long")
            else:
                await subscription.ping()
                is_asked = True

    async def _send(self) -> None:
        while not self._is_closing:
            if self._unsent is None:
                self._unsent = await self._waiting.get()
            if self._unsent.kind not in _LASTING or self._unsent.until > self._clock.now():
                try:
                    await self._write(self._unsent)
                except ResponseError:
                    self._drop("Redis refuses to keep it")
                else:
                    self._is_dropping = not self._waiting.empty()  # caught up: the next drop is news again
            self._unsent = None

    async def _write(self, told: _Told) -> None:
        key, data = KEY + told.deployment, _TOLD.dump_json(told)
        async with self._redis.pipeline(transaction=True) as changes:
            match told.kind:
                case NewsKind.OPENED | NewsKind.COOLED:
                    changes.hset(key, "account_cooled" if told.account else told.kind.value, data)
                    # Each entry says itself until when it holds; the hash outlives the longest of them.
                    changes.expire(key, int(MAX_COOLDOWN_SECONDS))
                case NewsKind.CLOSED:
                    changes.hdel(key, NewsKind.OPENED.value)
                case NewsKind.RESET:
                    changes.delete(key)
            changes.publish(CHANNEL, data)
            await changes.execute()

    def _hear(self, data: bytes) -> None:
        try:
            told = _TOLD.validate_json(data)
        except ValidationError:
            _LOG.warning("health_news_unreadable", bytes=len(data))
            return
        if told.replica == self._replica or told.deployment not in self._deployment_ids():
            return
        now = self._clock.now()
        seconds = min(told.until - now, MAX_COOLDOWN_SECONDS)
        if told.kind in _LASTING and seconds <= 0:
            return
        self._board.adopt(
            HealthNews(
                deployment_id=told.deployment,
                kind=told.kind,
                seconds=max(0.0, seconds),
                age_seconds=max(0.0, now - told.happened_at),
                failed_probes=told.failed_probes,
                by_rate=told.by_rate,
                account=told.account,
            )
        )


def _name_of(error: BaseException) -> str:
    """The type of an error, of a group that of its first: texts of the library may name hosts and URLs."""
    return _name_of(error.exceptions[0]) if isinstance(error, BaseExceptionGroup) else type(error).__name__
