"""Who takes the second look, for how long, and what stands when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np
import structlog

from kit.catalog import request, user
from kit.clock import in_virtual_time
from pointsman_server.decision.complexity import judge_complexity
from pointsman_server.domain.embedder import Vector
from pointsman_server.domain.plan import Complexity
from pointsman_server.execution.second_look import PATIENCE_SECONDS, SecondLooks

DOUBTFUL = request(messages=(user("Would you trust a date of shell in a lake that lies above older pottery?"),))
SURE = request(messages=(user("What is the capital of France?"),))
MEANING = np.full(512, 512**-0.5, dtype="<f4").tobytes()


class Reader:
    """An embedder that takes its time, or fails, and counts what it is asked."""

    name = "reader"

    def __init__(self, seconds: float = 0.0, error: Exception | None = None) -> None:
        self.seconds = seconds
        self.error = error
        self.asked: list[str] = []

    async def embed(self, texts: Sequence[str]) -> Sequence[Vector]:
        self.asked += texts
        await asyncio.sleep(self.seconds)
        if self.error:
            raise self.error
        return [MEANING] * len(texts)


def factors(judged: Complexity) -> set[str]:
    return {factor.name for factor in judged.factors}


def look(reader: Reader | None, *requests: object) -> list[Complexity]:
    looks = SecondLooks(reader)

    async def work() -> list[Complexity]:
        return [await looks.judge(one, judge_complexity(one)) for one in requests]  # type: ignore[arg-type]

    return in_virtual_time(work())


def test_a_request_in_doubt_is_looked_at_again() -> None:
    (judged,) = look(Reader(PATIENCE_SECONDS / 2), DOUBTFUL)
    assert "second_look" in factors(judged)


def test_a_sure_one_is_not() -> None:
    reader = Reader()
    assert look(reader, SURE) == [judge_complexity(SURE)]
    assert reader.asked == []


def test_the_same_ask_is_read_once() -> None:
    reader = Reader()
    first, again = look(reader, DOUBTFUL, DOUBTFUL)
    assert first == again
    assert len(reader.asked) == 1


def test_who_takes_too_long_is_not_waited_for() -> None:
    reader = Reader(PATIENCE_SECONDS * 2)
    judged = look(reader, DOUBTFUL, DOUBTFUL)
    assert judged == [judge_complexity(DOUBTFUL)] * 2
    assert len(reader.asked) == 2, "another request may have more luck"


def test_who_fails_is_told_of_once_and_not_asked_again() -> None:
    reader = Reader(error=OSError("PLANTED"))
    with structlog.testing.capture_logs() as logs:
        judged = look(reader, DOUBTFUL, DOUBTFUL)
    assert judged == [judge_complexity(DOUBTFUL)] * 2
    assert len(reader.asked) == 1
    assert [(one["event"], one["error"]) for one in logs] == [("second_look_off", "OSError")]
    assert "PLANTED" not in str(logs)


def test_without_an_embedder_the_words_decide() -> None:
    assert look(None, DOUBTFUL) == [judge_complexity(DOUBTFUL)]
