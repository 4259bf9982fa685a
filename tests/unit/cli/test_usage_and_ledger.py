"""`pointsman usage` and `pointsman ledger`, on a database that servers would share."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from sqlalchemy import update

from kit.clock import FakeClock
from kit.ledgers import entry
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.entries import day_of
from pointsman_server.adapters.stores.sql.ledger_store import SqlLedgerStore
from pointsman_server.adapters.stores.sql.schema import budget_states
from pointsman_server.cli.ledger import WRONG_EXIT_CODE, ledger
from pointsman_server.cli.usage import usage
from pointsman_server.domain.ledger import Booking, BudgetKey, LeaseChange

NOW = time.time()
TODAY = day_of(NOW)
KEY = BudgetKey("team-a", "all", TODAY)
ENTRIES = (
    entry(1_500_000, KEY, at=NOW, tenant="team-a", model="large", labels_json='{"app":"x"}'),
    entry(7, KEY, at=NOW, tenant="team-a", model="small", estimated=True),
    entry(3, at=NOW, tenant="team-b", model="small"),
)


async def _write(url: str, lost: int = 0) -> None:
    database = Database(url)
    await database.open()
    store = SqlLedgerStore(database, FakeClock())
    changes = (LeaseChange("", KEY, lost_micro_usd=0, beyond_micro_usd=1_500_007),)
    await store.book("w", [Booking(1, changes, ENTRIES)])
    if lost:
        async with database.write() as connection:
            await connection.execute(update(budget_states).values(lost_micro_usd=lost))
    await database.close()


@pytest.fixture
def url(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/pointsman.db"
    asyncio.run(_write(url))
    return url


def run(command: click.Command, *arguments: str, url: str) -> Result:
    return CliRunner().invoke(command, arguments, env={"POINTSMAN_DATABASE_URL": url}, prog_name="pointsman")


def rows(*arguments: str, url: str) -> list[dict[str, Any]]:
    result = run(usage, *arguments, "--json", url=url)
    assert result.exit_code == 0, result.output
    return list(json.loads(result.stdout))


class TestUsage:
    def test_shows_each_tenant(self, url: str) -> None:
        result = run(usage, url=url)
        assert result.exit_code == 0
        heading, first, second = (line.split() for line in result.stdout.splitlines())
        assert heading[:3] == ["tenant", "calls", "input"]
        assert first == ["team-a", "2", "20", "8", "10", "6", "$1.500007", "$0.000007"]
        assert second[0] == "team-b"

    def test_groups_as_it_is_told(self, url: str) -> None:
        assert [(row["model"], row["day"], row["calls"]) for row in rows("--by", "model, day", url=url)] == [
            ("large", TODAY, 1),
            ("small", TODAY, 2),
        ]
        assert "tenant" not in rows("--by", "model", url=url)[0]

    def test_by_a_label(self, url: str) -> None:
        found = rows("--by", "label", "--label", "app", url=url)
        assert [(row["label_value"], row["cost_micro_usd"]) for row in found] == [("", 10), ("x", 1_500_000)]
        shown = run(usage, "--by", "label", "--label", "app", url=url).stdout.splitlines()
        assert shown[0].split()[0] == "app"
        assert shown[1].split()[0] == "-"

    def test_of_a_tenant_and_of_days(self, url: str) -> None:
        assert [row["tenant"] for row in rows("--tenant", "team-b", url=url)] == ["team-b"]
        assert rows("--since", "2099-01-01", url=url) == rows("--until", TODAY, url=url) == []
        assert len(rows("--since", TODAY, "--until", "2099-01-01", url=url)) == 2

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--by", "colour,day"], "colour: choose from tenant, model, day, label"),
            (["--by", "label"], "--label NAME and --by label go together"),
            (["--label", "app"], "--label NAME and --by label go together"),
            (["--since", "yesterday"], "does not match the format"),
        ],
    )
    def test_says_what_is_wrong(self, url: str, arguments: list[str], said: str) -> None:
        result = run(usage, *arguments, url=url)
        assert result.exit_code == 2
        assert said in result.stderr


class TestVerify:
    def test_right_books(self, url: str) -> None:
        result = run(ledger, "verify", url=url)
        assert result.exit_code == 0
        lines = result.stdout.splitlines()
        assert lines[0].split() == ["tenant", "budget", "period", "settled", "entries", "lost", "leased"]
        assert lines[1].split() == ["team-a", "all", TODAY, "$1.500007", "$1.500007", "$0.000000", "$0.000000"]
        assert lines[-1] == "3 attempts, 1 day, 1 budget: all sums are right"

    def test_right_books_as_json(self, url: str) -> None:
        found = json.loads(run(ledger, "verify", "--json", url=url).stdout)
        assert (found["entries"], found["days"], found["problems"]) == (3, 1, [])
        assert found["budgets"] == [
            {
                "tenant": "team-a",
                "budget": "all",
                "period": TODAY,
                "settled_micro_usd": 1_500_007,
                "booked_micro_usd": 1_500_007,
                "lost_micro_usd": 0,
                "leased_micro_usd": 0,
            }
        ]

    def test_empty_books(self, tmp_path: Path) -> None:
        result = run(ledger, "verify", url=f"sqlite:///{tmp_path}/new.db")
        assert (result.exit_code, result.stdout) == (0, "0 attempts, 0 days, 0 budgets: all sums are right\n")

    def test_wrong_books(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/wrong.db"
        asyncio.run(_write(url, lost=1))
        result = run(ledger, "verify", url=url)
        assert result.exit_code == WRONG_EXIT_CODE
        assert "wrong: tenant team-a, budget all" in result.stdout
        assert "1500007 micro-USD are settled, the entries have 1500007 and 1 were lost" in result.stdout
        assert result.stdout.endswith("1 problem\n")
        assert run(ledger, "verify", "--json", url=url).exit_code == WRONG_EXIT_CODE

    def test_months_of_which_entries_are_gone(self, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/old.db"

        async def write() -> None:
            database = Database(url)
            await database.open()
            store = SqlLedgerStore(database, FakeClock())
            change = LeaseChange("", BudgetKey("team-a", "month", "2025-01"), beyond_micro_usd=5)
            await store.book("w", [Booking(1, (change,))])
            await database.close()

        asyncio.run(write())
        result = run(ledger, "verify", url=url)
        assert result.exit_code == 0
        assert result.stdout.splitlines()[1].split() == [
            "team-a",
            "month",
            "2025-01",
            "$0.000005",
            "gone",
            "$0.000000",
            "$0.000000",
        ]


class TestDatabases:
    def test_one_that_is_none(self) -> None:
        result = run(usage, url="mysql://somewhere")
        assert result.exit_code == 2
        assert "POINTSMAN_DATABASE_URL" in result.stderr

    def test_one_in_memory(self) -> None:
        result = run(usage, url="sqlite:///:memory:")
        assert result.exit_code == 2
        assert "POINTSMAN_DATABASE_URL" in result.stderr

    def test_one_that_is_away(self) -> None:
        result = run(usage, url="postgresql://someone:canary@127.0.0.1:1/none")
        assert result.exit_code == 1
        assert "canary" not in result.output
