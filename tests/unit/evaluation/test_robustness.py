from __future__ import annotations

import pytest

from kit.judges import judge_by_length, judge_nothing
from pointsman_server.evaluation.edits import EDITS
from pointsman_server.evaluation.robustness import Prompt, measure_robustness

QUESTION = "Which of the following is a prime? Give one letter.\nA. four\nB. five\nC. six\nD. eight"


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_changes_something_and_keeps_what_is_asked(name: str) -> None:
    edited = EDITS[name](QUESTION)
    assert edited is not None
    assert edited != (QUESTION, "")
    kept = {"prime", "four", "five", "six", "eight"}
    assert kept <= set(edited.text.lower().replace(".", " ").replace("?", " ").split())


def test_options_are_turned_under_their_letters() -> None:
    edited = EDITS["options reordered"](QUESTION)
    assert edited is not None
    assert edited.text.endswith("A. five\nB. six\nC. eight\nD. four")


@pytest.mark.parametrize("name", ["options reordered", "other words"])
def test_an_edit_says_where_it_does_not_apply(name: str) -> None:
    assert EDITS[name]("Hello there!") is None


def test_a_judge_that_counts_characters_is_found_out() -> None:
    lines = {line.edit: line for line in measure_robustness(judge_by_length, [Prompt("x" * 10), Prompt("x " * 60)])}
    assert lines["lower case"].tiers_changed == 0.0
    assert lines["lower case"].rank_correlation == pytest.approx(1.0)
    assert lines["frame around it"].tiers_changed == 1.0
    assert "options reordered" not in lines
    assert lines["all edits"].prompts == sum(line.prompts for name, line in lines.items() if name != "all edits")


def test_a_judge_that_never_moves_is_robust_without_a_correlation() -> None:
    lines = measure_robustness(judge_nothing, [Prompt(QUESTION, "Be kind."), Prompt("Hello")])
    assert {line.tiers_changed for line in lines} == {0.0}
    assert {line.rank_correlation for line in lines} == {None}
    assert lines[-1].edit == "all edits"


def test_nothing_to_edit_is_no_line() -> None:
    assert measure_robustness(judge_nothing, []) == []
