"""Named calls of tests: a provider that counts, and stored answers that can be out of reach."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from pointsman_server.adapters.stores.sql.database import Database, DatabaseUnavailableError
from pointsman_server.adapters.stores.sql.idempotency_store import SqlAnswers
from pointsman_server.bootstrap.identity import RandomIds, SystemClock
from pointsman_server.execution.idempotency import AnswerStore, CallName, Found, Holding, Idempotency

DIGEST, OTHER_DIGEST = b"d" * 16, b"o" * 16
SOON_SECONDS = 20.0

_TESTS = Path(__file__).resolve().parents[1]


@dataclass
class Upstream:
    """A provider whose answers are numbered; it takes `seconds`, and fails as often as it is told to."""

    seconds: float = 0.0
    failures: int = 0
    calls: int = 0
    began: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self) -> bytes:
        """The next answer."""
        self.calls += 1
        number = self.calls
        self.began.set()
        await asyncio.sleep(self.seconds)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("the provider is gone")
        return b"answer %d" % number


async def ask(
    idempotency: Idempotency,
    upstream: Upstream,
    name: str = "n",
    *,
    tenant: str = "acme",
    digest: bytes = DIGEST,
    seconds: float = SOON_SECONDS,
) -> bytes:
    """One call by this name, as the door makes it."""
    async with idempotency.once(tenant, name, digest, monotonic() + seconds) as claim:
        if claim.answer is not None:
            return claim.answer
        answer = await upstream.answer()
        claim.keep(answer)
        return answer


@asynccontextmanager
async def replica(
    store: AnswerStore | Database, lease_seconds: float = SOON_SECONDS
) -> AsyncGenerator[Idempotency, None]:
    """What one process has of it, started."""
    kept = SqlAnswers(store, SystemClock()) if isinstance(store, Database) else store
    idempotency = Idempotency(kept, SystemClock(), RandomIds(), lease_seconds)
    idempotency.start()
    try:
        yield idempotency
    finally:
        await idempotency.close()


class MoodyAnswers:
    """Stored answers that are out of reach when they are told to be, or slow to keep one."""

    def __init__(self, store: AnswerStore) -> None:
        self._store = store
        self.is_broken = False
        self.keeping_seconds = 0.0
        self.cleaned = 0

    async def claim(self, holding: Holding, digest: bytes, lease_seconds: float) -> Found | None:
        """See `AnswerStore.claim`."""
        self._fail()
        return await self._store.claim(holding, digest, lease_seconds)

    async def look(self, name: CallName, lease_seconds: float) -> Found | None:
        """See `AnswerStore.look`."""
        self._fail()
        return await self._store.look(name, lease_seconds)

    async def renew(self, holdings: Collection[Holding], lease_seconds: float) -> None:
        """See `AnswerStore.renew`."""
        self._fail()
        await self._store.renew(holdings, lease_seconds)

    async def keep(self, holding: Holding, answer: bytes, kept_seconds: float) -> bool:
        """See `AnswerStore.keep`."""
        self._fail()
        await asyncio.sleep(self.keeping_seconds)
        return await self._store.keep(holding, answer, kept_seconds)

    async def release(self, holding: Holding) -> None:
        """See `AnswerStore.release`."""
        self._fail()
        await self._store.release(holding)

    async def clean(self) -> None:
        """See `AnswerStore.clean`."""
        self._fail()
        self.cleaned += 1
        await self._store.clean()

    def _fail(self) -> None:
        if self.is_broken:
            raise DatabaseUnavailableError("the database is away")


async def start_caller(url: str, name: str, lease_seconds: float, call_seconds: float) -> asyncio.subprocess.Process:
    """A process of its own that makes a call by this name; it says "calling" then, and the answer at the end."""
    command = [sys.executable, "-m", "kit.naming", url, name, str(lease_seconds), str(call_seconds)]
    environ = {**os.environ, "PYTHONPATH": str(_TESTS)}
    return await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, env=environ)


class _LoudUpstream(Upstream):
    async def answer(self) -> bytes:
        print("calling", flush=True)
        return await super().answer()


async def _call_once(url: str, name: str, lease_seconds: float, call_seconds: float) -> None:
    database = Database(url)
    async with replica(database, lease_seconds) as idempotency:
        answer = await ask(idempotency, _LoudUpstream(call_seconds), name)
    await database.close()
    print(answer.decode(), flush=True)


if __name__ == "__main__":
    _, _url, _name, _lease, _call = sys.argv
    asyncio.run(_call_once(_url, _name, float(_lease), float(_call)))
