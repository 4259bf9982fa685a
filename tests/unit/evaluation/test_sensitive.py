from __future__ import annotations

import json
from pathlib import Path

import pytest

from pointsman_server.domain.sensitive import Finding
from pointsman_server.evaluation.problems import DataError
from pointsman_server.evaluation.sensitive import (
    Row,
    SensitiveReport,
    measure_findings,
    read_rows,
    write_findings,
)


def _measured(*rows: tuple[Row, list[Finding]]) -> SensitiveReport:
    report = measure_findings([row for row, _ in rows], [found for _, found in rows])
    assert report is not None
    return report


def _row(text: str, *labels: Finding, obscured: bool = False) -> Row:
    return Row(text, labels=labels, obscured=obscured)


def test_a_finding_is_right_from_half_of_what_both_cover() -> None:
    report = _measured(
        (_row("0123456789", Finding(0, 4, "PHONE")), [Finding(0, 8, "PHONE")]),
        (_row("0123456789", Finding(0, 4, "PHONE")), [Finding(0, 9, "PHONE")]),
    )
    figures = report.figures_of("PHONE")
    assert (figures.labels, figures.findings, figures.right) == (2, 2, 1)
    assert figures.precision == figures.recall == figures.f1 == 0.5


def test_another_type_is_not_right_but_its_characters_count() -> None:
    report = _measured((_row("0123456789", Finding(2, 6, "PHONE")), [Finding(2, 6, "US_SSN")]))
    assert report.figures_of("PHONE").recall == 0
    assert report.character_recall == 1
    assert report.found == 1
    assert [line.type for line in report.types] == ["PHONE", "US_SSN"]


def test_one_finding_answers_for_one_label() -> None:
    labels = (Finding(0, 4, "IP"), Finding(4, 8, "IP"))
    report = _measured((_row("0123456789", *labels), [Finding(0, 8, "IP")]))
    assert report.figures_of("IP").right == 1


def test_only_structured_characters_count_for_recall_and_all_labels_for_precision() -> None:
    row = _row("Anna a@b.co", Finding(0, 4, "PERSON"), Finding(5, 11, "EMAIL"))
    report = _measured((row, [Finding(0, 4, "PERSON"), Finding(4, 8, "EMAIL")]))
    assert report.character_recall == 0.5
    assert report.character_precision == 7 / 8


def test_rows_without_labels_are_clean_and_may_be_flagged() -> None:
    report = _measured((_row("a"), []), (_row("b"), [Finding(0, 1, "IP")]), (_row("c", Finding(0, 1, "IP")), []))
    assert (report.clean_rows, report.clean_rows_flagged, report.clean_flagged) == (2, 1, 0.5)
    assert report.recall == 0


def test_rows_with_an_obscured_value_are_left_out_of_the_plain_figures() -> None:
    label = Finding(0, 1, "IP")
    report = _measured((_row("a", label), [label]), (_row("b", label, obscured=True), []))
    assert report.figures_of("IP").recall == 0.5
    assert [(line.type, line.recall) for line in report.plain] == [("IP", 1.0)]


def test_nothing_found_and_nothing_labelled_divides_nothing_by_nothing() -> None:
    report = _measured((_row("a"), []))
    assert report.character_recall == report.character_precision == report.recall == 0
    assert report.figures_of("EMAIL").f1 == 0


def test_without_labels_there_are_no_figures() -> None:
    assert measure_findings([Row("a"), _row("b")], [[], []]) is None


def test_rows_are_read_in_both_forms(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(
        json.dumps({"id": "r1", "text": "a\u2028b", "spans": [{"start": 0, "end": 1, "type": "IP"}], "hard": True})
        + "\n\n"
        + json.dumps({"text_parts": ["s", "k"]})
        + "\n",
        encoding="utf-8",
    )
    first, second = read_rows(file)
    assert first == Row("a\u2028b", "r1", (Finding(0, 1, "IP"),), obscured=True)
    assert second == Row("sk")


@pytest.mark.parametrize(
    "line",
    [
        "no json",
        "[]",
        '"text"',
        "{}",
        '{"text": 1}',
        '{"text_parts": [1]}',
        '{"text": "a", "spans": 3}',
        '{"text": "a", "spans": [{"start": 0, "end": 1}]}',
        '{"text": "a", "spans": [{"start": 0, "end": 1, "type": 5}]}',
    ],
)
def test_a_line_that_cannot_be_used_is_named_with_the_remedy(tmp_path: Path, line: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "fine"}\n' + line)
    with pytest.raises(DataError, match=r"rows\.jsonl, line 2: needs a JSON object with text or text_parts; spans"):
        read_rows(file)


@pytest.mark.parametrize("span", [(0, 2), (-1, 1), (1, 1), (1, 0)])
def test_a_span_outside_the_text_is_named(tmp_path: Path, span: tuple[int, int]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({"text": "a", "spans": [{"start": span[0], "end": span[1], "type": "IP"}]}))
    with pytest.raises(DataError, match="line 1: a span lies outside the text; start and end count code points"):
        read_rows(file)


def test_a_file_without_rows_or_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("\n")
    with pytest.raises(DataError, match="there are no rows in it"):
        read_rows(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read as UTF-8 text"):
        read_rows(file)


def test_findings_are_written_row_for_row_without_text(tmp_path: Path) -> None:
    file = tmp_path / "found.jsonl"
    write_findings(file, [Row("secret", id=7), Row("b")], [[Finding(0, 6, "PASSWORD")], []])
    assert [json.loads(line) for line in file.read_text().splitlines()] == [
        {"id": 7, "spans": [{"start": 0, "end": 6, "type": "PASSWORD"}]},
        {"spans": []},
    ]


def test_the_report_in_json_has_the_rates() -> None:
    label = Finding(0, 1, "IP")
    plain = _measured((_row("a", label), [label])).to_plain()
    assert plain["recall"] == 1.0
    assert plain["types"] == [
        {"type": "IP", "labels": 1, "findings": 1, "right": 1, "precision": 1.0, "recall": 1.0, "f1": 1.0}
    ]
