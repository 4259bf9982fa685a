"""`pointsman traces`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from kit.accounts import attempt, decision, failed
from kit.boards import Board
from kit.catalog import deployment, provider
from kit.command_line import Cli
from kit.control_desk import Desk, open_desk
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.trace_store import SqlTraces
from pointsman_server.domain.trace import Trace, TraceLine
from pointsman_server.rpc.admin_traces import account_of

Ask = Callable[..., Result]
A = deployment("one", provider=provider("up"))
AT = 1_763_749_800.0
"""2025-11-21T18:30:00 UTC."""


def trace(request_id: str, minutes: int = 0, **line: Any) -> Trace:
    fields = {"latency_seconds": 1.5, "tenant": "shop", "model": "m", "outcome": "OK", "cost_micro_usd": 1_234, **line}
    return Trace(TraceLine(request_id, AT + 60 * minutes, **fields), AT + 1e9)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_desk(tmp_path, Board(A)) as opened:
        yield opened


@pytest.fixture
def ask(cli: Cli, desk: Desk) -> Ask:
    return lambda *arguments: cli("traces", *arguments, "--server", desk.address)


@pytest.fixture
def write(tmp_path: Path, desk: Desk) -> Callable[..., None]:
    async def writing(*traces: Trace) -> None:
        database = Database(f"sqlite:///{tmp_path}/pointsman.db")
        await SqlTraces(database).write(traces)
        await database.close()

    return lambda *traces: asyncio.run(writing(*traces))


def done(result: Result) -> str:
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def ids(result: Result) -> list[str]:
    """Of the calls in a table."""
    return [line.split()[1] for line in done(result).splitlines()[1:]]


class TestList:
    def test_a_table_newest_first(self, ask: Ask, write: Callable[..., None]) -> None:
        write(trace("a"), trace("b", 1, model="", outcome="UNAVAILABLE"))
        head, first, second = done(ask("list")).splitlines()
        assert head.split() == ["time", "request", "tenant", "model", "outcome", "took", "cost"]
        assert first.split() == ["2025-11-21T18:31:00+00:00", "b", "shop", "-", "UNAVAILABLE", "1.5", "s", "$0.001234"]
        assert second.split()[1] == "a"

    def test_nothing(self, ask: Ask) -> None:
        assert done(ask("list")) == "no such call is recorded\n"
        assert done(ask("list", "--json")) == ""

    def test_json_lines(self, ask: Ask, write: Callable[..., None]) -> None:
        write(trace("a"), trace("b", 1))
        lines = [json.loads(line) for line in done(ask("list", "--json")).splitlines()]
        assert [(one["request_id"], one["cost_micro_usd"], one["latency"]) for one in lines] == [
            ("b", "1234", "1.500s"),
            ("a", "1234", "1.500s"),
        ]

    def test_filters(self, ask: Ask, write: Callable[..., None]) -> None:
        write(trace("a", tenant="t"), trace("b", 1, model="n"), trace("c", 2, outcome="ABORTED"))
        assert ids(ask("list", "--tenant", "t")) == ["a"]
        assert ids(ask("list", "--model", "n")) == ["b"]
        assert ids(ask("list", "--outcome", "ABORTED")) == ["c"]
        assert ids(ask("list", "--since", "2025-11-21T18:31")) == ["c", "b"]
        assert ids(ask("list", "--until", "2025-11-21T18:31:00")) == ["a"]
        assert ids(ask("list", "--since", "2025-11-21", "--until", "2025-11-22")) == ["c", "b", "a"]

    def test_as_many_as_wanted_over_all_pages(self, ask: Ask, write: Callable[..., None]) -> None:
        write(*(trace(f"{number}", number) for number in range(1_001)))
        assert len(ids(ask("list"))) == 50
        assert len(ids(ask("list", "--limit", "1001"))) == 1_001
        assert ids(ask("list", "--limit", "2")) == ["1000", "999"]

    def test_what_there_is_not_is_refused(self, ask: Ask) -> None:
        result = ask("list", "--outcome", "fine")
        assert result.exit_code == 1
        assert "outcome: must be the name of a gRPC code" in result.stderr


class TestShow:
    def test_all_that_is_known(self, ask: Ask, write: Callable[..., None]) -> None:
        line = trace("req-1").line
        account = account_of(decision(A), (failed(A), attempt(A)))
        write(Trace(line, AT + 1e9, account, {"b": "2", "a": "1\x1b"}, "user: I am [EMAIL_1]", "Hello [EMAIL_1]\n\x1b"))
        shown = done(ask("show", "req-1"))
        for words in (
            "time        2025-11-21T18:30:00+00:00",
            "took        1.5 s",
            "labels      a=1\\x1b, b=2",
            "Ranked, best first",
            "overloaded: the provider is busy",
            "succeeded",
            "Prompt, masked\nuser: I am [EMAIL_1]\n",
            "Answer, masked\nHello [EMAIL_1]\n\\x1b\n",
        ):
            assert words in shown

    def test_a_call_that_came_to_nothing(self, ask: Ask, write: Callable[..., None]) -> None:
        write(trace("r", model="", outcome="RESOURCE_EXHAUSTED"))
        shown = done(ask("show", "r"))
        assert "model       none" in shown
        assert "labels      none" in shown
        for words in ("Ranked", "Attempts", "masked"):
            assert words not in shown

    def test_json(self, ask: Ask, write: Callable[..., None]) -> None:
        write(trace("r"))
        shown = json.loads(done(ask("show", "r", "--json")))
        assert (shown["summary"]["request_id"], shown["masked_prompt"]) == ("r", "")

    def test_one_that_is_not_there(self, ask: Ask) -> None:
        result = ask("show", "nobody")
        assert result.exit_code == 1
        assert "REQUEST_NOT_FOUND" in result.stderr
