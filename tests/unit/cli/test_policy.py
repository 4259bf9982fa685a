"""`pointsman policy`, against a running server and its database."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import structlog
from click.testing import Result

from kit.command_line import Cli
from kit.policy_house import House, name_in, serving_in_thread, text
from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.bootstrap.identity import SystemClock

Ask = Callable[..., Result]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/pointsman.db"


@pytest.fixture
def running(tmp_path: Path, url: str) -> Iterator[tuple[str, House]]:
    file = tmp_path / "policy.yaml"
    file.write_text(text("first"))
    # Its log would otherwise come between what the command says.
    with structlog.testing.capture_logs(), serving_in_thread(file, url) as found:
        yield found


@pytest.fixture
def house(running: tuple[str, House]) -> House:
    return running[1]


@pytest.fixture
def ask(cli: Cli, running: tuple[str, House]) -> Ask:
    return lambda *arguments: cli("policy", *arguments, "--server", running[0])


@pytest.fixture
def try_(cli: Cli, url: str, running: tuple[str, House]) -> Ask:
    return lambda *arguments: cli("policy", *arguments, POINTSMAN_DATABASE_URL=url)


@pytest.fixture
def second(tmp_path: Path) -> str:
    file = tmp_path / "second.yaml"
    file.write_text(text("second"))
    return str(file)


async def recorded(url: str) -> list[tuple[str, str]]:
    """What was done, with its comment, newest first."""
    database = Database(url)
    done = [(one.action, one.comment) for one in await ControlStore(database, SystemClock()).audit()]
    await database.close()
    return done


def test_apply_shows_what_it_changed(ask: Ask, house: House, second: str) -> None:
    result = ask("apply", second, "--comment", "larger")
    assert result.exit_code == 0
    assert name_in(house.keeper.current) == "second"
    assert result.stderr == f"in force: {house.keeper.current.version}\n"
    assert result.stdout.startswith("--- policy ")
    assert "model_name: second}}\n" in result.stdout


def test_check_changes_nothing(ask: Ask, house: House, second: str, tmp_path: Path) -> None:
    version = house.keeper.current.version
    result = ask("apply", second, "--check")
    assert result.exit_code == 0
    assert result.stderr == f"it can be used and would change the policy as shown; still in force: {version}\n"
    assert name_in(house.keeper.current) == "first"
    same = ask("apply", str(tmp_path / "policy.yaml"), "--check")
    assert same.stdout == ""
    assert "means what is in force already" in same.stderr


def test_everything_that_is_wrong_is_told(ask: Ask, house: House, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(text("second").replace("quality: 0.5", "quality: 5").replace("provider: local", "provider: locl"))
    result = ask("apply", str(wrong))
    assert result.exit_code == 1
    assert "yaml: line 4: models.small.quality is 5" in result.stderr
    assert "yaml: line 5: deployments.one.provider refers to 'locl'" in result.stderr
    assert name_in(house.keeper.current) == "first"


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_file_that_cannot_be_read(ask: Ask, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "odd.yaml"
    if content is not None:
        file.write_bytes(content)
    result = ask("apply", str(file))
    assert result.exit_code == 2
    assert str(file) in result.stderr


def test_diff(ask: Ask, house: House, second: str) -> None:
    first = house.keeper.current.version
    differs = ask("diff", second)
    assert differs.exit_code == 1
    assert differs.stdout.startswith(f"--- policy {first}\n+++ policy {second}\n")
    assert ask("diff", first).exit_code == 0
    assert ask("diff", first).stdout == ""
    ask("apply", second)
    later = house.keeper.current.version
    between = ask("diff", first, later)
    assert between.exit_code == 1
    assert f"--- policy {first}\n+++ policy {later}\n" in between.stdout
    assert ask("diff", second, later).exit_code == 0
    assert ask("diff", "nowhere").exit_code == 1
    assert "names no policy" in ask("diff", "nowhere").stderr


def test_history_show_and_rollback(ask: Ask, house: House, second: str) -> None:
    first = house.keeper.current.version
    ask("apply", second, "--comment", "larger")
    later = house.keeper.current.version
    table = ask("history").stdout.splitlines()
    assert table[0].split() == ["version", "applied", "by", "comment"]
    assert [line.split()[0] for line in table[1:]] == [later, first]
    assert "larger" in table[1]
    listed = json.loads(ask("history", "--json").stdout)
    assert [one["author"] for one in listed] == ["local", "policy file"]
    assert ask("show").stdout == text("second")
    assert ask("show", first).stdout == text("first")
    result = ask("rollback", first, "--comment", "slow")
    assert (result.exit_code, result.stderr) == (0, f"in force: {first}\n")
    assert name_in(house.keeper.current) == "first"
    assert ask("rollback", "nowhere").exit_code == 1


def test_a_long_history_is_listed_whole(ask: Ask, house: House, tmp_path: Path) -> None:
    for number in range(3):
        file = tmp_path / f"n{number}.yaml"
        file.write_text(text(f"n{number}"))
        assert ask("apply", str(file)).exit_code == 0
    assert len(json.loads(ask("history", "--json").stdout)) == 4


def test_no_server(cli: Cli, second: str) -> None:
    result = cli("policy", "apply", second, "--server", "127.0.0.1:1")
    assert result.exit_code == 1
    assert "no pointsman server answers" in result.stderr


class TestTrials:
    def test_a_canary_of_a_file_from_start_to_promotion(self, try_: Ask, house: House, second: str) -> None:
        assert try_("trial").stdout == "no policy is being tried\n"
        begun = try_("canary", second, "--percent", "10", "--comment", "careful")
        assert begun.exit_code == 0
        version = begun.stderr.split()[1]
        assert begun.stderr == f"canary: {version} for 10 % of the calls\n"
        assert try_("trial").stdout == f"canary: {version} for 10 % of the calls\n"
        assert json.loads(try_("trial", "--json").stdout) == {"version": version, "kind": "canary", "percent": 10}
        assert try_("canary", version, "--percent", "50").exit_code == 0
        promoted = try_("promote", "--comment", "fine")
        assert (promoted.exit_code, promoted.stderr) == (0, f"in force: {version}\n")
        assert json.loads(try_("trial", "--json").stdout) is None

    def test_every_step_is_recorded_with_its_reason(self, try_: Ask, url: str, second: str) -> None:
        assert try_("canary", second, "--percent", "10", "--comment", "careful").exit_code == 0
        assert try_("promote", "--comment", "it is better").exit_code == 0
        done = asyncio.run(recorded(url))[:3]
        assert [action for action, _ in done] == ["rollout_ended", "policy_applied", "rollout_set"]
        assert [comment for _, comment in done] == ["it is better", "it is better", "careful"]

    def test_the_server_follows(self, try_: Ask, house: House, second: str) -> None:
        assert try_("canary", second, "--percent", "100").exit_code == 0
        assert try_("promote").exit_code == 0
        deadline = time.monotonic() + 5
        while name_in(house.keeper.current) != "second" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert name_in(house.keeper.current) == "second"

    def test_a_shadow_is_stopped(self, try_: Ask, house: House, second: str) -> None:
        assert try_("shadow", second).exit_code == 0
        assert try_("trial").stdout.startswith("shadow: ")
        stopped = try_("stop", "--comment", "seen enough")
        assert stopped.exit_code == 0
        assert stopped.stderr.startswith("no longer tried: ")

    def test_an_earlier_version(self, try_: Ask, house: House) -> None:
        assert try_("canary", house.keeper.current.version, "--percent", "0").exit_code == 0

    @pytest.mark.parametrize("percent", ["-1", "101", "120", "half"])
    def test_shares_are_0_to_100(self, try_: Ask, second: str, percent: str) -> None:
        assert try_("canary", second, "--percent", percent).exit_code == 2

    def test_what_cannot_be(self, try_: Ask, tmp_path: Path) -> None:
        for arguments in (["promote"], ["stop"], ["canary", "nowhere", "--percent", "5"], ["shadow", "nowhere"]):
            result = try_(*arguments)
            assert result.exit_code == 2
            assert "pointsman policy" in result.stderr
        wrong = tmp_path / "wrong.yaml"
        wrong.write_text("version: 2\n")
        assert try_("shadow", str(wrong)).exit_code == 2
