"""Ledger entries and the sums of usage, which are written in one transaction and so never differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from operator import attrgetter

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from pointsman_server.adapters.stores.sql.inserting import insert_or_add
from pointsman_server.adapters.stores.sql.schema import ledger_entries, usage_daily
from pointsman_server.domain.ledger import Entry

_KEY = ("day", "tenant", "model", "labels_digest")
_DIGEST_BYTES = 16

SUMS = (
    "calls",
    "input_tokens",
    "cached_input_tokens",
    "cache_write_input_tokens",
    "output_tokens",
    "reasoning_tokens",
    "cost_micro_usd",
    "estimated_cost_micro_usd",
)
"""What usage adds up."""

DAY_SECONDS = 86_400

_INSERT = insert(ledger_entries)
_counts_of = attrgetter(*SUMS[:-1])


def day_of(at: float) -> str:
    """The day of UTC, as 2026-11-21."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def digest_of(labels_json: str) -> bytes:
    """What stands for labels in keys."""
    return blake2b(labels_json.encode(), digest_size=_DIGEST_BYTES).digest()


async def insert_entries(connection: AsyncConnection, entries: Sequence[Entry]) -> None:
    """Writes entries, and adds them to the sums of their day."""
    if not entries:
        return
    await connection.execute(_INSERT, [_row(entry) for entry in entries])
    await connection.execute(insert_or_add(connection, usage_daily, SUMS), _sums(entries))


def _row(entry: Entry) -> dict[str, object]:
    row = entry._asdict()
    row["outcome"] = entry.outcome.value
    return row


def _sums(entries: Sequence[Entry]) -> list[dict[str, object]]:
    """One row for each group, in the order in which all writers lock them."""
    groups: dict[tuple[int, str, str, str], list[tuple[int, ...]]] = defaultdict(list)
    for entry in entries:
        group = groups[int(entry.at // DAY_SECONDS), entry.tenant, entry.model, entry.labels_json]
        group.append((*_counts_of(entry), entry.cost_micro_usd if entry.estimated else 0))
    rows = [
        {
            "day": day_of(day * DAY_SECONDS),
            "tenant": tenant,
            "model": model,
            "labels_digest": digest_of(labels),
            "labels_json": labels,
            **{name: sum(column) for name, column in zip(SUMS, zip(*counts, strict=True), strict=True)},
        }
        for (day, tenant, model, labels), counts in groups.items()
    ]
    return sorted(rows, key=lambda row: [row[name] for name in _KEY])
