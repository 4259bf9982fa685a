"""Vectors over the wire: real gRPC, real adapters, simulated providers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.running import RichError, compile_for_test, connected, running_service, spec
from kit.upstream import Script as Bytes
from kit.upstream import json_script, running_upstream
from pointsman.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    answer_pb2,
    completion_pb2,
    embedding_service_pb2_grpc,
    router_service_pb2,
    router_service_pb2_grpc,
)
from pointsman.v1.embedding_service_pb2 import EmbedRequest, EmbedResponse
from pointsman_server.adapters.guards.sensitive import PatternScanner
from pointsman_server.bootstrap.service import Service
from pointsman_server.domain.sensitive import Finding
from pointsman_server.simulator.behaviour import Behaviour, Fault, Rule, Script, UsageOverride
from pointsman_server.simulator.server import RunningSimulator, start_simulator
from pointsman_server.simulator.vectors import vector_of

DIALECTS = {"openai_chat": "/v1", "openai_responses": "/v1", "cohere_chat": "", "gemini_generate": ""}
FAST = {"retries": {"base_seconds": 0.01, "cap_seconds": 0.02, "attempts_per_deployment": 2}}
FAILING = Behaviour(fault=Fault.STATUS_500)


@dataclass
class House:
    """A service whose vectors come from one model at two simulated places, `first` before `second`."""

    service: Service
    channel: grpc.aio.Channel
    first: RunningSimulator
    second: RunningSimulator

    async def embed(self, *texts: str, seconds: float = 20, **fields: Any) -> EmbedResponse:
        stub: Any = embedding_service_pb2_grpc.EmbeddingServiceStub(self.channel)
        response: EmbedResponse = await stub.Embed(EmbedRequest(inputs=texts, **fields), timeout=seconds)
        return response

    async def refused(self, *texts: str, **fields: Any) -> RichError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.embed(*texts, **fields)
        return RichError(caught.value)

    @property
    def admin(self) -> Any:
        return admin_service_pb2_grpc.AdminServiceStub(self.channel)

    async def usage(self) -> Any:
        await asyncio.sleep(0)
        for _ in range(100):
            used = await self.admin.GetUsage(
                admin_service_pb2.GetUsageRequest(group_by=[admin_service_pb2.USAGE_DIMENSION_MODEL]), timeout=5
            )
            if used.rows:
                return {row.model: row for row in used.rows}
            await asyncio.sleep(0.05)
        raise AssertionError("nothing was booked")


def policy(first: str, second: str, *, dialect: str = "openai_chat", **changes: Any) -> dict[str, Any]:
    model = {
        "kind": "embedding",
        "context_window_tokens": 200,
        "dimensions": 32,
        "variable_dimensions": True,
        "max_inputs_per_call": 3,
        "tokenizer": "cl100k",
        "price": [{"input_usd_per_mtok": 100}],
        **changes.pop("model", {}),
    }
    # The simulator makes vectors of 256 dimensions unless it is asked for another number.
    model["dimensions"] = 256 if model["dimensions"] == 32 else model["dimensions"]
    by = {"dialect": dialect, "api_key": "${KEY}"} if dialect == "gemini_generate" else {"dialect": dialect}
    place = {"model": "vec", "model_name": "sim-fast"}
    return {
        "providers": {
            "one": {**by, "base_url": first + DIALECTS[dialect]},
            "two": {"dialect": "cohere_chat", "base_url": second},
        },
        "models": {
            "vec": model,
            "chat": {
                "tier": "light",
                "context_window_tokens": 8_000,
                "max_output_tokens": 1_000,
                "capabilities": ["streaming"],
                "quality": 0.5,
                "price": [{"input_usd_per_mtok": 1, "output_usd_per_mtok": 1}],
            },
        },
        "deployments": {
            "first": {"provider": "one", **place, "regions": ["us"], "expected_first_token_seconds": 0.1},
            "second": {"provider": "two", **place, "data_class": "internal", "regions": ["eu"]},
            "talker": {"provider": "one", "model": "chat", "model_name": "sim-fast"},
        },
        "aliases": {"in-europe": "second"},
        "resilience": FAST,
        **changes,
    }


@asynccontextmanager
async def house(**changes: Any) -> AsyncGenerator[House, None]:
    async with AsyncExitStack() as stack:
        first, second = await start_simulator(), await start_simulator()
        stack.push_async_callback(first.stop)
        stack.push_async_callback(second.stop)
        snapshot = compile_for_test(policy(first.base_url, second.base_url, **changes), {"KEY": "sk-0123456789abcdef"})
        service = await stack.enter_async_context(running_service(snapshot))
        channel = await stack.enter_async_context(connected(service))
        yield House(service, channel, first, second)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another server
            await asyncio.sleep(0.01)


def told(response: EmbedResponse) -> list[list[float]]:
    return [[round(value, 4) for value in embedding.values] for embedding in response.embeddings]


def expected(texts: Sequence[str], dimensions: int = 256) -> list[list[float]]:
    return [[round(value, 4) for value in vector_of(text, dimensions)] for text in texts]


TEXTS = [f"text number {number} about {'cats' if number % 2 else 'dogs'}" for number in range(11)]


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_every_dialect_gives_one_vector_for_each_text_in_order(dialect: str) -> None:
    async with house(dialect=dialect) as one:
        response = await one.embed(*TEXTS, request_id="e-1")
        assert told(response) == expected(TEXTS)
        assert response.request_id == "e-1"
        assert [attempt.deployment for attempt in response.attempts] == ["first"] * 4  # of 3, 3, 3 and 2 texts
        assert len(one.first.calls) == 4
        assert len(one.second.calls) == 0
        assert response.usage.input_tokens == sum(-(-sum(map(len, TEXTS[at : at + 3])) // 4) for at in (0, 3, 6, 9))
        assert response.usage.cost_micro_usd == sum(attempt.cost_micro_usd for attempt in response.attempts) > 0
        assert (response.usage.output_tokens, response.usage.estimated) == (0, False)
        shorter = await one.embed("cats", dimensions=16)
        assert told(shorter) == expected(["cats"], 16)


async def test_a_service_like_the_others() -> None:
    async with house() as one:
        stub: Any = health_pb2_grpc.HealthStub(one.channel)
        asked = health_pb2.HealthCheckRequest(service="pointsman.v1.EmbeddingService")
        assert (await stub.Check(asked)).status == health_pb2.HealthCheckResponse.SERVING


class TestFailover:
    async def test_goes_to_another_place_of_the_same_model(self) -> None:
        async with house() as one:
            one.first.use(Script((Rule(FAILING),)))
            response = await one.embed(*TEXTS[:4])
            assert told(response) == expected(TEXTS[:4])
            failed = [one for one in response.attempts if one.outcome == answer_pb2.ATTEMPT_OUTCOME_FAILED]
            assert {attempt.deployment for attempt in failed} == {"first"}
            assert {attempt.model for attempt in response.attempts} == {"vec"}
            assert response.attempts[-1].deployment == "second"

    async def test_never_goes_to_another_model(self) -> None:
        async with house() as one:
            for simulator in (one.first, one.second):
                simulator.use(Script((Rule(FAILING),)))
            error = await one.refused("cats")
            assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "ALL_ATTEMPTS_FAILED")
            assert not any("chat" in call.path for call in (*one.first.calls, *one.second.calls))

    async def test_retries_in_the_same_place_when_it_is_pinned(self) -> None:
        async with house() as one:
            one.second.use(Script((Rule(FAILING, last_call=1),)))
            response = await one.embed("cats", deployment="in-europe")
            assert [attempt.deployment for attempt in response.attempts] == ["second", "second"]
            assert response.attempts[1].purpose == answer_pb2.ATTEMPT_PURPOSE_RETRY

    async def test_a_batch_that_is_refused_ends_the_call_and_all_is_booked(self) -> None:
        async with house() as one:
            one.first.use(Script((Rule(Behaviour(fault=Fault.STATUS_400), first_call=2),)))
            error = await one.refused(*TEXTS)
            assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PROVIDER_INVALID_REQUEST")
            row = (await one.usage())["vec"]
            assert row.usage.cost_micro_usd > 0  # the first batch was answered
            assert row.calls == 1


class TestMalformed:
    @pytest.mark.parametrize(
        "data",
        [
            [],
            [{"index": 0, "embedding": [0.5] * 4}],
            [{"index": 0, "embedding": [1.0, None]}, {"index": 1, "embedding": [0.5, 0.5]}],
            [{"index": 0, "embedding": [1.0, 0.0]}, {"index": 1, "embedding": [0.5, float("nan")]}],
            [{"index": 0, "embedding": [1.0, 0.0]}, {"index": 1, "embedding": [0.5]}],
            [{"index": 0, "embedding": [1.0, 0.0]}, {"index": 0, "embedding": [0.5, 0.5]}],
            [{"index": 0, "embedding": [1.0, 0.0]}, {"index": 1, "embedding": "AAAA"}],
        ],
        ids=["none", "one of two", "null", "NaN", "too short", "same place twice", "half a number"],
    )
    async def test_what_cannot_be_compared_is_asked_for_again(self, data: list[Any]) -> None:
        good = [{"index": 1, "embedding": [0.0, 1.0]}, {"index": 0, "embedding": [1.0, 0.0]}]
        async with vectors_from(answer(data), answer(good)) as one:
            response = await one.embed("north", "east")
            assert told(response) == [[1, 0], [0, 1]]
            kinds = [attempt.error for attempt in response.attempts]
            assert kinds == [answer_pb2.ATTEMPT_ERROR_MALFORMED_REPLY, answer_pb2.ATTEMPT_ERROR_UNSPECIFIED]

    async def test_what_stays_malformed_is_no_answer(self) -> None:
        async with vectors_from(answer([])) as one:
            error = await one.refused("north")
            assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "ALL_ATTEMPTS_FAILED")

    async def test_missing_counts_are_made_up_and_marked(self) -> None:
        rows = {"object": "list", "data": [{"index": 0, "embedding": [1.0, 0.0]}]}
        async with vectors_from(json_script(rows)) as one:
            response = await one.embed("four words of text")
            assert response.usage.estimated
            assert response.usage.input_tokens == pytest.approx(5, abs=1)
            assert response.usage.cost_micro_usd == response.attempts[0].cost_micro_usd > 0
            row = (await one.usage())["vec"]
            assert row.usage.cost_micro_usd == response.usage.cost_micro_usd
            assert row.usage.estimated


@asynccontextmanager
async def vectors_from(*scripts: Bytes) -> AsyncGenerator[House, None]:
    """Vectors of two dimensions from a provider that plays these scripts."""
    async with running_upstream(*scripts) as upstream, AsyncExitStack() as stack:
        content = policy(upstream.base_url.removesuffix("/v1"), "http://127.0.0.1:1", model={"dimensions": 2})
        content["deployments"] = {name: content["deployments"][name] for name in ("first", "talker")}
        content.pop("aliases")
        service = await stack.enter_async_context(running_service(compile_for_test(content)))
        channel = await stack.enter_async_context(connected(service))
        nobody: Any = None
        yield House(service, channel, nobody, nobody)


def answer(data: list[Any]) -> Bytes:
    return json_script({"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 2, "total_tokens": 2}})


class TestGovernance:
    async def test_a_budget_is_never_passed_by(self) -> None:
        budget = {"name": "tiny", "period": "month", "limit_usd": 0.0001}
        async with house(tenants={"local": {"budgets": [budget]}}) as one:
            error = await one.refused(*(["a text that is much too long for so little money"] * 9))
            assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED")
            assert len(one.first.calls) == 0

    async def test_a_cost_cap_leaves_nobody(self) -> None:
        async with house() as one:
            error = await one.refused(*TEXTS, constraints={"max_cost_micro_usd": 1})
            assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_ELIGIBLE_DEPLOYMENT")

    async def test_a_kill_switch_stops_a_provider(self) -> None:
        async with house() as one:
            switch = admin_service_pb2.SetKillSwitchRequest(
                scope=admin_service_pb2.KILL_SWITCH_SCOPE_PROVIDER, target="one", engaged=True, comment="test"
            )
            await one.admin.SetKillSwitch(switch, timeout=5)
            response = await one.embed("cats")
            assert [attempt.deployment for attempt in response.attempts] == ["second"]
            everything = admin_service_pb2.SetKillSwitchRequest(
                scope=admin_service_pb2.KILL_SWITCH_SCOPE_GLOBAL, engaged=True, comment="test"
            )
            await one.admin.SetKillSwitch(everything, timeout=5)
            assert (await one.refused("cats")).reason == "KILL_SWITCH"

    async def test_data_goes_only_where_it_may(self) -> None:
        async with house() as one:
            internal: Mapping[str, Any] = {"data_class": completion_pb2.DATA_CLASS_INTERNAL}
            response = await one.embed("cats", constraints=internal)
            assert [attempt.deployment for attempt in response.attempts] == ["second"]
            one.second.use(Script((Rule(FAILING),)))
            assert (await one.refused("cats", constraints=internal)).reason == "ALL_ATTEMPTS_FAILED"
            assert len(one.first.calls) == 0
            restricted = {"data_class": completion_pb2.DATA_CLASS_RESTRICTED}
            assert (await one.refused("cats", constraints=restricted)).reason == "NO_ELIGIBLE_DEPLOYMENT"
            in_asia = {"regions": ["asia"]}
            assert (await one.refused("cats", constraints=in_asia)).reason == "NO_ELIGIBLE_DEPLOYMENT"

    async def test_the_ledger_has_every_token(self) -> None:
        async with house() as one:
            response = await one.embed(*TEXTS, labels={"feature": "search"})
            row = (await one.usage())["vec"]
            assert (row.calls, row.usage.input_tokens) == (1, response.usage.input_tokens)
            assert row.usage.cost_micro_usd == response.usage.cost_micro_usd


class TestRequests:
    async def test_completions_and_vectors_never_share_a_model(self) -> None:
        async with house() as one:
            error = await one.refused("cats", deployment="talker")
            assert (error.code, error.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["deployment"])
            router: Any = router_service_pb2_grpc.RouterServiceStub(one.channel)
            asked = spec("Hello")
            decided = await router.Route(router_service_pb2.RouteRequest(completion=asked))
            assert decided.decision.chosen.deployment == "talker"
            left_out = {one.deployment: one.detail for one in decided.decision.excluded}
            assert left_out == dict.fromkeys(["first", "second"], "its model only makes vectors")
            asked.deployment = "first"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await router.Complete(router_service_pb2.CompleteRequest(completion=asked))
            assert RichError(caught.value).fields == ["completion.deployment"]

    async def test_what_is_wrong_is_named(self) -> None:
        async with house() as one:
            assert (await one.refused()).fields == ["inputs"]
            assert (await one.refused("cats", " \n")).fields == ["inputs[1]"]
            assert (await one.refused("cats", dimensions=512)).reason == "NO_ELIGIBLE_DEPLOYMENT"
            assert (await one.refused("cats", deployment="first", dimensions=512)).fields == ["dimensions"]
            assert (await one.refused("cats", deployment="nobody")).reason == "DEPLOYMENT_NOT_FOUND"
            conflict = {"denied_deployments": ["first"]}
            assert (await one.refused("cats", deployment="first", constraints=conflict)).fields == ["deployment"]
            too_long = await one.refused("cats", "word " * 300)
            assert (too_long.reason, too_long.fields) == ("CONTEXT_OVERFLOW", ["inputs"])
            assert len(one.first.calls) == 0

    async def test_what_was_found_is_told_and_looked_for_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        text, scanned = "write to ann@example.org", []
        scan = PatternScanner.scan

        def noting(self: PatternScanner, text: str) -> Sequence[Finding]:
            scanned.append(text)
            return scan(self, text)

        monkeypatch.setattr(PatternScanner, "scan", noting)
        async with house() as one:
            made = await one.embed(text, "cats", text)
            assert [(found.type, found.count) for found in made.redactions] == [("EMAIL", 2)]
            assert not (await one.embed("cats")).redactions
            router: Any = router_service_pb2_grpc.RouterServiceStub(one.channel)
            answer = await router.Complete(router_service_pb2.CompleteRequest(completion=spec(text)), timeout=20)
            assert [(found.type, found.count) for found in answer.redactions] == [("EMAIL", 1)]
            assert scanned.count(text) == 1  # completions and vectors share what is remembered of texts

    async def test_a_named_call_is_made_once(self) -> None:
        async with house() as one:
            first = await one.embed("cats", request_id="once")
            again = await one.embed("cats", request_id="once")
            assert again == first
            assert len(one.first.calls) == 1
            assert (await one.refused("dogs", request_id="once")).reason == "REQUEST_ID_REUSED"

    async def test_the_deadline_holds(self) -> None:
        async with house() as one:
            for simulator in (one.first, one.second):
                simulator.use(Script((Rule(Behaviour(latency_seconds=10)),)))
            error = await one.refused("cats", seconds=0.5)
            assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED

    async def test_a_caller_who_leaves_ends_all_batches(self) -> None:
        async with house() as one:
            one.first.use(Script((Rule(Behaviour(latency_seconds=10), first_call=2),)))
            stub: Any = embedding_service_pb2_grpc.EmbeddingServiceStub(one.channel)
            call = stub.Embed(EmbedRequest(inputs=TEXTS), timeout=20)
            await until(lambda: one.first.open_connections == 3)  # the first batch was answered, the others wait
            call.cancel()
            await until(lambda: not one.first.open_connections)
            row = (await one.usage())["vec"]
            assert row.calls == 1


async def test_usage_that_cannot_be_true_is_ours() -> None:
    async with house() as one:
        one.first.use(Script((Rule(Behaviour(usage=UsageOverride(input_tokens=-5))),)))
        response = await one.embed("cats and dogs")
        assert response.usage.estimated
        assert response.usage.input_tokens > 0
