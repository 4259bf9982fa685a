"""docs/routing.md says what the code does, where that can be compared."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from pointsman_server.decision.scoring import EXPECTED_OUTPUT_TOKENS

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "routing.md").read_text(encoding="utf-8")
CONSTANTS = re.findall(r"^\| `(\w+)/(\w+)\.py` \| `(\w+)` \| (-?[\d.]+) \|$", PAGE, re.MULTILINE)
PARTS = ("quality", "cost", "first_token", "errors", "affinity", "tier_below", "chain_position", "fresh_facts")


def test_there_are_constants() -> None:
    assert len(CONSTANTS) == PAGE.partition("## Constants")[2].count(".py`") > 10


@pytest.mark.parametrize(("room", "module", "name", "value"), CONSTANTS)
def test_a_constant_is_as_it_says(room: str, module: str, name: str, value: str) -> None:
    assert getattr(import_module(f"pointsman_server.{room}.{module}"), name) == float(value)


def test_the_expected_lengths_of_answers_are_those_of_the_code() -> None:
    lengths = [str(tokens) for tokens in EXPECTED_OUTPUT_TOKENS.values()]
    assert f"{', '.join(lengths[:-1])} or {lengths[-1]} tokens of output" in PAGE


@pytest.mark.parametrize("name", [*PARTS, "rule_preference"])
def test_every_part_of_a_score_is_explained(name: str) -> None:
    assert f"| `{name}` |" in PAGE


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([\w.-]+\.md)(?:#[\w-]*)?\)", PAGE))))
def test_links_lead_somewhere(target: str) -> None:
    assert (DOCS / target).is_file()
