"""Recorded provider traffic: loading, cutting into pieces, and replaying through a dialect.

The recordings live beside the repository, not in it; suites that need them skip with a clear message when absent.
"""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pointsman_server.adapters.providers.dialect import WireDialect, read_answer
from pointsman_server.domain.reply import Reply, ReplyBuilder

TRAFFIC_DIR = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "provider_traffic"


@dataclass(frozen=True)
class Exchange:
    """One recorded HTTP exchange; the fields are those of the recordings' README."""

    id: str
    provider: str
    kind: str
    method: str
    path: str
    query: str
    request: Any
    request_elided: bool
    status: int
    headers: Mapping[str, str]
    body: bytes
    wire: str
    stream: bool
    tags: tuple[str, ...]


@cache
def load_traffic(provider: str) -> tuple[Exchange, ...]:
    """All exchanges of a provider; skips the calling test when the recordings are not on this machine."""
    path = TRAFFIC_DIR / f"{provider}.jsonl.gz"
    if not path.exists():
        pytest.skip("recorded provider traffic is absent: ../shared/data/provider_traffic (seen from the project root)")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return tuple(_exchange(json.loads(line)) for line in lines)


def _exchange(row: dict[str, Any]) -> Exchange:
    headers = {name.lower(): value for name, value in (row["response_headers"] or {}).items()}
    return Exchange(
        id=row["id"],
        provider=row["provider"],
        kind=row["kind"],
        method=row["method"],
        path=row["path"],
        query=row["query"] or "",
        request=row["request_json"],
        request_elided=bool(row["request_elided"]),
        status=row["status"],
        headers=headers,
        body=(row["body"] or "").encode("utf-8"),
        wire=row["wire"],
        stream=bool(row["stream"]),
        tags=tuple(row["tags"] or ()),
    )


class RecordedResponse:
    """Stands where a `WireResponse` stands; hands out the recorded body in pieces of 1 to `largest_piece` bytes."""

    def __init__(self, exchange: Exchange, *, seed: int | None = None, largest_piece: int = 7) -> None:
        self.status = exchange.status
        self.headers = exchange.headers
        self._body = exchange.body
        self._seed = seed
        self._largest_piece = largest_piece

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, whole when there is no seed."""
        for piece in cut(self._body, self._seed, self._largest_piece):
            yield piece


def cut(body: bytes, seed: int | None, largest_piece: int = 7) -> Iterator[bytes]:
    """The body in random pieces, so that UTF-8 sequences and lines are split anywhere; whole without a seed."""
    if seed is None:
        yield body
        return
    dice = random.Random(seed)
    start = 0
    while start < len(body):
        size = dice.randint(1, largest_piece)
        yield body[start : start + size]
        start += size


async def replay(dialect: WireDialect, exchange: Exchange, *, seed: int | None = None, largest_piece: int = 7) -> Reply:
    """What the dialect makes of a recorded exchange. Raises the `ProviderFault` that it means, if it does."""
    response = RecordedResponse(exchange, seed=seed, largest_piece=largest_piece)
    if exchange.status != 200:
        raise dialect.read_error(exchange.status, exchange.headers, exchange.body)
    builder = ReplyBuilder()
    async for batch in read_answer(response, dialect):  # type: ignore[arg-type]  # the same two members are used
        for event in batch:
            builder.add(event)
    return builder.build()


class Coverage:
    """Counts what the traffic suites covered and what they left out and why; printed after the run."""

    def __init__(self) -> None:
        self.covered: Counter[str] = Counter()
        self.left_out: Counter[tuple[str, str]] = Counter()

    def cover(self, provider: str, count: int = 1) -> None:
        """These exchanges were compared with the official SDK's reading."""
        self.covered[provider] += count

    def leave_out(self, provider: str, why: str, count: int = 1) -> None:
        """These exchanges are of a class that is not supported."""
        self.left_out[provider, why] += count

    def to_plain(self) -> dict[str, list[Any]]:
        """The counts as plain lists, to be handed from one process to another."""
        return {
            "covered": [[provider, count] for provider, count in self.covered.items()],
            "left_out": [[provider, why, count] for (provider, why), count in self.left_out.items()],
        }

    def add_plain(self, counts: dict[str, list[Any]]) -> None:
        """Adds counts that came from another process."""
        for provider, count in counts.get("covered", ()):
            self.cover(provider, count)
        for provider, why, count in counts.get("left_out", ()):
            self.leave_out(provider, why, count)


COVERAGE = Coverage()
