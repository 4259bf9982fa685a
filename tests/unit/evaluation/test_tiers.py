from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kit.judges import judge_by_length
from pointsman_server.domain.request import Tier
from pointsman_server.evaluation.problems import DataError
from pointsman_server.evaluation.tiers import confusion, measure_tiers, read_labelled

SHORT, MIDDLING, LONG = "x" * 20, "x" * 100, "x" * 200


def write(file: Path, *rows: Any) -> Path:
    file.write_text("\n".join(json.dumps(row) for row in rows) + "\n\n")
    return file


def row(name: str, tier: str, text: str, lang: str = "en", *traits: str) -> dict[str, Any]:
    return {"id": name, "tier": tier, "text": text, "lang": lang, "traits": list(traits), "system": "", "mark": "S1"}


def test_recalls_confusion_and_misses(tmp_path: Path) -> None:
    file = write(
        tmp_path / "requests.jsonl",
        row("r1", "simple", SHORT, "en", "plain"),
        row("r2", "simple", LONG, "de", "long"),
        row("r3", "medium", MIDDLING, "en", "plain", "noisy"),
        row("r4", "complex", LONG),
    )
    report = measure_tiers(judge_by_length, read_labelled(file))
    assert (report.requests, report.right) == (4, 0.75)
    assert [(line.group, line.right, line.requests) for line in report.tiers] == [
        ("simple", 1, 2),
        ("medium", 1, 1),
        ("complex", 1, 1),
    ]
    assert report.confusion["simple"] == {"simple": 1, "medium": 0, "complex": 1}
    assert [(line.group, line.share) for line in report.languages] == [
        ("English", 1.0),
        ("not English", 0.0),
        ("en", 1.0),
        ("de", 0.0),
    ]
    assert {line.group: line.requests for line in report.traits} == {"plain": 2, "long": 1, "noisy": 1}
    assert [(miss.id, miss.labelled, miss.judged, miss.score) for miss in report.misses] == [
        ("r2", "simple", "complex", 0.8)
    ]
    assert report.robustness


def test_other_names_and_absent_fields_are_fine(tmp_path: Path) -> None:
    found = read_labelled(write(tmp_path / "f", {"id": 7, "tier": "ADVANCED", "text": "Hi", "system": None}))
    assert (found[0].id, found[0].tier, found[0].system, found[0].traits) == ("7", Tier.ADVANCED, "", ())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2: needs a JSON object with id, tier and text"),
        ("[]", "line 2: needs a JSON object"),
        ('{"id": 1, "tier": "simple"}', "line 2: needs a JSON object"),
        ('{"id": 1, "tier": 3, "text": "x"}', "line 2: needs a JSON object"),
        ('{"id": 1, "tier": "simple", "text": "secret prompt", "traits": [1]}', "line 2: needs a JSON object"),
        (
            '{"id": 1, "tier": "hard", "text": "secret prompt"}',
            "line 2: the tier is to be one of simple, medium, complex",
        ),
    ],
)
def test_a_wrong_line_is_named_without_its_text(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "requests.jsonl"
    file.write_text('{"id": 1, "tier": "simple", "text": "x"}\n' + line + "\n")
    with pytest.raises(DataError, match=message) as caught:
        read_labelled(file)
    assert "secret" not in str(caught.value)


def test_an_empty_and_a_foreign_file_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "foreign").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="there are no requests"):
        read_labelled(tmp_path / "empty")
    with pytest.raises(DataError, match="cannot be read as UTF-8"):
        read_labelled(tmp_path / "foreign")


def test_labels_that_are_no_tier_stand_last() -> None:
    pairs = [("unsolved", Tier.LIGHT), ("complex", Tier.LIGHT), ("simple", Tier.LIGHT)]
    assert list(confusion(pairs)) == ["simple", "complex", "unsolved"]
