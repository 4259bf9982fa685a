"""What a recorded call teaches when it is judged."""

from __future__ import annotations

from pointsman.v1 import admin_service_pb2, decision_pb2
from pointsman_server.decision.embedding_choice import NOT_JUDGED
from pointsman_server.domain.experience import Lesson
from pointsman_server.domain.plan import TaskType
from pointsman_server.domain.request import Tier
from pointsman_server.domain.trace import Trace

_TASKS = {decision_pb2.TaskType.Value(f"TASK_TYPE_{task.name}"): task for task in TaskType}


def lesson_of(trace: Trace) -> Lesson | None:
    """The lesson of an answer; None of a call that answered nothing, because it asked for vectors."""
    complexity = admin_service_pb2.Trace.FromString(trace.account).decision.complexity
    probabilities = tuple(one.probability for one in complexity.tier_probabilities)
    task = _TASKS.get(complexity.task)
    if not probabilities or probabilities == NOT_JUDGED.tier_probabilities or task is None:
        return None
    return Lesson(trace.line.model, task, Tier(complexity.tier))
