from __future__ import annotations

import json
from pathlib import Path

import pytest

from pointsman_server.domain.injection import Source
from pointsman_server.evaluation.injection import (
    Judgement,
    Labelled,
    judge_texts,
    measure_injection,
    read_texts,
    write_judgements,
)
from pointsman_server.evaluation.problems import DataError


def labelled(*attacks: bool | None) -> list[Labelled]:
    return [Labelled(number, "text", attack, "a kind", Source.USER) for number, attack in enumerate(attacks)]


def judged(*scores: float) -> list[Judgement]:
    return [Judgement(score, score >= 0.5) for score in scores]


def written(tmp_path: Path, *rows: object) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return file


def test_figures_of_a_detector_that_is_mostly_right() -> None:
    report = measure_injection(labelled(True, True, False, False), judged(0.9, 0.3, 0.4, 0.1), 0.5)
    assert report.auc == pytest.approx(0.75)
    assert (report.true_positive_rate, report.false_positive_rate) == (0.5, 0.0)
    assert report.true_positive_rate_at_1_percent == 0.5
    assert report.flagged == 1


def test_equal_scores_count_half_and_none_is_above() -> None:
    report = measure_injection(labelled(True, False), judged(0.7, 0.7), 0.5)
    assert report.auc == 0.5
    assert report.true_positive_rate_at_1_percent == 0.0
    assert report.false_positive_rate == 1.0


def test_one_in_a_hundred_benign_may_lie_above() -> None:
    report = measure_injection(labelled(True, *[False] * 100), judged(0.8, 0.9, *[0.1] * 99), 0.5)
    assert report.true_positive_rate_at_1_percent == 1.0


def test_what_needs_labels_is_left_out_without_them() -> None:
    report = measure_injection(labelled(None, None), judged(0.9, 0.1), 0.5)
    assert (report.rows, report.flagged, report.auc, report.kinds) == (2, 1, None, [])
    only_attacks = measure_injection(labelled(True, None), judged(0.9, 0.1), 0.5)
    assert (only_attacks.true_positive_rate, only_attacks.false_positive_rate, only_attacks.auc) == (1.0, None, None)


def test_kinds_are_told_apart() -> None:
    texts = [Labelled(1, "", True, "b", Source.USER), Labelled(2, "", False, "b", Source.USER)]
    report = measure_injection([*texts, *texts], judged(0.9, 0.1, 0.2, 0.1), 0.5)
    assert [(line.label, line.kind, line.rows, line.flagged) for line in report.kinds] == [
        ("benign", "b", 2, 0),
        ("injection", "b", 2, 1),
    ]


def test_rows_are_read_and_judged_by_where_they_came_from(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        {"text": "a", "label": "injection", "kind": "k", "source": "document", "lang": "en"},
        "",
        {"id": "x", "text": "b\u2028c", "label": "benign", "source": "a collection"},
        {"id": 3, "text": "", "label": 1},
    )
    texts = read_texts(file)
    assert [(one.id, one.attack, one.source) for one in texts] == [
        (None, True, Source.DOCUMENT),
        ("x", False, Source.USER),
        (3, True, Source.USER),
    ]
    assert judge_texts(lambda _, source: float(source is Source.DOCUMENT), 0.5, texts)[0] == Judgement(1.0, True)


def test_judgements_are_written_row_for_row(tmp_path: Path) -> None:
    texts = [Labelled(None, "secret", None, "", Source.USER), Labelled("x", "secret", True, "", Source.USER)]
    write_judgements(tmp_path / "out.jsonl", texts, judged(0.25, 0.75))
    assert [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [
        {"score": 0.25, "flagged": False},
        {"id": "x", "score": 0.75, "flagged": True},
    ]


@pytest.mark.parametrize(
    "row", ["no json", "[]", {"id": 1}, {"text": 7}, {"text": "a", "label": "maybe"}, {"text": "a", "id": [1]}]
)
def test_a_bad_row_is_named(tmp_path: Path, row: object) -> None:
    with pytest.raises(DataError, match="line 2: needs a JSON object with a text"):
        read_texts(written(tmp_path, {"text": "fine"}, row))


def test_a_file_without_texts_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no texts"):
        read_texts(written(tmp_path, ""))
    (tmp_path / "latin").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        read_texts(tmp_path / "latin")
