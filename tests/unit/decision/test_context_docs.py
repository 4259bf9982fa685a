"""docs/context.md shows what models are really sent, and names the true figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pointsman_server.decision.documents import LONGEST_NAME, Shown, render_all
from pointsman_server.decision.fitting import LEAST_CUT_TOKENS
from pointsman_server.decision.passages import LONGEST_CHARACTERS
from pointsman_server.decision.room import OUTPUT_SHARE, SAFETY
from pointsman_server.decision.tokens import FRAMING_TOKENS_PER_MESSAGE, TYPICAL_IMAGE_TOKENS
from pointsman_server.domain.context import ContextPolicy, Trim
from pointsman_server.execution.citing import LONGEST_QUOTE, MOST_CITATIONS
from pointsman_server.execution.warnings import MOST_NAMED_DOCUMENTS

DOCS = Path(__file__).parents[3] / "docs"
PAGE = (DOCS / "context.md").read_text()


def test_the_prompt_is_the_one_that_is_sent() -> None:
    shown = re.findall(r"```text\n(Material.*?)```", PAGE, re.DOTALL)[0]
    sent = render_all([Shown("fees-2026", "Fees & refunds", "A refund costs 5 EUR.")], cites=True)
    assert shown.split() == sent.split()


def test_the_figures_are_those_of_the_code() -> None:
    assert f"more than {LONGEST_NAME} characters" in PAGE
    assert f"Less than {LEAST_CUT_TOKENS} tokens" in PAGE
    assert f"for {LONGEST_CHARACTERS:,} characters" in PAGE
    assert f"up to {LONGEST_QUOTE:,} characters" in PAGE
    assert f"There are {MOST_CITATIONS} at most" in PAGE
    assert f"up to {MOST_NAMED_DOCUMENTS} documents" in PAGE
    assert f"({TYPICAL_IMAGE_TOKENS:,} tokens each)" in PAGE
    assert (OUTPUT_SHARE, SAFETY, FRAMING_TOKENS_PER_MESSAGE) == (4, 1.1, 4)


def test_the_words_of_the_policy_are_told() -> None:
    assert re.findall(r"^\| `(\w+)`(?: \(usual\))? \| (?:by|never)", PAGE, re.MULTILINE) == [one.value for one in Trim]
    assert f"| `{ContextPolicy().trim.value}` (usual)" in PAGE


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([\w.-]+\.md)(?:#[\w-]*)?\)", PAGE))))
def test_links_lead_somewhere(target: str) -> None:
    assert (DOCS / target).is_file()
