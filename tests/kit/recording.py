"""Recorded calls for tests: where they go, and how they look."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from kit.catalog import call
from kit.catalog import snapshot as policy_of
from pointsman_server.domain.call import Call
from pointsman_server.domain.ports import StoreUnavailableError
from pointsman_server.domain.trace import EndedCall, Trace, TraceLine, TracePlace, TraceQuery
from pointsman_server.domain.trace_policy import TraceMode, TracePolicy

METADATA, TEXT = TracePolicy(), TracePolicy(TraceMode.TEXT)


@dataclass
class ListLog:
    """A log that keeps what it is told."""

    calls: list[EndedCall] = field(default_factory=list)

    def record(self, ended: EndedCall) -> None:
        """See `TraceLog.record`."""
        self.calls.append(ended)


@dataclass
class ListTraces:
    """A store in memory that can be slow, away, or full. `writes` are the sizes of what was written at once."""

    traces: list[Trace] = field(default_factory=list)
    writes: list[int] = field(default_factory=list)
    cleanings: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    seconds: float = 0.0
    down: bool = False

    async def write(self, traces: Sequence[Trace]) -> None:
        """See `TraceStore.write`."""
        await self._reach()
        self.writes.append(len(traces))
        self.traces += traces

    async def find(self, query: TraceQuery, limit: int) -> Sequence[tuple[TracePlace, TraceLine]]:
        """See `TraceStore.find`; here everything fits."""
        await self._reach()
        return [(TracePlace(one.line.started_at, number), one.line) for number, one in enumerate(self.traces)][:limit]

    async def get(self, request_id: str) -> Trace | None:
        """See `TraceStore.get`."""
        await self._reach()
        return next((one for one in reversed(self.traces) if one.line.request_id == request_id), None)

    async def clean(self, now: float, tenants: Collection[str], *, most_of_tenant: int, most: int) -> int:
        """See `TraceStore.clean`; gives what is to be `removed`, one number after the other."""
        await self._reach()
        self.cleanings.append((now, tuple(tenants)))
        return self.removed.pop(0) if self.removed else 0

    async def _reach(self) -> None:
        await asyncio.sleep(self.seconds)
        if self.down:
            raise StoreUnavailableError("down")


def recorded(policy: TracePolicy, **changes: Any) -> Call:
    """A call of tenant `shop` that is recorded as this policy wants."""
    return call(policy_of(traces=policy), **{"tenant": "shop", **changes})


def ended(request_id: str = "r", policy: TracePolicy = METADATA, tenant: str = "shop", **changes: Any) -> EndedCall:
    """A call that went well."""
    line = TraceLine(request_id, 100.0, 0.5, tenant, "m", "OK", 7)
    return EndedCall(**{"line": line, "policy": policy, "labels": {}, "decision": None, "attempts": (), **changes})
