"""Recorded calls: what is kept of them, how they are looked for, and where they are."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from pointsman_server.domain.call import Attempt, Call, Decision
from pointsman_server.domain.reply import Reply
from pointsman_server.domain.trace_policy import TracePolicy


class TraceLine(NamedTuple):
    """A recorded call in one line. `started_at` is seconds since the Unix epoch.

    `model` answered; of a call that failed it was asked last, "" if none was. `outcome` is the name of a gRPC code.
    """

    request_id: str
    started_at: float
    latency_seconds: float
    tenant: str
    model: str
    outcome: str
    cost_micro_usd: int


@dataclass(frozen=True, slots=True)
class EndedCall:
    """A call after its end, before anything of it is kept.

    `shown` and `reply` are there only where the policy wants texts: the call as the guards left it, and the answer as
    the caller got it. Neither may be kept as it is.
    """

    line: TraceLine
    policy: TracePolicy
    labels: Mapping[str, str]
    decision: Decision | None
    attempts: tuple[Attempt, ...]
    shown: Call | None = field(default=None, repr=False)
    reply: Reply | None = field(default=None, repr=False)


class TraceLog(Protocol):
    """Takes calls to be recorded."""

    def record(self, ended: EndedCall) -> None:
        """Keeps one more; returns at once, the writing happens later or not at all. Never fails a call."""
        ...


@dataclass(frozen=True, slots=True)
class Trace:
    """A recorded call as it is stored. `account` is its decision and attempts, in the form of whoever reads them.

    `prompt` and `answer` are masked. After `expires_at` it is removed.
    """

    line: TraceLine
    expires_at: float
    account: bytes = b""
    labels: Mapping[str, str] = field(default_factory=dict)
    prompt: str = field(default="", repr=False)
    answer: str = field(default="", repr=False)


class TracePlace(NamedTuple):
    """Where in the order of all recorded calls one stands; the newest come first."""

    started_at: float
    id: int


@dataclass(frozen=True, slots=True)
class TraceQuery:
    """What to look for; "" and None are anything. From `start` on and before `end`; `after` is the last one seen."""

    request_id: str = ""
    tenant: str = ""
    model: str = ""
    outcome: str = ""
    start: float | None = None
    end: float | None = None
    after: TracePlace | None = None


class TraceStore(Protocol):
    """Where all processes keep recorded calls. Everything raises `StoreUnavailableError`."""

    async def write(self, traces: Sequence[Trace]) -> None:
        """Keeps these as well; a request id that was used again names several."""
        ...

    async def find(self, query: TraceQuery, limit: int) -> Sequence[tuple[TracePlace, TraceLine]]:
        """The newest that fit, newest first."""
        ...

    async def get(self, request_id: str) -> Trace | None:
        """The last call with this request id."""
        ...

    async def clean(self, now: float, tenants: Collection[str], *, most_of_tenant: int, most: int) -> int:
        """Removes some of what has expired, and of the oldest where these tenants, or all together, have too many.

        Says how many were removed; 0 when nothing is left to be removed.
        """
        ...
