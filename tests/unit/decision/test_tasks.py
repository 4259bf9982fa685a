from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.decision.tasks import Tasks, task_features
from pointsman_server.decision.vocabulary import STEM_CHARS
from pointsman_server.domain.plan import TaskType

DATA = {
    "types": ["chat", "code", "translation"],
    "bias": [0.5, 0.0, 0.0],
    "unit": 0.1,
    "rows": {"functi": [1, 9], "transl": [2, 4, 1, -2], "^transl": [2, 3]},
}
TASKS = Tasks.load(DATA)


@pytest.mark.parametrize(
    ("words", "task"),
    [
        ((), TaskType.CHAT),
        (("hello", "there"), TaskType.CHAT),
        (("a", "function"), TaskType.CODE),  # 0.9 against 0.5
        (("please", "do", "translate"), TaskType.CHAT),  # 0.4 against 0.5
        (("translate", "this"), TaskType.TRANSLATION),  # 0.4 + 0.3, it begins with it
        (("the", "functions", "that", "translate"), TaskType.CODE),  # 0.9 - 0.2 against 0.5 and 0.4
        (("function", "function", "function"), TaskType.CODE),
    ],
)
def test_the_heaviest_type_wins(words: tuple[str, ...], task: TaskType) -> None:
    assert TASKS.judge([word[:STEM_CHARS] for word in words]) is task


def test_judging_does_not_change_what_was_learned() -> None:
    TASKS.judge(("a", "functi"))
    assert TASKS.judge(()) is TaskType.CHAT


@examples(200)
@given(st.lists(st.sampled_from(("functi", "transl", "sums", "sort", "a")), max_size=80))
def test_the_sum_of_all_weights_tells_the_type(stems: list[str]) -> None:
    """With the features by name and a table of weights, as training has them."""
    rows = {"functi": (7, -49, 3), "transl": (-49, 2, 49), "sums": (0, 30, -30), "^sort": (-20, 20, 0), "^a": (9, 0, 9)}
    flat = {name: [one for number, weight in enumerate(row) for one in (number, weight)] for name, row in rows.items()}
    tasks = Tasks.load({**DATA, "bias": [0.01, 0.02, 0.03], "rows": flat})
    weights = [rows[name] for name in task_features(stems) if name in rows]
    totals = [bias + 0.1 * sum(row[place] for row in weights) for place, bias in enumerate((0.01, 0.02, 0.03))]
    assert tasks.judge(stems) is tasks.types[totals.index(max(totals))]


def test_features_are_stems_and_how_the_ask_begins() -> None:
    assert sorted(task_features(("translate", "it", "translated"))) == ["^it", "^transl", "it", "transl"]
    assert list(task_features(())) == []


def test_a_type_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="sorcery"):
        Tasks.load(DATA | {"types": ["sorcery"]})
