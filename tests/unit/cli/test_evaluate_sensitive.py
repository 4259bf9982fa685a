from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kit.command_line import Cli

SAMPLE = Path(__file__).parents[2] / "fixtures" / "security"


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    rows = [
        {"id": "r1", "text": "mail jane@example.com", "spans": [{"start": 5, "end": 21, "type": "EMAIL"}]},
        {"id": "r2", "text": "nothing here", "spans": []},
        {"text": "x jane＠example.com", "spans": [{"start": 2, "end": 18, "type": "EMAIL"}], "hard": True},  # noqa: RUF001
    ]
    file = tmp_path / "pii.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return file


def test_pii_is_told_by_type(cli: Cli, labelled: Path) -> None:
    result = cli("evaluate", "pii", str(labelled))
    assert result.exit_code == 0, result.output
    assert "3 rows, 2 labels" in result.stdout
    assert re.search(r"^EMAIL +2 +2 +1\.000 +1\.000 +1\.000", result.stdout, re.MULTILINE)
    assert "type, nothing obscured" in result.stdout
    assert "characters of structured types found   100.0%" in result.stdout
    assert re.search(r"^rows without labels flagged +0\.0% \(0 of 1\)", result.stdout, re.MULTILINE)
    assert "jane" not in result.stdout


def test_pii_as_json(cli: Cli, labelled: Path) -> None:
    found = json.loads(cli("evaluate", "pii", str(labelled), "--json").stdout)
    assert found["character_recall"] == 1.0
    assert found["types"][0]["f1"] == 1.0
    assert found["plain_rows"][0]["labels"] == 1


def test_predictions_stand_row_for_row(cli: Cli, labelled: Path, tmp_path: Path) -> None:
    file = tmp_path / "found.jsonl"
    assert cli("evaluate", "pii", str(labelled), "--predictions", str(file)).exit_code == 0
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert rows == [
        {"id": "r1", "spans": [{"start": 5, "end": 21, "type": "EMAIL"}]},
        {"id": "r2", "spans": []},
        {"spans": [{"start": 2, "end": 18, "type": "EMAIL"}]},
    ]


def test_without_labels_predictions_alone_are_written(cli: Cli, tmp_path: Path) -> None:
    rows, file = tmp_path / "rows.jsonl", tmp_path / "found.jsonl"
    rows.write_text('{"text": "host 10.0.0.5"}')
    result = cli("evaluate", "pii", str(rows), "--predictions", str(file))
    assert result.exit_code == 0
    assert result.stdout == ""
    assert "there are no figures" in result.stderr
    assert json.loads(file.read_text()) == {"spans": [{"start": 5, "end": 13, "type": "IP"}]}


def test_without_labels_and_without_predictions_there_is_nothing_to_do(cli: Cli, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "host 10.0.0.5"}')
    result = cli("evaluate", "secrets", str(rows))
    assert result.exit_code == 2
    assert "not every row has spans to compare with; add them or use --predictions" in result.stderr


def test_secrets_are_told_by_kind(cli: Cli) -> None:
    result = cli("evaluate", "secrets", str(SAMPLE / "secrets.jsonl"))
    assert result.exit_code == 0, result.output
    assert "100 rows, 60 credentials" in result.stdout
    assert re.search(r"^PRIVATE_KEY +5 +5 +1\.000", result.stdout, re.MULTILINE)
    assert re.search(r"^look-alikes flagged +0\.0% \(0 of 40\)", result.stdout, re.MULTILINE)


def test_a_bad_line_is_wrong_usage(cli: Cli, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"txt": 1}')
    result = cli("evaluate", "pii", str(rows))
    assert result.exit_code == 2
    assert "rows.jsonl, line 1: needs a JSON object with text or text_parts" in result.stderr


def test_predictions_that_cannot_be_written_are_a_failure(cli: Cli, labelled: Path, tmp_path: Path) -> None:
    result = cli("evaluate", "pii", str(labelled), "--predictions", str(tmp_path / "no" / "folder.jsonl"))
    assert result.exit_code == 1
    assert "a file cannot be written" in result.stderr


def test_neither_numpy_nor_pyarrow_is_needed(labelled: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules['numpy'] = sys.modules['pyarrow'] = None\n"
        "from pointsman_server.cli.main import commands\n"
        f"commands(['evaluate', 'pii', {str(labelled)!r}, '--json'])\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)["rows"] == 3
