from __future__ import annotations

from typing import Any

import grpc
import pytest

from kit.clock import FakeClock
from kit.house import open_door
from kit.remembering import Remembered
from kit.running import RichError
from pointsman.v1 import feedback_service_pb2_grpc, router_service_pb2_grpc
from pointsman.v1.feedback_service_pb2 import RecordFeedbackRequest
from pointsman_server.domain.caller import LOCAL_TENANT
from pointsman_server.domain.experience import Lesson, Verdicts
from pointsman_server.domain.plan import TaskType
from pointsman_server.domain.request import Tier
from pointsman_server.rpc.feedback import FeedbackServicer

_NOTHING: Any = router_service_pb2_grpc.RouterServiceServicer
NOBODY = _NOTHING()

ANSWERED = "asked-1"
LESSON = Lesson("m", TaskType.CODE, Tier.LIGHT)


class House:
    """A FeedbackService whose caller was given one answer."""

    def __init__(self) -> None:
        self.remembered = Remembered(FakeClock())
        self.remembered.feedback.answered(ANSWERED, LOCAL_TENANT, LESSON)

    async def judge(self, **fields: Any) -> Any:
        async with open_door(NOBODY, FeedbackServicer(self.remembered.feedback)) as door:
            stub: Any = feedback_service_pb2_grpc.FeedbackServiceStub(door.channel)
            return await stub.RecordFeedback(RecordFeedbackRequest(**fields))

    async def trailing_id(self, metadata: Any = (), **fields: Any) -> str:
        """The id that the server gave the call itself."""
        async with open_door(NOBODY, FeedbackServicer(self.remembered.feedback)) as door:
            stub: Any = feedback_service_pb2_grpc.FeedbackServiceStub(door.channel)
            call = stub.RecordFeedback(RecordFeedbackRequest(**fields), metadata=metadata)
            await call
            return str(dict(await call.trailing_metadata())["x-request-id"])

    async def refused(self, **fields: Any) -> RichError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.judge(**fields)
        assert self.remembered.judged.kept == []
        return RichError(caught.value)

    def learned(self, task: TaskType = TaskType.CODE) -> Verdicts | None:
        return self.remembered.feedback.experience(task, Tier.LIGHT).verdicts.get("m")


@pytest.fixture
def house() -> House:
    return House()


async def test_a_verdict_is_taken(house: House) -> None:
    answer = await house.judge(request_id=ANSWERED, score=0.25, label="accuracy")
    assert answer.request_id == ANSWERED
    assert house.learned() == Verdicts(0.25, 1.0)


async def test_the_call_has_an_id_of_its_own(house: House) -> None:
    assert await house.trailing_id(request_id=ANSWERED, score=1.0) == "req_1"
    assert await house.trailing_id([("x-request-id", "mine")], request_id=ANSWERED, score=1.0) == "mine"


async def test_nought_is_a_verdict_and_a_label_may_be_left_out(house: House) -> None:
    await house.judge(request_id=ANSWERED)
    assert house.learned() == Verdicts(0.0, 1.0)


async def test_a_label_that_names_a_task_says_what_it_was(house: House) -> None:
    await house.judge(request_id=ANSWERED, score=1.0, label="mathematics")
    assert house.learned(TaskType.MATHEMATICS) == Verdicts(1.0, 1.0)
    assert house.learned() is None


async def test_an_answer_that_nobody_gave_is_not_found(house: House) -> None:
    error = await house.refused(request_id="req_9", score=1.0)
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "REQUEST_NOT_FOUND")


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"request_id": ""}, ["request_id"]),
        ({"request_id": "a b"}, ["request_id"]),
        ({"score": 1.01}, ["score"]),
        ({"score": -0.01}, ["score"]),
        ({"score": float("nan")}, ["score"]),
        ({"score": float("inf")}, ["score"]),
        ({"label": "Not a label!"}, ["label"]),
        ({"label": "x" * 65}, ["label"]),
        ({"request_id": "", "score": 7.0}, ["request_id", "score"]),
    ],
)
async def test_what_breaks_the_contract_is_refused(house: House, fields: dict[str, Any], wrong: list[str]) -> None:
    error = await house.refused(**{"request_id": ANSWERED, "score": 0.5, **fields})
    assert (error.code, error.reason, error.fields) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", wrong)
