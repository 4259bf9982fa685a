"""The cache with vectors of a model: what it finds, whom it never asks, and that its cost is booked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from kit.running import MODEL, connected, load_for_test, router, running_service, spec
from kit.upstream import HELLO, Script, Upstream, json_script, running_upstream
from pointsman.v1 import admin_service_pb2, admin_service_pb2_grpc, answer_pb2
from pointsman.v1.answer_pb2 import CACHE_OUTCOME_HIT_EXACT, CACHE_OUTCOME_HIT_SEMANTIC, CACHE_OUTCOME_MISS
from pointsman.v1.completion_pb2 import CAPABILITY_STREAMING, DATA_CLASS_CONFIDENTIAL, RoutingConstraints
from pointsman.v1.router_service_pb2 import CompleteRequest

QUESTION = "How do I reset my password?"
OTHER = "What does the premium plan cost?"

HERE, NEARBY, FAR = (1.0, 0.0, 0.0), (0.98, 0.1989, 0.0), (0.0, 0.0, 1.0)
PRICE_MICRO_USD_FOR_EACH_TOKEN = 100
TOKENS = 7


def vector(*numbers: float) -> Script:
    """What an OpenAI-compatible provider says of one text."""
    data = [{"object": "embedding", "index": 0, "embedding": list(numbers)}]
    usage = {"prompt_tokens": TOKENS, "total_tokens": TOKENS}
    return json_script({"object": "list", "data": data, "model": "v-1", "usage": usage})


def policy(chat: Upstream, vectors: Upstream, cache: Mapping[str, Any]) -> Mapping[str, Any]:
    made = {
        "kind": "embedding",
        "context_window_tokens": 8_000,
        "dimensions": 3,
        "price": [{"input_usd_per_mtok": PRICE_MICRO_USD_FOR_EACH_TOKEN}],
    }
    by_chat = {"provider": "chat", "model": "m", "model_name": "m-1"}
    return {
        "providers": {
            "chat": {"dialect": "openai_chat", "base_url": chat.base_url},
            "vectors": {"dialect": "openai_chat", "base_url": vectors.base_url},
        },
        "models": {"m": MODEL, "v": made},
        "deployments": {
            "chat": {**by_chat, "data_class": "confidential", "regions": ["eu"]},
            "vectors": {"provider": "vectors", "model": "v", "model_name": "v-1"},
        },
        "cache": {"mode": "read_write", "embedder": "service", "min_similarity": 0.9, **cache},
    }


@dataclass
class House:
    """A service over a provider of answers and one of vectors."""

    channel: Any
    chat: Upstream
    vectors: Upstream

    async def ask(self, text: str = QUESTION, **fields: Any) -> answer_pb2.CompleteResponse:
        asked = CompleteRequest(completion=spec(text, **fields))
        answer: answer_pb2.CompleteResponse = await router(self.channel).Complete(asked, timeout=20)
        return answer

    async def spent(self) -> dict[str, tuple[int, int]]:
        """Of each model: calls and micro-USD, once two models are in the books."""
        wanted = admin_service_pb2.GetUsageRequest(
            group_by=[admin_service_pb2.USAGE_DIMENSION_MODEL, admin_service_pb2.USAGE_DIMENSION_LABEL], label="team"
        )
        admin: Any = admin_service_pb2_grpc.AdminServiceStub(self.channel)
        for _ in range(100):
            used = await admin.GetUsage(wanted, timeout=5)
            if len(used.rows) > 1:
                assert {row.label_value for row in used.rows} == {"search"}
                return {row.model: (row.calls, row.usage.cost_micro_usd) for row in used.rows}
            await asyncio.sleep(0.05)
        raise AssertionError("nothing was booked")


@asynccontextmanager
async def house(scripts: Sequence[Script], **cache: Any) -> AsyncGenerator[House, None]:
    async with (
        running_upstream(json_script(HELLO)) as chat,
        running_upstream(*scripts) as vectors,
        running_service(load_for_test(policy(chat, vectors, cache))) as service,
        connected(service) as channel,
    ):
        yield House(channel, chat, vectors)


class TestFound:
    async def test_what_is_freely_said_in_other_words(self) -> None:
        async with house([vector(*HERE), vector(*NEARBY)], min_similarity=0.97) as here:
            outcomes = [(await here.ask(QUESTION)).cache, (await here.ask("How can one reset a lost password?")).cache]
            assert outcomes == [CACHE_OUTCOME_MISS, CACHE_OUTCOME_HIT_SEMANTIC]
            assert (here.chat.calls, here.vectors.calls) == (1, 2)

    async def test_the_very_same_needs_no_vector(self) -> None:
        async with house([vector(*HERE)]) as here:
            assert [(await here.ask()).cache for _ in range(2)] == [CACHE_OUTCOME_MISS, CACHE_OUTCOME_HIT_EXACT]
            assert here.vectors.calls == 1

    async def test_a_vector_of_any_length_is_taken_for_its_direction(self) -> None:
        async with house([vector(*(5 * one for one in HERE)), vector(*(0.1 * one for one in NEARBY))]) as here:
            await here.ask()
            assert (await here.ask("How can one reset a lost password?")).cache == CACHE_OUTCOME_HIT_SEMANTIC


class TestNotFound:
    @pytest.mark.parametrize(
        ("vectors", "other"),
        [
            pytest.param([HERE, FAR], OTHER, id="something else"),
            pytest.param([HERE, HERE], "How do I reset my password in 30 days?", id="alike with another number"),
            pytest.param([HERE, HERE], "How do I not reset my password?", id="alike with a negation"),
            pytest.param(
                [(0.0, 0.0, 0.0), HERE], "How can one reset a lost password?", id="a vector without direction"
            ),
        ],
    )
    async def test_it(self, vectors: Sequence[Sequence[float]], other: str) -> None:
        async with house([vector(*one) for one in vectors]) as here:
            await here.ask()
            assert (await here.ask(other)).cache == CACHE_OUTCOME_MISS
            assert here.chat.calls == 2

    @pytest.mark.parametrize(
        "broken",
        [json_script({"error": {"message": "no"}}, status=400), Script(200, {}, [], "stall"), vector(1.0, 2.0)],
        ids=["refuses", "is silent", "makes vectors of another length"],
    )
    async def test_no_call_fails_or_waits_long_because_the_model_does(self, broken: Script) -> None:
        async with house([broken]) as here:
            began = asyncio.get_running_loop().time()
            answer = await here.ask()
            assert answer.cache == CACHE_OUTCOME_MISS
            assert answer.finish_reason == answer_pb2.FINISH_REASON_STOP
            assert asyncio.get_running_loop().time() - began < 5
            assert (await here.ask()).cache == CACHE_OUTCOME_HIT_EXACT


class TestWhomItAsks:
    async def test_nobody_who_may_not_see_the_question(self) -> None:
        secret = RoutingConstraints(data_class=DATA_CLASS_CONFIDENTIAL)
        async with house([vector(*HERE)]) as here:
            first = await here.ask(constraints=secret)
            again = await here.ask("How can one reset a lost password?", constraints=secret)
            assert (first.cache, again.cache) == (CACHE_OUTCOME_MISS, CACHE_OUTCOME_MISS)
            assert (here.chat.calls, here.vectors.calls) == (2, 0)

    @pytest.mark.parametrize(
        "constraints",
        [
            RoutingConstraints(denied_deployments=["vectors"]),
            RoutingConstraints(allowed_deployments=["chat"]),
            RoutingConstraints(regions=["eu"]),
        ],
        ids=["denied", "not allowed", "not there"],
    )
    async def test_nobody_whom_the_request_leaves_out(self, constraints: RoutingConstraints) -> None:
        async with house([vector(*HERE)]) as here:
            assert (await here.ask(constraints=constraints)).cache == CACHE_OUTCOME_MISS
            assert here.vectors.calls == 0

    async def test_what_the_answer_may_cost_and_must_be_able_to_do_is_not_asked_of_the_model(self) -> None:
        asked = RoutingConstraints(required_capabilities=[CAPABILITY_STREAMING], max_cost_micro_usd=100_000)
        async with house([vector(*HERE)]) as here:
            await here.ask(constraints=asked)
            assert here.vectors.calls == 1

    async def test_not_without_being_told_to(self) -> None:
        async with house([vector(*HERE)], embedder="local") as here:
            await here.ask()
            assert here.vectors.calls == 0


async def test_the_vectors_are_booked_under_the_calls_labels() -> None:
    async with house([vector(*HERE), vector(*NEARBY)]) as here:
        texts = QUESTION, "How can one reset a lost password?"
        asked = [await here.ask(text, labels={"team": "search"}) for text in texts]
        assert [one.cache for one in asked] == [CACHE_OUTCOME_MISS, CACHE_OUTCOME_HIT_SEMANTIC]
        spent = await here.spent()
        assert spent["v"] == (2, 2 * TOKENS * PRICE_MICRO_USD_FOR_EACH_TOKEN)
        assert spent["m"] == (1, asked[0].usage.cost_micro_usd)
