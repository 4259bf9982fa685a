"""What was used, and whether the books are right."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeAlias

import orjson
from sqlalchemy import Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.entries import DAY_SECONDS, SUMS, day_of
from pointsman_server.adapters.stores.sql.schema import budget_leases, budget_states, ledger_entries, usage_daily
from pointsman_server.domain.ledger import BudgetKey, BudgetView, UsageDimension, UsageQuery, UsageRow

_USAGE = usage_daily.c
_ENTRY = ledger_entries.c
_LEASE = budget_leases.c

_Group: TypeAlias = tuple[str, str, str]
"""Tenant, model and labels."""


@dataclass(frozen=True, slots=True)
class BudgetCheck:
    """One budget in one period; `booked` is what the entries say, None where some of them are gone by now."""

    key: BudgetKey
    view: BudgetView
    booked_micro_usd: int | None


@dataclass(frozen=True, slots=True)
class Verification:
    """All budgets that were looked at, and what is wrong, in words."""

    budgets: tuple[BudgetCheck, ...]
    days: int
    entries: int
    problems: tuple[str, ...]


class UsageReader:
    """Reads the ledger. Every method raises `DatabaseUnavailableError`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def usage(self, query: UsageQuery) -> list[UsageRow]:
        """One row for each group, in their order; one for all without groups."""
        statement = _sums_of_usage(query)
        async with self._database.read() as connection:
            found = (await connection.execute(statement)).all()
        rows: dict[tuple[str, str, str, str], UsageRow] = {}
        for row in found:
            group = _group(row, query)
            before = rows.get(group, UsageRow(*group))
            rows[group] = replace(before, **{name: getattr(before, name) + int(getattr(row, name)) for name in SUMS})
        return [rows[group] for group in sorted(rows)]

    async def verify(self, kept_since: float) -> Verification:
        """Compares entries with the sums of days and with the budgets; entries from before `kept_since` may be gone."""
        since = day_of(kept_since + DAY_SECONDS - 1)
        async with self._database.read() as connection:
            entries = (await connection.execute(select(func.count()).select_from(ledger_entries))).scalar_one()
            days = await _days(connection, since)
            problems = [problem for day in days for problem in await _differing(connection, day)]
            budgets = await _budgets(connection, since)
            leased = await _leased(connection)
        problems += [problem for check in budgets for problem in _problems_of(check, leased.get(check.key, 0))]
        return Verification(tuple(budgets), len(days), entries, tuple(problems))


def _sums_of_usage(query: UsageQuery) -> Select[Any]:
    columns = {
        UsageDimension.TENANT: _USAGE.tenant,
        UsageDimension.MODEL: _USAGE.model,
        UsageDimension.DAY: _USAGE.day,
        UsageDimension.LABEL: _USAGE.labels_json,
    }
    groups = [column for dimension, column in columns.items() if dimension in query.group_by]
    statement = select(*groups, *(func.sum(_USAGE[name]).label(name) for name in SUMS)).group_by(*groups)
    if query.tenant:
        statement = statement.where(_USAGE.tenant == query.tenant)
    if query.first_day:
        statement = statement.where(_USAGE.day >= query.first_day)
    if query.end_day:
        statement = statement.where(_USAGE.day < query.end_day)
    return statement.having(func.count() > 0)


def _group(row: Row[Any], query: UsageQuery) -> tuple[str, str, str, str]:
    """Tenant, model, day and label, in the order of `UsageRow`."""
    found = row._mapping
    value = str(orjson.loads(found["labels_json"]).get(query.label, "")) if "labels_json" in found else ""
    return found.get("tenant", ""), found.get("model", ""), found.get("day", ""), value


async def _days(connection: AsyncConnection, since: str) -> list[str]:
    """The days, from this one on, of which there are entries or sums."""
    first, last = (await connection.execute(select(func.min(_ENTRY.at), func.max(_ENTRY.at)))).one()
    days = set[str]()
    if first is not None:
        days = {day_of(day * DAY_SECONDS) for day in range(int(first // DAY_SECONDS), int(last // DAY_SECONDS) + 1)}
    summed = await connection.execute(select(_USAGE.day).where(_USAGE.day >= since).distinct())
    return sorted(day for day in days | set(summed.scalars()) if day >= since)


async def _differing(connection: AsyncConnection, day: str) -> list[str]:
    """What is not the same in the entries of a day and in its sums."""
    written: dict[_Group, Counter[str]] = defaultdict(Counter)
    for row in await connection.execute(_sums_of_entries(day)):
        sums = written[row.tenant, row.model, row.labels_json]
        sums.update({name: int(getattr(row, name)) for name in SUMS[:-1]})
        sums[SUMS[-1]] += int(row.cost_micro_usd) if row.estimated else 0
    kept = {
        (row.tenant, row.model, row.labels_json): {name: getattr(row, name) for name in SUMS}
        for row in await connection.execute(select(usage_daily).where(_USAGE.day == day))
    }
    return [
        f"{day}, tenant {group[0]}, model {group[1]}, labels {group[2]}: the sum of {name} is "
        f"{kept.get(group, {}).get(name, 0)}, the entries have {written[group][name]}"
        for group in sorted({*written, *kept})
        for name in SUMS
        if written[group][name] != kept.get(group, {}).get(name, 0)
    ]


def _sums_of_entries(day: str) -> Select[Any]:
    begin = datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp()
    groups = (_ENTRY.tenant, _ENTRY.model, _ENTRY.labels_json, _ENTRY.estimated)
    sums = (func.sum(_ENTRY[name]).label(name) for name in SUMS[:-1])
    on_this_day = (_ENTRY.at >= begin, _ENTRY.at < begin + DAY_SECONDS)
    return select(*groups, *sums).where(*on_this_day).group_by(*groups)


async def _budgets(connection: AsyncConnection, since: str) -> list[BudgetCheck]:
    """All budgets, those of periods that began before `since` without what the entries say."""
    booked: Counter[BudgetKey] = Counter()
    sums = select(_ENTRY.tenant, _ENTRY.budgets_json, func.sum(_ENTRY.cost_micro_usd)).group_by(
        _ENTRY.tenant, _ENTRY.budgets_json
    )
    for tenant, budgets_json, cost in await connection.execute(sums):
        for budget, period in orjson.loads(budgets_json):
            booked[BudgetKey(tenant, budget, period)] += int(cost)
    checks = {}
    for row in await connection.execute(select(budget_states)):
        key = BudgetKey(row.tenant, row.budget, row.period)
        view = BudgetView(row.settled_micro_usd, row.leased_micro_usd, row.lost_micro_usd, row.alerted_percent)
        is_kept = f"{key.period}-01"[: len(since)] >= since  # the first day of a month
        checks[key] = BudgetCheck(key, view, booked[key] if is_kept else None)
    for key in booked.keys() - checks.keys():
        checks[key] = BudgetCheck(key, BudgetView(), booked[key])
    return [checks[key] for key in sorted(checks)]


async def _leased(connection: AsyncConnection) -> dict[BudgetKey, int]:
    groups = (_LEASE.tenant, _LEASE.budget, _LEASE.period)
    standing = select(*groups, func.sum(_LEASE.amount_micro_usd)).where(~_LEASE.is_lost).group_by(*groups)
    sums = await connection.execute(standing)
    return {BudgetKey(tenant, budget, period): int(amount) for tenant, budget, period, amount in sums}


def _problems_of(check: BudgetCheck, leased: int) -> Iterator[str]:
    view, name = check.view, f"tenant {check.key.tenant}, budget {check.key.budget}, {check.key.period}"
    if check.booked_micro_usd is not None and view.settled_micro_usd != check.booked_micro_usd + view.lost_micro_usd:
        yield (
            f"{name}: {view.settled_micro_usd} micro-USD are settled, the entries have {check.booked_micro_usd} and "
            f"{view.lost_micro_usd} were lost"
        )
    if view.leased_micro_usd != leased:
        yield f"{name}: {view.leased_micro_usd} micro-USD are leased, the leases have {leased}"
    if min(view) < 0:
        yield f"{name}: an amount is below zero"
