"""docs/confidence.md: its constants are the true ones, and its example comes to what it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pointsman_server.decision import agreement, confidence
from pointsman_server.decision.confidence import FINISH_SHIFTS, Evidence, confidence_of
from pointsman_server.domain.experience import PRIOR_VERDICTS, Verdicts
from pointsman_server.domain.reply import FinishReason
from pointsman_server.execution.trust import UNRATED_RELEVANCE

DOCS = (Path(__file__).parents[3] / "docs" / "confidence.md").read_text()


def section(heading: str) -> str:
    return re.split(r"^## ", DOCS.split(f"\n## {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> dict[str, str]:
    """First cell to second, of all tables."""
    return dict(re.findall(r"^\| `?([^|`]+?)`? +?\| ([^|]*?) \|", text, re.MULTILINE))


def stated(cell: str) -> float:
    (number,) = re.findall(r"`([+-]?\d+\.\d+)`", cell)
    return float(number)


@pytest.mark.parametrize(
    ("row", "value"),
    [
        ("token probabilities, geometric mean", confidence.TYPICAL_CERTAINTY),
        ("the most they count", confidence.MOST_CERTAINTY_SHIFT),
        ("cut at its limit", FINISH_SHIFTS[FinishReason.LENGTH]),
        ("paused", FINISH_SHIFTS[FinishReason.PAUSE]),
        ("paused", FINISH_SHIFTS[FinishReason.UNKNOWN]),
        ("filtered", FINISH_SHIFTS[FinishReason.CONTENT_FILTER]),
        ("filtered", FINISH_SHIFTS[FinishReason.REFUSAL]),
        ("filtered", FINISH_SHIFTS[FinishReason.ERROR]),
        ("wording of a refusal", confidence.REFUSAL_SHIFT),
        ("wording of doubt", confidence.DOUBT_SHIFT),
        ("cites a source", confidence.CITED_SHIFT),
        ("and the sources are relevant", confidence.RELEVANT_SHIFT),
        ("had documents", confidence.UNCITED_SHIFT),
        ("another model agrees", confidence.AGREEMENT_SHIFT),
        ("had to be repaired", confidence.REPAIR_SHIFT),
    ],
)
def test_every_constant_is_the_true_one(row: str, value: float) -> None:
    (line,) = [line for line in section("The formula").splitlines() if line.startswith(f"| {row}")]
    assert stated(line.split(" | ")[1]) == value


def test_what_stands_in_the_text_is_true() -> None:
    flowing = " ".join(DOCS.split())
    assert f"worth {PRIOR_VERDICTS:g} verdicts" in flowing
    assert f"relevance, {UNRATED_RELEVANCE:g} where you gave none" in flowing
    assert f"{agreement.SHARED_BY_LIKE:.0%} is full agreement".replace("%", " %") in flowing
    assert f"count for {agreement.NUMBERS_WEIGHT:.0%}".replace("%", " %") in flowing
    assert f"{agreement.NEGATED:.0%} is left".replace("%", " %") in flowing


def test_the_example_comes_to_what_it_says() -> None:
    text = section("A worked example")
    (block,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    known = json.loads(block)
    known |= {"own": Verdicts(**known["own"]), "cited": tuple(known["cited"])}
    found = confidence_of(Evidence(finish_reason=FinishReason.STOP, text="", **known))
    told = {name: stated(cell) for name, cell in rows(text).items() if name not in ("factor", "---")}
    assert {factor.name: round(factor.value, 3) for factor in found.factors} == told
    (total, score) = map(float, re.findall(r"The sum is `([+\d.]+)`, the score `([\d.]+)`", text)[0])
    assert sum(factor.value for factor in found.factors) == pytest.approx(total, abs=0.0005)
    assert round(found.score, 3) == score


def test_every_factor_is_explained() -> None:
    known = Evidence(
        expected_quality=0.5,
        finish_reason=FinishReason.LENGTH,
        text="I don't know.",
        own=Verdicts(1.0, 5.0),
        certainty=0.2,
        documents=1,
        agreement=0.0,
        repaired=True,
    )
    named = {factor.name for factor in confidence_of(known).factors}
    explained = set(rows(section("The formula").split("\n| what is seen", 1)[0])) - {"factor", "---"}
    assert named == explained
