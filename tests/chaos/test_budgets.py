"""Real processes share budgets, in peace and under a nemesis; an offline checker looks at what came of it.

`python -m kit.budget_trial`, with `tests` as the path of modules, holds longer trials.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from kit.budget_trial import Spender, hold_trial, lock_sqlite, stop_postgres
from kit.databases import ENGINES, PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(240)]

PROCESSES = 8
"""Four workers of each of two replicas."""


@pytest.fixture(params=ENGINES)
def cut_off(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Callable[[float], None]]:
    """A database of each engine, and what takes it away for a while."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/ledger.db"
        return url, lock_sqlite(url)
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.make(), stop_postgres(server)


def spender(url: str, folder: Path, **changes: object) -> Spender:
    return replace(Spender(url, str(folder), "", seed=1, limit=1_000), **changes)  # type: ignore[arg-type]


async def test_64_callers_of_8_processes_and_a_budget_for_10_calls(database_url: str, tmp_path: Path) -> None:
    crowd = spender(database_url, tmp_path, calls=1, costs_worst=True, starts_at=time.monotonic() + 8)
    found = await hold_trial(crowd, PROCESSES)
    assert found.problems == []
    assert (found.admitted, found.settled_micro_usd, found.most_committed_micro_usd) == (10, 1_000, 1_000)
    assert found.operations == 64 * PROCESSES
    assert found.refused.keys() <= {"BudgetExceeded", "LedgerUnavailable"}


@pytest.mark.long
@pytest.mark.timeout(1_800)
async def test_many_operations_under_kills_and_outages(
    cut_off: tuple[str, Callable[[float], None]], tmp_path: Path
) -> None:
    """As many as `TEST_BUDGET_OPERATIONS` says; with the usual number it takes half a minute on each engine."""
    url, cut = cut_off
    operations = int(os.environ.get("TEST_BUDGET_OPERATIONS", "50000"))
    calls = operations // (4 * 64)
    crowd = spender(url, tmp_path, limit=20 * operations, calls=calls, pause_seconds=0.002, jumps=True)
    rage = {"deeds": ("kill", "kill", "pause", "cut"), "every_seconds": 1.5, "most_seconds": 10.0}
    found = await hold_trial(crowd, 4, cut=cut, **rage)  # type: ignore[arg-type]
    assert found.problems == []
    assert found.operations >= 4 * 64 * calls
    assert found.refused["kill"] >= 1
    print(f"{url.partition(':')[0]}: {found.operations} operations, {found.admitted} admitted, {dict(found.refused)}")


async def test_processes_are_killed_and_stopped(database_url: str, tmp_path: Path) -> None:
    crowd = spender(database_url, tmp_path, limit=60_000, callers=32, calls=40, pause_seconds=0.3, jumps=True)
    found = await hold_trial(crowd, 2, deeds=("kill", "kill", "pause"), every_seconds=2, most_seconds=10)
    assert found.problems == []
    assert found.refused["kill"] >= 1
    assert 40_000 < found.settled_micro_usd <= 60_000


@pytest.fixture
def cut_postgres(postgres: PostgresServer) -> tuple[str, Callable[[float], None]]:
    return postgres.make(), stop_postgres(postgres)


async def test_sqlite_is_locked_by_somebody_else(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger.db"
    crowd = spender(url, tmp_path, limit=60_000, callers=32, calls=40, pause_seconds=0.3)
    found = await hold_trial(crowd, 2, deeds=("cut",), every_seconds=3, most_seconds=6, cut=lock_sqlite(url))
    assert found.problems == []
    assert found.lost_micro_usd == 0


async def test_postgresql_goes_and_comes(cut_postgres: tuple[str, Callable[[float], None]], tmp_path: Path) -> None:
    url, cut = cut_postgres
    crowd = spender(url, tmp_path, limit=60_000, callers=32, calls=40, pause_seconds=0.3)
    deeds = ("cut", "cut", "kill")
    found = await hold_trial(crowd, 2, deeds=deeds, every_seconds=3, most_seconds=10, cut=cut)
    assert found.problems == []
    assert found.refused["cut"] >= 1
