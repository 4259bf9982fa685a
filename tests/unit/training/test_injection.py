"""What the injection detector is measured with was not there when it learned, and it does what is promised."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest

from kit.programs import ROOT, load_program
from pointsman_server.adapters.guards.injection import learned, shipped_detector
from pointsman_server.domain.injection import Source
from pointsman_server.evaluation.injection import InjectionReport, Judgement, Labelled, measure_injection

DATA = ROOT.parent / "shared" / "data" / "security" / "injection.jsonl"

_WORD = re.compile(r"\w+")

pytestmark = pytest.mark.skipif(not DATA.exists(), reason="the labelled texts (../shared/data/security) are not here")


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rows", "augment", "documents", "everyday"):
        program = load_program(f"training/injection_{name}.py")
        monkeypatch.setitem(sys.modules, f"training.injection_{name}", program)


@cache
def rows() -> tuple[Sequence[Any], Sequence[Any]]:
    """Development and held-out."""
    program: Any = load_program("training/injection_rows.py")
    development, held_out = program.parts(program.read_rows(DATA))
    return development, held_out


@cache
def held_out_report() -> InjectionReport:
    detector = shipped_detector()
    held_out = rows()[1]
    scores = [detector.score(row.text, Source.USER) for row in held_out]
    texts = [Labelled(row.id, "", row.attack, row.kind, Source.USER) for row in held_out]
    judged = [Judgement(score, score >= detector.threshold) for score in scores]
    return measure_injection(texts, judged, detector.threshold)


def own_texts() -> Sequence[Any]:
    """What was written or made for the training, and the questions of tests, where those are here."""
    augment: Any = load_program("training/injection_augment.py")
    documents: Any = load_program("training/injection_documents.py")
    everyday: Any = load_program("training/injection_everyday.py")
    exam = ROOT.parent / "shared" / "data" / "routing" / "items.parquet"
    own = [*augment.own_rows(), *documents.documents(), *everyday.everyday(), *everyday.planted(), *everyday.buried()]
    return [*own, *(everyday.exam_prompts(exam) if exam.exists() else ())]


def normalised(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))


def shingles(text: str) -> frozenset[str]:
    words = normalised(text).split()
    return frozenset(" ".join(words[start : start + 8]) for start in range(max(len(words) - 7, 1)))


@pytest.mark.slow
def test_the_record_is_of_this_split() -> None:
    training: Any = load_program("training/injection_rows.py")
    assert learned()["record"]["rows"]["held_out"] == len(rows()[1])
    assert learned()["record"]["held_out_ids_sha256"] == training.digest_of(rows()[1])


@pytest.mark.slow
def test_no_held_out_row_is_nearly_a_development_row() -> None:
    seen: dict[str, set[int]] = {}
    development, held_out = rows()
    of_rows = [shingles(row.text) for row in development]
    for place, runs in enumerate(of_rows):
        for run in runs:
            seen.setdefault(run, set()).add(place)
    for row in held_out:
        runs = shingles(row.text)
        shared: dict[int, int] = {}
        for run in runs:
            for place in seen.get(run, ()):
                shared[place] = shared.get(place, 0) + 1
        nearest = max(shared.values(), default=0)
        assert nearest < 0.5 * len(runs), row.id


@pytest.mark.slow
def test_no_held_out_row_is_nearly_an_own_text() -> None:
    own = set().union(*(shingles(row.text) for row in own_texts() if len(row.text.split()) >= 8))
    whole = {normalised(row.text) for row in own_texts()}
    assert [row.id for row in rows()[1] if normalised(row.text) in whole] == []
    near = [row.id for row in rows()[1] if len(own & (runs := shingles(row.text))) >= 0.5 * len(runs)]
    assert near == []


@pytest.mark.slow
def test_no_text_of_the_fixture_was_learned() -> None:
    file = ROOT / "tests" / "fixtures" / "security" / "injection.jsonl"
    texts = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").split("\n") if line]
    learned_from = {normalised(row.text) for row in [*own_texts(), *rows()[0]]}
    assert [text for text in texts if normalised(text) in learned_from] == []


def test_own_texts_are_the_same_every_time() -> None:
    assert own_texts() == own_texts()
    assert len({row.id for row in own_texts()}) == len(own_texts())


def test_the_record_is_of_these_own_texts() -> None:
    trained_on = learned()["record"]["trained_on"]
    for file in (ROOT / "training" / "injection").iterdir():
        assert trained_on[file.name] == hashlib.sha256(file.read_bytes()).hexdigest(), f"{file.name}: run `make train`"


@pytest.mark.slow
def test_the_held_out_floors_are_met() -> None:
    report = held_out_report()
    assert report.auc is not None
    assert report.true_positive_rate is not None
    assert report.auc >= 0.95
    assert report.true_positive_rate >= 0.55


@pytest.mark.slow
def test_few_harmless_texts_are_flagged() -> None:
    report, record = held_out_report(), learned()["record"]
    assert report.false_positive_rate is not None
    assert report.false_positive_rate <= 0.01
    assert record["development"]["false_positive_rate"] <= 0.005
    assert record["left_out_sources"]["together"]["false_positive_rate"] <= 0.02


@pytest.mark.slow
def test_the_record_tells_what_is_measured() -> None:
    report, told = held_out_report(), learned()["record"]["held_out"]
    measured = (report.auc, report.true_positive_rate, report.false_positive_rate)
    assert measured == pytest.approx(
        tuple(told[name] for name in ("auc", "true_positive_rate", "false_positive_rate")), abs=1e-4
    )


@pytest.mark.slow
def test_trigger_words_alone_are_not_flagged() -> None:
    lines = [line for line in held_out_report().kinds if line.kind == "benign_trigger_words"]
    assert sum(line.flagged for line in lines) <= 0.02 * sum(line.rows for line in lines)
