"""`pointsman flags` and `pointsman kill`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import Result

from kit.boards import Board
from kit.catalog import deployment, provider
from kit.command_line import Cli
from kit.control_desk import Desk, open_desk
from pointsman_server.domain.control import KillScope, KillSwitch
from pointsman_server.execution.flags import FLAGS

Ask = Callable[..., Result]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    # Its log would otherwise come between what the command says.
    with (
        structlog.testing.capture_logs(),
        open_desk(tmp_path, Board(deployment("one", provider=provider("up")))) as opened,
    ):
        yield opened


@pytest.fixture
def ask(cli: Cli, desk: Desk) -> Ask:
    def run(*arguments: str) -> Result:
        return cli(*arguments, "--server", desk.address)

    return run


def done(result: Result) -> str:
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


class TestFlags:
    def test_the_list(self, ask: Ask) -> None:
        done(ask("flags", "set", "max_output_tokens_cap", "100", "--tenant", "acme"))
        lines = done(ask("flags", "list")).splitlines()
        assert len(lines) == 1 + len(FLAGS) + 1
        assert lines[0].split()[:4] == ["flag", "tenant", "value", "usually"]
        assert [line.split()[:3] for line in lines if line.startswith("max_output")] == [
            ["max_output_tokens_cap", "(all)", "null"],
            ["max_output_tokens_cap", "acme", "100"],
        ]

    def test_the_list_for_programs(self, ask: Ask) -> None:
        listed = json.loads(done(ask("flags", "list", "--json")))
        assert {one["name"]: one["value"] for one in listed} == {
            name: flag.to_json(flag.usual) for name, flag in FLAGS.items()
        }

    def test_more_than_a_page(self, ask: Ask, desk: Desk) -> None:
        for place in range(100):
            done(ask("flags", "set", "hedging", "false", "--tenant", f"tenant-{place}"))
        listed = json.loads(done(ask("flags", "list", "--json")))
        assert len({(one["name"], one["tenant"]) for one in listed}) == len(listed) == len(FLAGS) + 100

    @pytest.mark.parametrize(
        ("name", "value", "kept"),
        [
            ("hedging", "false", False),
            ("quality_bias_override", "0.5", 0.5),
            ("stream_failover_default", "restart", "restart"),
            ("stream_failover_default", '"restart"', "restart"),
        ],
    )
    def test_one_is_set_and_cleared(self, ask: Ask, desk: Desk, name: str, value: str, kept: Any) -> None:
        assert done(ask("flags", "set", name, value)) == f"{name} is {json.dumps(kept)} for all tenants\n"
        assert desk.book.current.flags == {(name, ""): kept}
        usual = json.dumps(FLAGS[name].to_json(FLAGS[name].usual))
        assert done(ask("flags", "clear", name)) == f"{name} is {usual} for all tenants\n"
        assert desk.book.current.flags == {}

    def test_for_a_tenant(self, ask: Ask, desk: Desk) -> None:
        assert (
            done(ask("flags", "set", "route_only", "true", "--tenant", "acme"))
            == "route_only is true for tenant acme\n"
        )
        assert desk.book.current.flags == {("route_only", "acme"): True}
        done(ask("flags", "clear", "route_only", "--tenant", "acme"))
        assert desk.book.current.flags == {}

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [(("hegding", "true"), "name: there is no such flag"), (("hedging", "0.5"), "value_json: hedging takes true")],
    )
    def test_what_is_refused(self, ask: Ask, arguments: tuple[str, ...], words: str) -> None:
        result = ask("flags", "set", *arguments)
        assert (result.exit_code, result.stdout) == (1, "")
        assert words in result.stderr
        assert "INVALID_FIELD" in result.stderr

    def test_nobody_answers(self, cli: Cli) -> None:
        result = cli("flags", "list", "--server", "127.0.0.1:1")
        assert result.exit_code == 1
        assert "no pointsman server answers" in result.stderr


class TestKill:
    @pytest.mark.parametrize(
        ("whom", "words", "switch"),
        [
            (("--all",), "all calls", KillSwitch(KillScope.GLOBAL, "", "leak")),
            (("--tenant", "acme"), "tenant acme", KillSwitch(KillScope.TENANT, "acme", "leak")),
            (("--provider", "up"), "provider up", KillSwitch(KillScope.PROVIDER, "up", "leak")),
        ],
    )
    def test_on_and_off(self, ask: Ask, desk: Desk, whom: tuple[str, ...], words: str, switch: KillSwitch) -> None:
        assert done(ask("kill", "on", *whom, "--comment", "leak")) == f"{words}: stopped\n"
        assert desk.book.current.kill_switches == {switch}
        heading, line = done(ask("kill", "list")).splitlines()
        assert heading.split() == ["stops", "target", "comment"]
        assert line.split() == [*words.split(), "leak"]
        (listed,) = json.loads(done(ask("kill", "list", "--json")))
        assert (listed["target"], listed["comment"]) == (switch.target, "leak")
        assert done(ask("kill", "off", *whom)) == f"{words}: no longer stopped\n"
        assert done(ask("kill", "list")) == "no kill switch is on\n"
        assert done(ask("kill", "list", "--json")) == "[]\n"

    @pytest.mark.parametrize("whom", [(), ("--all", "--tenant", "acme"), ("--tenant", "a", "--provider", "up")])
    @pytest.mark.parametrize("way", ["on", "off"])
    def test_whom_must_be_said_once(self, ask: Ask, desk: Desk, whom: tuple[str, ...], way: str) -> None:
        result = ask("kill", way, *whom)
        assert result.exit_code == 2
        assert "name exactly one: --all, --tenant ID or --provider ID" in result.stderr
        assert not desk.book.current.kill_switches

    def test_a_provider_that_there_is_not(self, ask: Ask, desk: Desk) -> None:
        result = ask("kill", "on", "--provider", "upp")
        assert result.exit_code == 1
        assert "target: is no provider of the policy; there are up" in result.stderr
