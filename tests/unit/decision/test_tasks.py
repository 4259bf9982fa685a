from __future__ import annotations

import pytest

from pointsman_server.decision.tasks import Tasks, task_features
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
    assert TASKS.judge(words) is task


def test_judging_does_not_change_what_was_learned() -> None:
    TASKS.judge(("a", "function"))
    assert (list(TASKS.bias), TASKS.judge(())) == ([0.5, 0.0, 0.0], TaskType.CHAT)


def test_weights_are_multiples_of_the_unit() -> None:
    numbers, weights = zip(*TASKS.rows["transl"], strict=True)
    assert numbers == (2, 1)
    assert weights == pytest.approx((0.4, -0.2))


def test_features_are_stems_and_how_the_ask_begins() -> None:
    assert sorted(task_features(("translate", "it", "translated"))) == ["^it", "^transl", "it", "transl"]
    assert list(task_features(())) == []


def test_a_type_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="sorcery"):
        Tasks.load(DATA | {"types": ["sorcery"]})
