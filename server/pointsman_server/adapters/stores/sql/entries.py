"""Ledger entries and the sums of usage, which are written in one transaction and so never differ."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import blake2b

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from pointsman_server.adapters.stores.sql.inserting import insert_or
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

_SECONDS_PER_DAY = 86_400


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
    await connection.execute(insert(ledger_entries), [_row(entry) for entry in entries])
    added = insert_or(connection, usage_daily)
    added = added.on_conflict_do_update(
        index_elements=_KEY, set_={name: usage_daily.c[name] + added.excluded[name] for name in SUMS}
    )
    await connection.execute(added, _sums(entries))


def _row(entry: Entry) -> dict[str, object]:
    return {**asdict(entry), "outcome": entry.outcome.value}


def _sums(entries: Sequence[Entry]) -> list[dict[str, object]]:
    """One row for each group, in the order in which all writers lock them."""
    groups: dict[tuple[int, str, str, str], Counter[str]] = defaultdict(Counter)
    for entry in entries:
        group = groups[int(entry.at // _SECONDS_PER_DAY), entry.tenant, entry.model, entry.labels_json]
        for name in SUMS[:-1]:
            group[name] += getattr(entry, name)
        group[SUMS[-1]] += entry.cost_micro_usd if entry.estimated else 0
    rows = [
        {
            "day": day_of(day * _SECONDS_PER_DAY),
            "tenant": tenant,
            "model": model,
            "labels_digest": digest_of(labels),
            "labels_json": labels,
            **sums,
        }
        for (day, tenant, model, labels), sums in groups.items()
    ]
    return sorted(rows, key=lambda row: [row[name] for name in _KEY])
