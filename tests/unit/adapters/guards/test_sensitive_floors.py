"""How well the scanner does on labelled rows: a sample in this repository, and larger sets where they are at hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from pointsman_server.adapters.guards.sensitive import PatternScanner
from pointsman_server.evaluation.sensitive import SensitiveReport, measure_findings, read_rows

ROOT = Path(__file__).parents[4]
SAMPLE = ROOT / "tests" / "fixtures" / "security"
LARGE = ROOT.parent / "shared" / "data" / "security"

EXACT = ("EMAIL", "CREDIT_CARD", "IBAN", "IP", "US_SSN")
NEARLY = (
    "PHONE", "MRN", "IL_ID", "UK_NINO", "UK_NHS", "DE_TAX_ID", "FR_NIR", "ES_NIF", "IT_CF", "IN_AADHAAR", "IN_PAN",
    "JP_MYNUMBER", "BR_CPF", "CA_SIN",
)  # fmt: skip


@cache
def _report(file: Path) -> SensitiveReport:
    if not file.exists():
        pytest.skip(
            f"the labelled set {file.name} is not at hand: it is expected beside this repository, in shared/data"
        )
    rows, scanner = read_rows(file), PatternScanner()
    report = measure_findings(rows, [scanner.scan(row.text) for row in rows])
    assert report is not None
    return report


@pytest.mark.parametrize("name", ["pii_synthetic.jsonl", "pii_presidio_research.jsonl"])
def test_types_reach_their_floors_where_nothing_is_obscured(name: str) -> None:
    figures = {line.type: line for line in _report(LARGE / name).plain if line.labels}
    assert {kind: line.f1 for kind, line in figures.items() if kind in EXACT and line.f1 < 0.98} == {}
    assert {kind: line.f1 for kind, line in figures.items() if kind in NEARLY and line.f1 < 0.9} == {}


@pytest.mark.parametrize(
    ("file", "recall"),
    [
        (SAMPLE / "pii.jsonl", 0.95),
        (LARGE / "pii_synthetic.jsonl", 0.95),
        (LARGE / "pii_hard.jsonl", 0.75),
        (LARGE / "pii_presidio_research.jsonl", 0.85),
    ],
)
def test_characters_are_found_and_clean_rows_left_alone(file: Path, recall: float) -> None:
    report = _report(file)
    assert report.character_recall >= recall
    assert report.character_precision >= 0.95
    assert report.clean_flagged <= 0.02


@pytest.mark.parametrize("file", [SAMPLE / "secrets.jsonl", LARGE / "secrets.jsonl"])
def test_credentials_are_found_and_look_alikes_left_alone(file: Path) -> None:
    report = _report(file)
    assert report.recall >= 0.98
    assert report.clean_flagged <= 0.05
