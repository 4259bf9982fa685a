from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from kit.command_line import Cli
from kit.routing_folder import varied_prompts, write_folder
from pointsman_server.adapters.embedders.sentence_encoder import SentenceEncoder
from pointsman_server.cli.evaluate import evaluate
from pointsman_server.decision.encoder import ENCODER, Encoder

DOCS = Path(__file__).parents[3] / "docs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("folder"), varied_prompts(120))


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    rows = [
        {
            "id": "r1",
            "tier": "simple",
            "mark": "S1",
            "why": "",
            "lang": "en",
            "traits": ["plain"],
            "system": "",
            "text": "Hi!",
        },
        {"id": "r2", "tier": "complex", "lang": "de", "traits": [], "text": "a secret: hello"},
    ]
    file = tmp_path / "requests.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.fixture
def outcomes(tmp_path: Path) -> Path:
    file = tmp_path / "outcomes.csv"
    lines = ["request_id,score,task,tier,model,outcome,cost_micro_usd"]
    for number in range(240):
        tier, score = number % 2, (number % 40) / 40
        right = int(score < 0.4 or tier)
        lines.append(f"r{number},{score},code,{('light', 'advanced')[tier]},m{tier},{right},{(100, 2000)[tier]}")
    file.write_text("\n".join(lines))
    return file


def test_figures_go_to_standard_output(cli: Cli, folder: Path) -> None:
    result = cli("evaluate", "routing", str(folder))
    assert result.exit_code == 0, result.output
    assert "120 prompts, 360 outcomes of 3 models" in result.stdout
    assert re.search(r"^exam +120 +\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", result.stdout, re.MULTILINE)
    assert re.search(r"^all sources +0\.\d{3} +0\.\d{3} +0\.\d{3} +0\.\d{3}", result.stdout, re.MULTILINE)
    assert "all edits" in result.stdout


def test_json_holds_all_figures_and_no_prompt(cli: Cli, folder: Path) -> None:
    result = cli("evaluate", "routing", str(folder), "--json")
    found = json.loads(result.stdout)
    assert {"slices", "three_tiers", "calibration", "learning", "labels", "robustness", "digest"} <= set(found)
    exam = found["slices"][0]
    assert exam["kind"] == "source"
    assert exam["apgr_interval"]["low"] <= exam["apgr"] <= exam["apgr_interval"]["high"]
    assert len(exam["curve"]) > 20
    assert "capital of country" not in result.stdout


def test_a_report_is_written_with_its_plot(cli: Cli, folder: Path, tmp_path: Path) -> None:
    result = cli("evaluate", "routing", str(folder), "--report", str(tmp_path / "new" / "docs"))
    assert result.exit_code == 0
    text = (tmp_path / "new" / "docs" / "routing-evaluation.md").read_text()
    assert f"Written by `pointsman evaluate routing {folder.name} --report docs`" in text
    assert str(tmp_path) not in text
    assert "](routing-evaluation.svg)" in text
    assert (tmp_path / "new" / "docs" / "routing-evaluation.svg").read_text().startswith("<svg ")


def test_predictions_can_be_written_and_taken_again(cli: Cli, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "p.csv"
    first = json.loads(cli("evaluate", "routing", str(folder), "--json", "--predictions", str(file)).stdout)
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 120
    assert set(rows[0]) == {"item_id", "score", "tier", "task", "difficulty", "discrimination"}
    again = json.loads(cli("evaluate", "routing", str(folder), "--json", "--scores", str(file)).stdout)
    assert again["scores_from"] == "p.csv"
    assert (again["slices"], again["calibration"]) == (first["slices"], first["calibration"])


def test_a_folder_that_cannot_be_used_is_wrong_usage(cli: Cli, tmp_path: Path) -> None:
    result = cli("evaluate", "routing", str(tmp_path))
    assert result.exit_code == 2
    assert "items.parquet: cannot be read as Parquet" in result.stderr


@pytest.fixture(scope="module")
def large_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("large"), varied_prompts(520))


def test_confidence_is_replayed_under_policies_that_are_right_and_wrong(cli: Cli, large_folder: Path) -> None:
    result = cli("evaluate", "confidence", str(large_folder))
    assert result.exit_code == 0, result.output
    assert re.search(r"^nothing +3 +\d{3} +0\.\d{3} +0\.\d{3} +0\.\d{3}", result.stdout, re.MULTILINE)
    assert re.search(r"^\+1\.0 log-odds +3 ", result.stdout, re.MULTILINE)
    assert re.search(r"^-1\.0 log-odds +3 ", result.stdout, re.MULTILINE)


def test_confidence_as_json_and_with_given_scores(cli: Cli, large_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "scores.csv"
    assert cli("evaluate", "routing", str(large_folder), "--predictions", str(file)).exit_code == 0
    judged = cli("evaluate", "confidence", str(large_folder), "--json").stdout
    given = cli("evaluate", "confidence", str(large_folder), "--scores", str(file), "--json").stdout
    found = json.loads(given)
    assert [one["misjudged_log_odds"] for one in found] == [0.0, 1.0, -1.0]
    assert found == json.loads(judged)
    assert "capital of country" not in given


def test_confidence_needs_a_folder_of_outcomes(cli: Cli, tmp_path: Path) -> None:
    result = cli("evaluate", "confidence", str(tmp_path))
    assert result.exit_code == 2
    assert "items.parquet: cannot be read as Parquet" in result.stderr


def test_tiers_are_told_by_tier_language_and_miss(cli: Cli, labelled: Path) -> None:
    result = cli("evaluate", "tiers", str(labelled))
    assert result.exit_code == 0, result.output
    assert "2 requests, 50.0% right" in result.stdout
    assert re.search(r"^not English +1 +0 +0\.0%", result.stdout, re.MULTILINE)
    assert re.search(r"^r2 +complex +(simple|medium) ", result.stdout, re.MULTILINE)
    assert "secret" not in result.stdout


def test_tiers_as_json(cli: Cli, labelled: Path) -> None:
    found = json.loads(cli("evaluate", "tiers", str(labelled), "--json").stdout)
    assert found["confusion"]["simple"] == {"simple": 1, "medium": 0, "complex": 0}
    assert sum(found["confusion"]["complex"].values()) == 1
    assert [miss["id"] for miss in found["misses"]] == ["r2"]


@pytest.mark.skipif(find_spec(ENCODER.module) is None, reason=f"needs the optional package {ENCODER.package}")
def test_tiers_with_a_second_look(cli: Cli, labelled: Path) -> None:
    found = json.loads(cli("evaluate", "tiers", str(labelled), "--json", "--second-look").stdout)
    assert found["requests"] == 2


def test_a_second_look_without_its_package_is_wrong_usage(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = SentenceEncoder(Encoder("no-such-package-of-vectors", "1.0", "none"))
    monkeypatch.setattr("pointsman_server.cli.evaluate._encoder", lambda: missing)
    file = tmp_path / "requests.jsonl"
    asked = "Would you trust a date of shell in a lake that lies above older pottery?"
    file.write_text(json.dumps({"id": 1, "tier": "complex", "text": asked}))
    result = cli("evaluate", "tiers", str(file), "--second-look")
    assert result.exit_code == 2
    assert "no-such-package-of-vectors is not installed" in result.stderr
    assert "pip install" in result.stderr


def test_a_wrong_label_is_wrong_usage(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"id": 1, "tier": "hard", "text": "a secret"}')
    result = cli("evaluate", "tiers", str(file))
    assert result.exit_code == 2
    assert "line 1: the tier is to be one of simple, medium, complex" in result.stderr
    assert "secret" not in result.output


def test_a_recalibration_is_shown_and_written(cli: Cli, outcomes: Path, tmp_path: Path) -> None:
    result = cli("evaluate", "recalibrate", str(outcomes), "--out", str(tmp_path / "calibration.json"))
    assert result.exit_code == 0, result.output
    assert "240 outcomes of 240 requests" in result.stdout
    assert "route by the score" in result.stdout
    content = json.loads((tmp_path / "calibration.json").read_text())
    assert content["format"] == "pointsman-calibration/1"
    assert content == json.loads(cli("evaluate", "recalibrate", str(outcomes), "--json").stdout)


def test_few_outcomes_are_told_to_be_few(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "few.jsonl"
    file.write_text('{"score": 0.3, "tier": "light", "outcome": 1}\n')
    result = cli("evaluate", "recalibrate", str(file))
    assert result.exit_code == 0
    assert "Too few outcomes for any map" in result.stdout
    assert "Whether routing pays cannot be told" in result.stdout


def test_a_file_that_cannot_be_written_is_told(cli: Cli, outcomes: Path, tmp_path: Path) -> None:
    result = cli("evaluate", "recalibrate", str(outcomes), "--out", str(tmp_path / "absent" / "c.json"))
    assert result.exit_code == 1
    assert "cannot be written" in result.stderr


def run_without(packages: tuple[str, ...], *arguments: str) -> subprocess.CompletedProcess[str]:
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({packages!r})); sys.argv[0] = 'pointsman';"
        "from pointsman_server.cli.main import main; main()"
    )
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("package", ["numpy", "pyarrow"])
def test_a_missing_package_is_named_with_its_remedy(folder: Path, package: str) -> None:
    done = run_without((package,), "evaluate", "routing", str(folder))
    assert done.returncode == 1
    assert "pip install 'pointsman[evaluate]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_other_commands_need_no_more_packages(labelled: Path, outcomes: Path) -> None:
    for arguments in (("tiers", str(labelled)), ("recalibrate", str(outcomes)), ("--help",)):
        done = run_without(("numpy", "pyarrow"), "evaluate", *arguments)
        assert done.returncode == 0, done.stderr


def test_every_option_is_in_the_docs() -> None:
    section = (DOCS / "cli.md").read_text().split("\n## evaluate\n", 1)[1].split("\n## ", 1)[0]
    listed = set(re.findall(r"^\| `evaluate ([a-z]+) [A-Z]+` \| `(--[a-z-]+)", section, re.MULTILINE))
    taken = {
        (name, option.opts[0])
        for name, command in evaluate.commands.items()
        for option in command.params
        if isinstance(option, click.Option)
    }
    assert listed == taken
