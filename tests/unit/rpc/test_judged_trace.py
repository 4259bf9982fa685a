"""What a recorded call teaches: as much as the process that answered it knows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kit.catalog import deployment, plan
from pointsman_server.decision.embedding_choice import NOT_JUDGED
from pointsman_server.domain.call import Decision
from pointsman_server.domain.experience import Lesson
from pointsman_server.domain.plan import Complexity, TaskType
from pointsman_server.domain.request import Tier
from pointsman_server.domain.trace import Trace, TraceLine
from pointsman_server.rpc.admin_traces import account_of
from pointsman_server.rpc.judged_trace import lesson_of

LINE = TraceLine("r", 0.0, 0.0, "shop", "m", "OK", 0)


def recorded(complexity: Complexity) -> Trace:
    made = replace(plan([deployment("one")]), complexity=complexity)
    return Trace(LINE, 0.0, account_of(Decision("dec_1", made, 0.0), ()))


@pytest.mark.parametrize("task", list(TaskType))
@pytest.mark.parametrize("tier", list(Tier))
def test_an_answer_teaches_about_its_model_task_and_band(task: TaskType, tier: Tier) -> None:
    complexity = Complexity(score=0.5, tier=tier, factors=(), task=task, tier_probabilities=(0.2, 0.3, 0.5))
    assert lesson_of(recorded(complexity)) == Lesson("m", task, tier)


def test_vectors_teach_nothing() -> None:
    assert lesson_of(recorded(NOT_JUDGED)) is None


def test_a_call_without_a_decision_teaches_nothing() -> None:
    assert lesson_of(Trace(LINE, 0.0, account_of(None, ()))) is None
