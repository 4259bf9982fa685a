from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from kit.catalog import circumstances
from kit.command_line import Cli, simulated_policy
from pointsman_server.adapters.stores.decision_file import DECISIONS, POLICIES, StateFolder
from pointsman_server.cli.replay import DIFFERS_EXIT_CODE
from pointsman_server.config import routing
from pointsman_server.config.policy_file import LoadedPolicy, compile_policy
from pointsman_server.decision.replay import decide_again
from pointsman_server.domain.record import DecisionRecord, PlanSummary
from pointsman_server.domain.request import RoutingConstraints


def compiled(*models: str) -> LoadedPolicy:
    return compile_policy(simulated_policy(*models).encode(), "policy.yaml", {}, date(2026, 11, 21))


BEFORE = compiled("fast", "good", "spare")


def decided(place: int, policy: LoadedPolicy = BEFORE, **asked: Any) -> DecisionRecord:
    """A decision under this policy, as it was."""
    version = policy.snapshot.version
    record = DecisionRecord(f"dec_{place}", f"req_{place}", 1e9, version, circumstances(**asked), PlanSummary())
    return replace(record, outcome=decide_again(record, policy.snapshot))


RECORDS = (
    decided(1),
    decided(2, quality_bias=1.0),
    decided(3, deployment="good"),
    decided(4, constraints=RoutingConstraints(max_cost_micro_usd=1)),
)


def keep(folder: Path, *records: DecisionRecord, policy: LoadedPolicy | None = BEFORE) -> str:
    """The folder with these decisions and the policy they were made under."""
    state = StateFolder(folder)
    state.open()
    if policy is not None:
        state.keep_policy(policy.record)
    for record in records:
        state.decisions.append(record)
    state.close()
    return str(folder)


@pytest.fixture
def var(tmp_path: Path) -> str:
    return keep(tmp_path / "var", *RECORDS)


def policy_file(folder: Path, *models: str) -> str:
    file = folder / "other.yaml"
    file.write_text(simulated_policy(*models))
    return str(file)


class TestUnderItsOwnPolicy:
    def test_everything_comes_out_the_same(self, cli: Cli, var: str) -> None:
        result = cli("replay", var)
        assert result.exit_code == 0
        lines = [line.split() for line in result.stdout.splitlines()]
        assert lines[:4] == [["decisions", "4"], ["same", "4"], ["newly", "refused", "0"], ["newly", "answered", "0"]]
        assert "differs" not in result.stdout
        assert "skipped" not in result.stdout

    def test_var_is_taken_unless_another_is_named(self, cli: Cli, var: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(Path(var).parent)
        assert cli("replay").exit_code == 0

    def test_a_file_of_the_folder_will_do(self, cli: Cli, var: str) -> None:
        assert cli("replay", f"{var}/{DECISIONS}").exit_code == 0

    def test_what_differs_is_named_and_sets_the_exit_code(self, cli: Cli, tmp_path: Path) -> None:
        wrong = replace(RECORDS[0], outcome=replace(RECORDS[0].outcome, ranked=(("good", 0.5, 10),)))
        var = keep(tmp_path, wrong, RECORDS[1])
        result = cli("replay", var)
        assert result.exit_code == DIFFERS_EXIT_CODE
        assert result.stdout.splitlines()[-1] == "differs: dec_1"
        told = json.loads(cli("replay", var, "--json").stdout)
        assert (told["same"], told["differing"]) == (1, ["dec_1"])

    def test_a_release_that_learned_something_else_changes_nothing(
        self, cli: Cli, var: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(routing, "solve_weights", lambda offers, judged: (0.9, 0.1))
        since = compiled("fast", "good", "spare").snapshot
        assert any(decide_again(one, since) != one.outcome for one in RECORDS)
        assert cli("replay", var).exit_code == 0

    def test_decisions_without_their_policy_are_skipped_and_counted(self, cli: Cli, tmp_path: Path) -> None:
        stranger = decided(9, compiled("other"))
        result = cli("replay", keep(tmp_path, *RECORDS, stranger))
        assert result.exit_code == 0
        assert "skipped        1: their policy was not kept" in result.stdout
        told = json.loads(cli("replay", str(tmp_path), "--json").stdout)
        assert (told["decisions"], told["skipped_without_policy"]) == (4, 1)


class TestUnderAnotherPolicy:
    def test_the_difference_is_shown(self, cli: Cli, var: str, tmp_path: Path) -> None:
        result = cli("replay", var, "--policy", policy_file(tmp_path, "good", "fast"))
        assert result.exit_code == 0
        told = json.loads(cli("replay", var, "--policy", policy_file(tmp_path, "good", "fast"), "--json").stdout)
        assert (told["decisions"], told["newly_refused"], told["newly_answered"]) == (4, 0, 0)
        assert told["moves"] == [{"from": "fast", "to": "good", "count": 2}]
        assert told["cost_after_micro_usd"] < told["cost_before_micro_usd"]
        assert "%)" in next(line for line in result.stdout.splitlines() if line.startswith("expected cost"))
        assert ["fast", "good", "2"] in [line.split() for line in result.stdout.splitlines()]

    def test_refusals_are_told(self, cli: Cli, var: str, tmp_path: Path) -> None:
        other = policy_file(tmp_path, "fast")
        told = json.loads(cli("replay", var, "--policy", other, "--json").stdout)
        assert told["newly_refused"] == 1
        assert {"from": "good", "to": "", "count": 1} in told["moves"]
        shown = cli("replay", var, "--policy", other)
        assert ["good", "(refused)", "1"] in [line.split() for line in shown.stdout.splitlines()]
        assert shown.exit_code == 0

    def test_the_policy_of_their_time_is_not_needed(self, cli: Cli, tmp_path: Path) -> None:
        var = keep(tmp_path / "var", *RECORDS, policy=None)
        told = json.loads(cli("replay", var, "--policy", policy_file(tmp_path, "fast", "good"), "--json").stdout)
        assert (told["decisions"], told["skipped_without_policy"]) == (4, 0)


class TestWrongUsage:
    def test_a_folder_that_is_not_there(self, cli: Cli, tmp_path: Path) -> None:
        result = cli("replay", str(tmp_path / "none"))
        assert result.exit_code == 2
        assert "does not exist" in result.stderr

    def test_a_folder_without_decisions(self, cli: Cli, tmp_path: Path) -> None:
        result = cli("replay", str(tmp_path))
        assert result.exit_code == 1
        assert DECISIONS in result.stderr

    def test_a_line_that_is_no_decision(self, cli: Cli, var: str) -> None:
        with (Path(var) / DECISIONS).open("a") as file:
            file.write("{}\n")
        result = cli("replay", var)
        assert result.exit_code == 1
        assert f"{DECISIONS}:5 is not a decision" in result.stderr

    def test_a_policy_that_cannot_be_used(self, cli: Cli, var: str, tmp_path: Path) -> None:
        result = cli("replay", var, "--policy", str(tmp_path / "none.yaml"))
        assert result.exit_code == 2
        assert "does not exist" in result.stderr

    @pytest.mark.parametrize("text", ["{", '{"version": 1}'])
    def test_a_kept_policy_that_was_damaged(self, cli: Cli, var: str, text: str) -> None:
        (Path(var) / POLICIES / f"{BEFORE.snapshot.version}.json").write_text(text)
        result = cli("replay", var)
        assert result.exit_code == 1
        assert f"{BEFORE.snapshot.version}.json is not a kept policy" in result.stderr

    def test_a_kept_policy_that_this_version_cannot_read(self, cli: Cli, var: str) -> None:
        file = Path(var) / POLICIES / f"{BEFORE.snapshot.version}.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "text": "version: 2\n"}))
        result = cli("replay", var)
        assert result.exit_code == 1
        assert "policy.yaml:1: version is not a known word" in result.stderr
