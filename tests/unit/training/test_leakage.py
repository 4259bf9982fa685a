"""What the judge is measured with was not there when it learned."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kit.leakage import leaked
from kit.programs import ROOT, load_program

EVALUATION = (ROOT / "tests" / "fixtures" / "rubric" / "requests.jsonl", ROOT / "training" / "rubric_dev.jsonl")
ROUTING = ROOT.parent / "shared" / "data" / "routing" / "items.parquet"

_WORD = re.compile(r"\w+")


@pytest.fixture(scope="module")
def taught() -> list[Any]:
    """Every labelled ask."""
    composing: Any = load_program("training/compose.py")
    return list(composing.read_labelled())


def whole(one: Any) -> str:
    return f"{one.before}{one.ask}{one.after}"


def normalised(text: str) -> str:
    return " ".join(_WORD.findall(text.casefold()))


@pytest.fixture(scope="module", params=EVALUATION, ids=lambda file: file.stem)
def evaluation(request: pytest.FixtureRequest) -> dict[str, str]:
    """Texts by id."""
    file: Path = request.param
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {row["id"]: row["text"] for row in rows}


def test_no_request_has_the_text_of_a_taught_ask(evaluation: dict[str, str], taught: list[Any]) -> None:
    known = {normalised(text) for one in taught for text in (one.ask, whole(one))}
    assert [name for name, text in evaluation.items() if normalised(text) in known] == []


def test_no_request_is_half_of_words_of_a_taught_ask(evaluation: dict[str, str], taught: list[Any]) -> None:
    names = list(evaluation)
    found = leaked(map(whole, taught), list(evaluation.values()))
    assert [names[place] for place in found] == []


def test_no_taught_ask_stands_by_half_in_a_request(evaluation: dict[str, str], taught: list[Any]) -> None:
    found = leaked(evaluation.values(), [one.ask for one in taught])
    assert [taught[place].ask for place in found] == []


@pytest.mark.slow
def test_no_taught_ask_is_a_prompt_of_the_recorded_outcomes(taught: list[Any]) -> None:
    if not ROUTING.exists():
        pytest.skip("the recorded outcomes (../shared/data/routing/items.parquet) are not here")
    parquet = pytest.importorskip("pyarrow.parquet")
    prompts = set(parquet.read_table(ROUTING, columns=["prompt"])["prompt"].to_pylist())
    known = {normalised(text) for text in prompts}
    assert [one.ask for one in taught if normalised(one.ask) in known] == []
    found = leaked(prompts, [one.ask for one in taught])
    assert [taught[place].ask for place in found] == []
