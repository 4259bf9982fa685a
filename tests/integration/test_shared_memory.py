"""Two real server processes with one PostgreSQL, and two workers with one SQLite: what one of them did counts for both.

Callers of one tenant decide on one process and follow that decision, judge its answer and go on on another.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from kit.command_line import serving
from kit.databases import PostgresServer
from kit.kept_keys import keep_keys
from kit.running import MODEL, RichError, router, spec, user
from pointsman.v1 import completion_pb2
from pointsman.v1.feedback_service_pb2 import RecordFeedbackRequest
from pointsman.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest
from pointsman_server.execution.keys import NewKey

pytestmark = pytest.mark.slow

TENANTS = ("shop", "other", "unrecorded", "teacher")
LEARNED_SECONDS = 6.0
"""Within so long all processes know a verdict."""
LONG = "Please remember this well. " * 400
_OWN_CONNECTION = (("grpc.use_local_subchannel_pool", 1),)


def policy() -> str:
    price = {"input_usd_per_mtok": 10, "output_usd_per_mtok": 10, "cached_input_usd_per_mtok": 1}
    model = {**MODEL, "price": [price]}
    return json.dumps(
        {
            "version": 1,
            "providers": {"up": {"dialect": "openai_chat", "base_url": "http://127.0.0.1:1/v1", "simulated": True}},
            "models": {"a": model, "b": model},
            "deployments": {name: {"provider": "up", "model": name, "model_name": "m-1"} for name in "ab"},
            "tenants": {**{name: {} for name in TENANTS}, "unrecorded": {"traces": {"mode": "off"}}},
        }
    )


class Server(NamedTuple):
    """One process, as callers see it."""

    channel: grpc.aio.Channel
    keys: dict[str, NewKey]

    def presents(self, tenant: str) -> tuple[tuple[str, str], ...]:
        return (("x-api-key", self.keys[tenant].text),)

    async def route(self, asked: Any, tenant: str = "shop") -> Any:
        request = RouteRequest(completion=asked)
        return (await router(self.channel).Route(request, metadata=self.presents(tenant), timeout=20)).decision

    async def complete(self, asked: Any, decision_id: str = "", tenant: str = "shop") -> Any:
        request = CompleteRequest(completion=asked, decision_id=decision_id)
        return await router(self.channel).Complete(request, metadata=self.presents(tenant), timeout=20)

    async def stream(self, asked: Any, decision_id: str = "", tenant: str = "shop") -> Any:
        request = StreamCompleteRequest(completion=asked, decision_id=decision_id)
        events = router(self.channel).StreamComplete(request, metadata=self.presents(tenant), timeout=20)
        return [event async for event in events][-1].completed

    async def judge(self, request_id: str, tenant: str = "shop", score: float = 1.0) -> Any:
        stub: Any = FeedbackServiceStub(self.channel)
        request = RecordFeedbackRequest(request_id=request_id, score=score)
        return await stub.RecordFeedback(request, metadata=self.presents(tenant), timeout=20)


class Pair(NamedTuple):
    """Addresses of two processes, and the tenants' keys."""

    addresses: tuple[str, str]
    keys: dict[str, NewKey]

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[tuple[Server, Server], None]:
        async with AsyncExitStack() as stack:
            channels = [grpc.aio.insecure_channel(one, options=_OWN_CONNECTION) for one in self.addresses]
            one, other = [Server(await stack.enter_async_context(channel), self.keys) for channel in channels]
            yield one, other


@pytest.fixture(scope="module")
def pair(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Generator[Pair, None, None]:
    url = postgres_server.make()
    keys = asyncio.run(keep_keys(url, TENANTS))
    settings = {"POINTSMAN_DATABASE_URL": url, "POINTSMAN_AUTHENTICATION": "required"}
    with ExitStack() as stack:
        folders = [tmp_path_factory.mktemp(name) for name in ("one", "other")]
        addresses = [stack.enter_context(serving(folder, policy(), **settings))[1] for folder in folders]
        yield Pair((addresses[0], addresses[1]), keys)


async def refused(call: Awaitable[Any]) -> RichError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return RichError(caught.value)


async def eventually(look: Callable[[], Awaitable[float]], holds: Callable[[float], bool]) -> None:
    """Waits until what is seen is as it must become."""
    async with asyncio.timeout(LEARNED_SECONDS):
        while not holds(await look()):  # noqa: ASYNC110 - what it waits for happens in another process
            await asyncio.sleep(0.1)


class TestTwoProcesses:
    @pytest.mark.parametrize("deployment", ["a", "b"])
    async def test_a_decision_of_one_is_followed_by_the_other(self, pair: Pair, deployment: str) -> None:
        async with pair.connected() as (one, other):
            asked = spec(deployment=deployment)
            decision = await one.route(asked)
            answers = [await answer(asked, decision.decision_id) for answer in (other.complete, other.stream)]
            answers.append(await one.complete(asked, decision.decision_id))
            for answer in answers:
                assert answer.decision.decision_id == decision.decision_id
                assert answer.decision == decision
                assert answer.attempts[0].deployment == deployment

    async def test_but_not_for_another_tenant_nor_another_request(self, pair: Pair) -> None:
        async with pair.connected() as (one, other):
            decision = await one.route(spec())
            error = await refused(other.complete(spec(), decision.decision_id, tenant="other"))
            assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DECISION_EXPIRED")
            assert "is unknown here" in error.message
            error = await refused(other.complete(spec("Something else?"), decision.decision_id))
            assert "was made for another request" in error.message
            assert (await other.complete(spec(), decision.decision_id)).decision.decision_id == decision.decision_id

    @pytest.mark.parametrize("tenant", ["shop", "unrecorded"])
    async def test_an_answer_of_one_is_judged_on_the_other(self, pair: Pair, tenant: str) -> None:
        async with pair.connected() as (one, other):
            answers = [await one.complete(spec(), tenant=tenant), await one.stream(spec(), tenant=tenant)]
            for answer in answers:
                assert (await other.judge(answer.request_id, tenant)).request_id == answer.request_id
                error = await refused(other.judge(answer.request_id, "other"))
                assert error.code is grpc.StatusCode.NOT_FOUND
                await one.judge(answer.request_id, tenant)

    async def test_a_verdict_teaches_both_and_the_last_one_counts(self, pair: Pair) -> None:
        """What an answer is trusted with shows it: with the tenant's own verdicts, beyond the bound for all."""
        async with pair.connected() as (one, other):

            async def quality(server: Server) -> float:
                ranked = (await server.route(spec(deployment="a"), "teacher")).ranked
                return float(ranked[0].expected_quality)

            before = await quality(other)
            answers = [await one.complete(spec(deployment="a"), tenant="teacher") for _ in range(6)]
            for answer in answers:
                await one.judge(answer.request_id, "teacher", 0.0)
            await eventually(lambda: quality(one), lambda now: now < before)
            lowest = await quality(one)
            await eventually(lambda: quality(other), lambda now: now == pytest.approx(lowest, rel=1e-6))
            for answer in answers:
                await other.judge(answer.request_id, "teacher", 1.0)
            highest = await quality(other)
            assert highest > before
            await eventually(lambda: quality(one), lambda now: now == pytest.approx(highest, rel=1e-6))

    async def test_a_conversation_that_moves_finds_its_warm_cache(self, pair: Pair) -> None:
        async with pair.connected() as (one, other):
            for session, last in (("moved", "b"), ("moved-too", "a")):
                await one.complete(spec(LONG, session_id=session, deployment=last))
            await asyncio.sleep(0.5)

            async def costs(session: str) -> dict[str, float]:
                said = completion_pb2.Message(
                    role=completion_pb2.ROLE_ASSISTANT, parts=[completion_pb2.Part(text="Yes.")]
                )
                asked = spec(session_id=session)
                asked.ClearField("messages")
                asked.messages.extend([user(LONG), said, user("Then go on.")])
                ranked = (await other.route(asked)).ranked
                return {one.deployment: next(f.value for f in one.score_parts if f.name == "cost") for one in ranked}

            moved, moved_too, never = [await costs(session) for session in ("moved", "moved-too", "never")]
            assert (moved["a"], moved_too["b"]) == (never["a"], never["b"])
            assert moved["b"] > never["b"], "what the cache saves counts"
            assert moved_too["a"] > never["a"]


async def test_two_workers_of_one_server_follow_and_judge_what_the_other_did(tmp_path: Path) -> None:
    """A connection belongs to one of them; which, the kernel says."""
    url, state = f"sqlite:///{tmp_path}/pointsman.db", tmp_path / "state"
    keys = await keep_keys(url, TENANTS)
    settings = {"POINTSMAN_WORKERS": "2", "POINTSMAN_DATABASE_URL": url, "POINTSMAN_STATE_DIR": str(state)}
    with serving(tmp_path, policy(), POINTSMAN_AUTHENTICATION="required", **settings) as (_, address):
        async with AsyncExitStack() as stack:
            channels = [grpc.aio.insecure_channel(address, options=_OWN_CONNECTION) for _ in range(24)]
            servers = [Server(await stack.enter_async_context(channel), keys) for channel in channels]
            decisions = [await one.route(spec()) for one in servers]
            answers = [await servers[0].complete(spec(), decision.decision_id) for decision in decisions]
            assert [answer.decision for answer in answers] == decisions
            for one in servers:
                await one.judge(answers[0].request_id)
            error = await refused(servers[1].judge(answers[0].request_id, "other"))
            assert error.code is grpc.StatusCode.NOT_FOUND
    assert [file.stat().st_size > 0 for file in state.glob("decisions-*.jsonl")] == [True, True], "both decided"
    assert [file.stat().st_size > 0 for file in state.glob("verdicts-*.jsonl")] == [True, True], "both took verdicts"
