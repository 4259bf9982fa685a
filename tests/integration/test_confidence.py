"""Confidence over the wire: told with its factors on every answer, moved by verdicts, and what the policy does."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from kit.knowledge import KNOWN, load_with_knowledge, real_model_at
from kit.running import MODEL, connected, load_for_test, router, running_service, spec
from kit.upstream import HELLO, Script, Upstream, chunk, json_script, running_upstream, sse_script
from pointsman.v1 import answer_pb2, feedback_service_pb2_grpc
from pointsman.v1.answer_pb2 import (
    ATTEMPT_OUTCOME_FAILED,
    ATTEMPT_PURPOSE_CROSS_CHECK,
    ATTEMPT_PURPOSE_ESCALATION,
    ATTEMPT_PURPOSE_FIRST,
    CACHE_OUTCOME_HIT_EXACT,
)
from pointsman.v1.feedback_service_pb2 import RecordFeedbackRequest
from pointsman.v1.router_service_pb2 import CompleteRequest, StreamCompleteRequest
from pointsman_server.simulator.server import start_simulator

REFUSAL = "I'm sorry, but I cannot help with that."
ANSWER = "The capital of France is Paris."
PLACES = {"small": "light", "other": "light", "big": "advanced"}


def says(text: str, log_probability: float | None = None) -> Script:
    """A whole answer with the log-probability of its only token."""
    told = None if log_probability is None else {"content": [{"token": text, "logprob": log_probability}]}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop", "logprobs": told}
    return json_script({**HELLO, "choices": [choice]})


@dataclass
class House:
    """A service over two light models, `small` and the dearer `other`, and the strong and dear `big`."""

    channel: Any
    upstreams: Mapping[str, Upstream]

    async def ask(self, text: str = "What is the capital of France?", **fields: Any) -> answer_pb2.CompleteResponse:
        asked = CompleteRequest(completion=spec(text, **fields))
        answer: answer_pb2.CompleteResponse = await router(self.channel).Complete(asked, timeout=20)
        return answer

    async def stream(self) -> answer_pb2.CompleteResponse:
        asked = StreamCompleteRequest(completion=spec("What is the capital of France?"))
        events = [event async for event in router(self.channel).StreamComplete(asked, timeout=20)]
        completed: answer_pb2.CompleteResponse = events[-1].completed
        return completed

    async def judge(self, answer: answer_pb2.CompleteResponse, score: float) -> None:
        stub: Any = feedback_service_pb2_grpc.FeedbackServiceStub(self.channel)
        await stub.RecordFeedback(RecordFeedbackRequest(request_id=answer.request_id, score=score), timeout=20)

    @property
    def asked(self) -> dict[str, int]:
        """How often each was asked."""
        return {name: upstream.calls for name, upstream in self.upstreams.items()}


@asynccontextmanager
async def house(scripts: Mapping[str, Script], **policy: Any) -> AsyncGenerator[House, None]:
    async with AsyncExitStack() as stack:
        upstreams = {name: await stack.enter_async_context(running_upstream(scripts[name])) for name in scripts}
        content = {
            "providers": {
                name: {"dialect": "openai_chat", "base_url": one.base_url} for name, one in upstreams.items()
            },
            "models": {
                f"{name}-model": {
                    **MODEL,
                    "tier": PLACES[name],
                    "quality": 0.9 if name == "big" else 0.6,
                    "price": [{"input_usd_per_mtok": place, "output_usd_per_mtok": place}],
                }
                for place, name in enumerate(upstreams, start=1)
            },
            "deployments": {
                name: {"provider": name, "model": f"{name}-model", "model_name": "m-1"} for name in upstreams
            },
            **policy,
        }
        service = await stack.enter_async_context(running_service(load_for_test(content)))
        channel = await stack.enter_async_context(connected(service))
        yield House(channel, upstreams)


def factors(answer: answer_pb2.CompleteResponse) -> dict[str, float]:
    """By name, after checking that they make up the score."""
    told = {factor.name: factor.value for factor in answer.confidence.factors}
    assert len(told) == len(answer.confidence.factors)
    assert answer.confidence.score == pytest.approx(1 / (1 + math.exp(-sum(told.values()))))
    return told


def text_of(answer: answer_pb2.CompleteResponse) -> str:
    return "".join(part.text for part in answer.message.parts)


def purposes(answer: answer_pb2.CompleteResponse) -> list[tuple[str, int]]:
    return [(one.deployment, one.purpose) for one in answer.attempts]


def warned(answer: answer_pb2.CompleteResponse) -> list[str]:
    return [warning.code for warning in answer.warnings]


class TestEveryAnswer:
    async def test_a_whole_one(self) -> None:
        async with house({"small": says(ANSWER, math.log(0.5))}) as here:
            answer = await here.ask()
        told = factors(answer)
        assert set(told) == {"expected_quality", "model_certainty"}
        assert told["model_certainty"] < 0
        assert answer.confidence.score < answer.decision.ranked[0].expected_quality

    async def test_a_streamed_one_is_judged_like_a_whole_one(self) -> None:
        piece = chunk(ANSWER)
        piece["choices"][0]["logprobs"] = {"content": [{"token": ANSWER, "logprob": math.log(0.5)}]}
        async with house({"small": sse_script(piece, chunk(finish="stop"))}) as here:
            streamed = await here.stream()
        async with house({"small": says(ANSWER, math.log(0.5))}) as here:
            whole = await here.ask()
        assert text_of(streamed) == text_of(whole) == ANSWER
        assert streamed.confidence == whole.confidence

    @pytest.mark.parametrize("asks", [True, False])
    async def test_token_probabilities_come_where_the_options_ask_for_them(self, asks: bool) -> None:
        simulator = await start_simulator()
        try:
            content = {
                "providers": {"sim": {"dialect": "openai_chat", "base_url": f"{simulator.base_url}/v1"}},
                "models": {"m": MODEL},
                "deployments": {
                    "sim": {
                        "provider": "sim",
                        "model": "m",
                        "model_name": "gpt-sim",
                        "options": {"logprobs": True} if asks else {},
                    }
                },
            }
            async with running_service(load_for_test(content)) as service, connected(service) as channel:
                here = House(channel, {})
                whole, streamed = await here.ask(), await here.stream()
        finally:
            await simulator.stop()
        assert ("model_certainty" in factors(whole)) is asks
        assert streamed.confidence == whole.confidence

    async def test_one_from_the_cache(self) -> None:
        async with house({"small": says(ANSWER)}, cache={"mode": "read_write"}) as here:
            first, again = await here.ask(), await here.ask()
        assert again.cache == CACHE_OUTCOME_HIT_EXACT
        assert again.confidence == first.confidence
        assert factors(again)

    async def test_one_without_a_model_tells_how_well_its_source_fits(self) -> None:
        question, _ = KNOWN[0]
        policy = load_with_knowledge(real_model_at("http://127.0.0.1:9/v1"))
        async with running_service(policy) as service, connected(service) as channel:
            asked = CompleteRequest(completion=spec(question))
            answer = await router(channel).Complete(asked, timeout=20)
        assert answer.attempts[-1].provider == "local"
        assert "model_certainty" in factors(answer)
        assert "sources" in factors(answer)

    async def test_a_refusal_is_no_good_answer(self) -> None:
        async with house({"small": says(REFUSAL)}) as here:
            assert factors(await here.ask())["wording"] == -2.0

    async def test_verdicts_move_it(self) -> None:
        async with house({"small": says(ANSWER)}) as here:
            before = (await here.ask()).confidence.score
            for _ in range(20):
                await here.judge(await here.ask(), 0.0)
            disliked = await here.ask()
            assert disliked.confidence.score < before - 0.2
            assert "historical_accuracy" in factors(disliked)
            for _ in range(60):
                await here.judge(await here.ask(), 1.0)
            assert (await here.ask()).confidence.score > disliked.confidence.score + 0.2


class TestEscalation:
    ON: Mapping[str, Any] = {"escalate_below": 0.5}

    async def test_a_stronger_model_is_asked_once_and_both_are_paid_for(self) -> None:
        async with house({"small": says(REFUSAL), "big": says(ANSWER)}, confidence=self.ON) as here:
            answer = await here.ask()
        assert text_of(answer) == ANSWER
        assert purposes(answer) == [("small", ATTEMPT_PURPOSE_FIRST), ("big", ATTEMPT_PURPOSE_ESCALATION)]
        assert answer.usage.cost_micro_usd == sum(one.cost_micro_usd for one in answer.attempts)
        assert all(one.cost_micro_usd for one in answer.attempts)
        assert "escalated" in warned(answer)
        assert answer.confidence.score > 0.5

    async def test_streams_are_left_as_they_are(self) -> None:
        script = sse_script(chunk(REFUSAL), chunk(finish="stop"))
        async with house({"small": script, "big": says(ANSWER)}, confidence=self.ON) as here:
            answer = await here.stream()
            assert (text_of(answer), here.asked) == (REFUSAL, {"small": 1, "big": 0})
        assert answer.confidence.score < 0.5

    async def test_a_stronger_model_that_fails_costs_no_answer(self) -> None:
        down = json_script({"error": {"message": "down"}}, status=503)
        async with house({"small": says(REFUSAL), "big": down}, confidence=self.ON) as here:
            answer = await here.ask()
            assert here.asked == {"small": 1, "big": 1}
        assert text_of(answer) == REFUSAL
        assert answer.attempts[0].outcome == ATTEMPT_OUTCOME_FAILED
        assert answer.attempts[-1].deployment == "small"

    async def test_nobody_else_is_asked_where_the_request_names_one(self) -> None:
        async with house({"small": says(REFUSAL), "big": says(ANSWER)}, confidence=self.ON) as here:
            answer = await here.ask(deployment="small")
            assert (text_of(answer), here.asked) == (REFUSAL, {"small": 1, "big": 0})

    async def test_the_better_answer_is_the_one_that_is_remembered(self) -> None:
        policy = {"confidence": self.ON, "cache": {"mode": "read_write"}}
        async with house({"small": says(REFUSAL), "big": says(ANSWER)}, **policy) as here:
            first, again = await here.ask(), await here.ask()
            assert text_of(first) == text_of(again) == ANSWER
            assert again.cache == CACHE_OUTCOME_HIT_EXACT
            assert here.asked == {"small": 1, "big": 1}


class TestCrossCheck:
    ON: Mapping[str, Any] = {"cross_check_with": "other", "cross_check_labels": {"importance": "high"}}

    @pytest.mark.parametrize(("second", "sign"), [("Paris.", 1), ("London.", -1)])
    async def test_what_another_model_says_counts(self, second: str, sign: int) -> None:
        async with house({"small": says(ANSWER), "other": says(second)}, confidence=self.ON) as here:
            answer = await here.ask(labels={"importance": "high"})
            assert here.asked == {"small": 1, "other": 1}
        assert text_of(answer) == ANSWER
        assert factors(answer)["cross_validation"] == pytest.approx(sign * 1.2)
        assert purposes(answer) == [("other", ATTEMPT_PURPOSE_CROSS_CHECK), ("small", ATTEMPT_PURPOSE_FIRST)]
        assert answer.usage.cost_micro_usd == sum(one.cost_micro_usd for one in answer.attempts)

    async def test_other_calls_are_not_compared(self) -> None:
        async with house({"small": says(ANSWER), "other": says("Paris.")}, confidence=self.ON) as here:
            answer = await here.ask()
            assert here.asked == {"small": 1, "other": 0}
        assert "cross_validation" not in factors(answer)

    async def test_disagreement_can_bring_in_the_stronger_model(self) -> None:
        policy = {**self.ON, "escalate_below": 0.75}
        scripts = {"small": says(ANSWER), "other": says("London."), "big": says("Paris, of course.")}
        async with house(scripts, confidence=policy) as here:
            answer = await here.ask(labels={"importance": "high"})
            assert here.asked == {"small": 1, "other": 1, "big": 1}
        assert len(answer.attempts) == 3
