"""A cache without a database, and answers to be kept in it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from kit.catalog import call, candidate, deployment, plan, request, snapshot
from pointsman_server.domain.cache import CachedAnswer, CachePolicy, Caching, Card, Entry
from pointsman_server.domain.call import Call, Completion, Decision
from pointsman_server.domain.embedder import Embedder
from pointsman_server.domain.message import TextPart
from pointsman_server.domain.ports import StoreUnavailableError
from pointsman_server.domain.reply import FinishReason, Reply, Usage
from pointsman_server.domain.request import CacheControl, CacheMode
from pointsman_server.execution.recall import EmbedderOf

ON = CachePolicy(mode=CacheMode.READ_WRITE)


def always(embedder: Embedder) -> EmbedderOf:
    """The same embedder for all calls."""
    return lambda call, policy: embedder


class DictCache:
    """See `CacheStore`. It can be `down`, or answer only after so many seconds."""

    def __init__(self) -> None:
        self.entries: dict[bytes, Entry] = {}
        self.used: dict[bytes, float] = {}
        self.reads: list[bytes] = []
        self.cleaned = 0
        self.down = False
        self.seconds = 0.0

    async def cards(self, partition: bytes, now: float) -> Sequence[Card]:
        """See `CacheStore.cards`."""
        await self._reach(partition)
        cards = (entry.card for entry in self.entries.values())
        return [card for card in cards if card.partition == partition and card.expires_at > now]

    async def answer(self, key: bytes) -> CachedAnswer | None:
        """See `CacheStore.answer`."""
        await self._reach(key)
        return self.entries[key].answer if key in self.entries else None

    async def write(self, entries: Sequence[Entry], used: Mapping[bytes, float]) -> int:
        """See `CacheStore.write`; nothing is ever evicted but by the test."""
        await self._reach(b"")
        self.entries |= {entry.card.key: entry for entry in entries}
        self.used |= used
        return len(entries)

    async def clean(self, now: float) -> None:
        """See `CacheStore.clean`."""
        await self._reach(b"")
        self.cleaned += 1

    async def _reach(self, what: bytes) -> None:
        self.reads.append(what)
        await asyncio.sleep(self.seconds)
        if self.down:
            raise StoreUnavailableError("down")


def asked(text: str = "How do I reset my password?", policy: CachePolicy = ON, **changes: Any) -> Call:
    """A call of tenant `shop` under this policy; `cache` is what the request says of it."""
    control = CacheControl(**changes.pop("cache", {}))
    one = snapshot(deployment("d"), caching=Caching(policy))
    return call(one, **{"tenant": "shop", "request": request(text, cache=control), **changes})


def completed(text: str = "Like this.", **changes: Any) -> Completion:
    """A good answer of deployment `d`; `reply` and `plan` change what belongs to them."""
    one = deployment("d")
    reply = {
        "parts": (TextPart(text),),
        "finish_reason": FinishReason.STOP,
        "raw_finish_reason": "stop",
        "usage": Usage(10, output_tokens=5),
        "citations": (),
        "response_id": "r",
        "model": "d-1",
        **changes.pop("reply", {}),
    }
    fields: dict[str, Any] = {
        "request_id": "req",
        "decision": Decision("dec", plan([one], **changes.pop("plan", {})), 0.0),
        "answered_by": candidate(one),
        "reply": Reply(**reply),
        "usage": Usage(10, output_tokens=5),
        "estimated": False,
        "cost_micro_usd": 20,
        "attempts": (),
        "warnings": (),
    }
    return Completion(**{**fields, **changes})
