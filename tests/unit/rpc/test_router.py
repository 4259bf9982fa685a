from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from kit.catalog import EVERYTHING, deployment, judged, price, snapshot
from kit.clock import CountingIds, FakeClock
from kit.dispatching import doorkeepers
from kit.fresh_database import fresh_database_url
from kit.guards import guards
from kit.house import open_door
from kit.remembering import Remembered
from kit.running import RichError, router, spec
from kit.scripted import END, CharacterCounter, Hang, ScriptedAdapter, Step, answers, says
from kit.watching import SeenTelemetry
from pointsman.v1 import answer_pb2
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest
from pointsman_server.adapters.answer_checker import SchemaAnswerChecker
from pointsman_server.adapters.stores.memory_ledger import MemoryLedger
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.idempotency_store import SqlAnswers
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.bootstrap.pipeline import ungoverned
from pointsman_server.domain.catalog import FreshFacts, Timeouts
from pointsman_server.domain.control import Control
from pointsman_server.domain.faults import FaultKind, ProviderFault
from pointsman_server.domain.plan import Complexity
from pointsman_server.domain.request import Capability, CompletionRequest
from pointsman_server.execution.attempt import BACKSTOP_SECONDS
from pointsman_server.execution.decisions import FRESH_SECONDS
from pointsman_server.execution.dispatch import Dispatcher
from pointsman_server.execution.idempotency import Idempotency
from pointsman_server.execution.pipeline import Pipeline
from pointsman_server.rpc.deadline import MOST_MARGIN_SECONDS
from pointsman_server.rpc.router import RouterServicer

DOWN = ProviderFault(FaultKind.UNAVAILABLE, "down")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNARY_SECONDS, STREAM_SECONDS = 20.0, 400.0
TOLERANCE_SECONDS = 2.0


class House:
    """A RouterService over scripted providers `d0`, `d1`, …"""

    def __init__(self, scripts: Sequence[Sequence[Step]]) -> None:
        self.adapters = [ScriptedAdapter(script) for script in scripts]
        patient = Timeouts(total_seconds=1_000.0)
        deployments = [deployment(f"d{place}", timeouts=patient) for place in range(len(scripts))]
        self.snapshot = snapshot(*deployments)
        clock, counter = SystemClock(), CharacterCounter()
        self.time = FakeClock()
        self.database = Database(fresh_database_url())
        self.remembered = Remembered(self.time)
        self.complexity = judged()
        by_provider = {one.provider.id: adapter for one, adapter in zip(deployments, self.adapters, strict=True)}
        telemetry, memory = SeenTelemetry(), self.remembered.memory
        keepers = replace(doorkeepers(clock, telemetry), health=memory.health, places=memory.places)
        dispatcher = Dispatcher(by_provider, keepers, SchemaAnswerChecker(), counter, clock)
        self.servicer = RouterServicer(
            Pipeline(
                dispatcher,
                self.judge,
                memory,
                ungoverned(clock),
                guards(telemetry),
                MemoryLedger(),
                telemetry,
                counter,
                clock,
                CountingIds(),
            ),
            lambda tenant, key, made_under: self.snapshot,
            Control,
            Idempotency(SqlAnswers(self.database, clock), clock, CountingIds()),
            clock,
            unary_timeout_seconds=UNARY_SECONDS,
            stream_timeout_seconds=STREAM_SECONDS,
        )
        self.router: Any = None

    def judge(self, asked: CompletionRequest) -> Complexity:
        """The same of every request."""
        return self.complexity

    def allowed_seconds(self) -> float:
        """How long the last call to the first provider could take."""
        return self.adapters[0].calls[-1].timeout_seconds - BACKSTOP_SECONDS


@asynccontextmanager
async def house(*scripts: Sequence[Step]) -> AsyncGenerator[House, None]:
    built = House(scripts)
    async with open_door(built.servicer) as door:
        built.router = router(door.channel)
        yield built
    await built.database.close()


async def read(call: Any) -> list[answer_pb2.StreamCompleteResponse]:
    return [event async for event in call]


async def test_route_decides_and_calls_nobody() -> None:
    async with house(answers("Hello"), answers("Hello")) as built:
        answer = await built.router.Route(RouteRequest(completion=spec(request_id="mine")))
        assert answer.request_id == "mine"
        assert [one.deployment for one in answer.decision.ranked] == ["d0", "d1"]
        assert not any(adapter.calls for adapter in built.adapters)


async def test_complete_answers() -> None:
    async with house(answers("Hello")) as built:
        answer = await built.router.Complete(CompleteRequest(completion=spec(request_id="mine")))
        assert (answer.request_id, answer.message.parts[0].text) == ("mine", "Hello")


async def test_a_stream_has_the_decision_first_and_the_whole_last() -> None:
    async with house((says("Hel"), says("lo"), END)) as built:
        events = await read(built.router.StreamComplete(StreamCompleteRequest(completion=spec())))
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["decision", "delta", "delta", "warning", "completed"]
    assert "".join(event.delta.text for event in events) == events[-1].completed.message.parts[0].text == "Hello"
    assert events[0].decision == events[-1].completed.decision


class TestFailover:
    async def test_restart(self) -> None:
        async with house((says("Hel"), DOWN), answers("Good")) as built:
            request = StreamCompleteRequest(completion=spec(), failover=answer_pb2.STREAM_FAILOVER_RESTART)
            events = await read(built.router.StreamComplete(request))
        moved = [event.failover for event in events if event.WhichOneof("event") == "failover"]
        assert [(one.from_deployment, one.to_deployment) for one in moved] == [("d0", "d1")]
        assert events[-1].completed.message.parts[0].text == "Good"

    @pytest.mark.parametrize("mode", [answer_pb2.STREAM_FAILOVER_UNSPECIFIED, answer_pb2.STREAM_FAILOVER_TERMINATE])
    async def test_terminate(self, mode: answer_pb2.StreamFailover.ValueType) -> None:
        async with house((says("Hel"), DOWN), answers("Good")) as built:
            request = StreamCompleteRequest(completion=spec(), failover=mode)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await read(built.router.StreamComplete(request))
        assert RichError(caught.value).reason == "STREAM_INTERRUPTED"

    async def test_others_are_refused(self) -> None:
        mode: Any = 99
        async with house(answers("Hello")) as built:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await read(built.router.StreamComplete(StreamCompleteRequest(completion=spec(), failover=mode)))
            error = RichError(caught.value)
            assert (error.code, error.reason, error.fields) == (
                grpc.StatusCode.INVALID_ARGUMENT,
                "INVALID_FIELD",
                ["failover"],
            )
            assert not built.adapters[0].calls


class TestDeadline:
    async def test_without_one_the_servers_own_counts(self) -> None:
        async with house(answers("Hello")) as built:
            await built.router.Complete(CompleteRequest(completion=spec()))
            assert UNARY_SECONDS - TOLERANCE_SECONDS < built.allowed_seconds() <= UNARY_SECONDS
            await read(built.router.StreamComplete(StreamCompleteRequest(completion=spec())))
            assert STREAM_SECONDS - TOLERANCE_SECONDS < built.allowed_seconds() <= STREAM_SECONDS

    @pytest.mark.parametrize("seconds", [1.0, 10.0, 15.0, 101.0, 300.0])
    async def test_the_callers_is_kept_with_a_margin_for_the_answer(self, seconds: float) -> None:
        async with house(answers("Hello")) as built:
            await read(built.router.StreamComplete(StreamCompleteRequest(completion=spec()), timeout=seconds))
            margin_seconds = min(seconds * 0.04, MOST_MARGIN_SECONDS)
            assert 0.95 * seconds - TOLERANCE_SECONDS < built.allowed_seconds() <= seconds - margin_seconds

    async def test_a_longer_one_than_the_servers_is_cut(self) -> None:
        async with house(answers("Hello")) as built:
            await built.router.Complete(CompleteRequest(completion=spec()), timeout=1_000.0)
            assert built.allowed_seconds() <= UNARY_SECONDS

    async def test_the_typed_error_still_reaches_the_caller(self) -> None:
        async with house((Hang(),)) as built:
            await built.router.Route(RouteRequest(completion=spec()))  # a process's first call takes longer
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await built.router.Complete(CompleteRequest(completion=spec()), timeout=2.0)
        error = RichError(caught.value)
        assert error.reason == "DEADLINE_EXCEEDED"
        assert error.details["ErrorInfo"].metadata["step"] == "dispatch"


class TestTraceContext:
    async def test_it_is_passed_on(self) -> None:
        async with house(answers("Hello")) as built:
            metadata = [("traceparent", TRACEPARENT), ("authorization", "Bearer caller"), ("x-other", "y")]
            await built.router.Complete(CompleteRequest(completion=spec()), metadata=metadata)
            assert dict(built.adapters[0].calls[0].headers) == {"traceparent": TRACEPARENT}

    async def test_nothing_else_is(self) -> None:
        async with house(answers("Hello")) as built:
            await built.router.Complete(CompleteRequest(completion=spec()), metadata=[("authorization", "Bearer x")])
            assert dict(built.adapters[0].calls[0].headers) == {}


async def test_a_call_sees_one_version_of_the_policy() -> None:
    async with house((says("a"), Hang())) as built:
        call = built.router.StreamComplete(StreamCompleteRequest(completion=spec()))
        first = await call.read()
        built.snapshot = replace(built.snapshot, version="v2")
        second = (await built.router.Route(RouteRequest(completion=spec()))).decision.policy_version
        assert (first.decision.policy_version, second) == ("v1", "v2")
        call.cancel()


async def test_a_caller_who_leaves_closes_the_providers_connection() -> None:
    async with house((says("a"), Hang())) as built:
        call = built.router.StreamComplete(StreamCompleteRequest(completion=spec()))
        await call.read()
        await call.read()
        assert built.adapters[0].open_exchanges == 1
        call.cancel()
        for _ in range(200):
            if not built.adapters[0].open_exchanges:
                break
            await asyncio.sleep(0.005)
        assert built.adapters[0].open_exchanges == 0


async def test_a_wrong_request_calls_nobody() -> None:
    async with house(answers("Hello")) as built:
        for call in (
            built.router.Route(RouteRequest()),
            built.router.Complete(CompleteRequest()),
            built.router.StreamComplete(StreamCompleteRequest()).read(),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert RichError(caught.value).fields == ["completion"]
        assert not built.adapters[0].calls


class TestNamedDecision:
    @staticmethod
    async def named(built: House, **fields: Any) -> str:
        answer = await built.router.Route(RouteRequest(completion=spec(**fields)))
        return str(answer.decision.decision_id)

    async def test_the_same_request_follows_it(self) -> None:
        async with house(answers("Hello")) as built:
            decision_id = await self.named(built, labels={"a": "1", "b": "2"}, request_id="one")
            again = spec(labels={"b": "2", "a": "1"}, request_id="two")
            answer = await built.router.Complete(CompleteRequest(completion=again, decision_id=decision_id))
            assert (answer.decision.decision_id, answer.request_id) == (decision_id, "two")
            events = await read(
                built.router.StreamComplete(StreamCompleteRequest(completion=again, decision_id=decision_id))
            )
            assert events[0].decision.decision_id == decision_id

    @pytest.mark.parametrize("changes", [{"text": "Another question?"}, {"quality_bias": 0.0}, {"session_id": "s"}])
    async def test_another_does_not(self, changes: dict[str, Any]) -> None:
        async with house(answers("Hello")) as built:
            decision_id = await self.named(built)
            asked = CompleteRequest(completion=spec(**changes), decision_id=decision_id)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await built.router.Complete(asked)
            error = RichError(caught.value)
            assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DECISION_EXPIRED")
            assert "was made for another request" in error.message
            assert not built.adapters[0].calls

    async def refused(self, built: House, decision_id: str) -> RichError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await read(built.router.StreamComplete(StreamCompleteRequest(completion=spec(), decision_id=decision_id)))
        error = RichError(caught.value)
        assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DECISION_EXPIRED")
        assert [one.subject for one in error.details["PreconditionFailure"].violations] == ["decision_id"]
        assert not built.adapters[0].calls
        return error

    async def test_nor_does_one_that_comes_too_late(self) -> None:
        async with house(answers("Hello")) as built:
            decision_id = await self.named(built)
            built.time.advance(FRESH_SECONDS + 1.0)
            assert "older than 300 s" in (await self.refused(built, decision_id)).message

    async def test_nor_one_under_another_policy(self) -> None:
        async with house(answers("Hello")) as built:
            decision_id = await self.named(built)
            built.snapshot = replace(built.snapshot, version="v2")
            assert "was made under another policy" in (await self.refused(built, decision_id)).message

    async def test_nor_one_whose_decision_nobody_made(self) -> None:
        async with house(answers("Hello")) as built:
            assert "is unknown here" in (await self.refused(built, "dec_never")).message

    async def test_what_is_no_id_is_refused(self) -> None:
        async with house(answers("Hello")) as built:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await built.router.Complete(CompleteRequest(completion=spec(), decision_id="a b"))
            assert RichError(caught.value).fields == ["decision_id"]


class TestFreshFacts:
    """Questions about the latest, as the judge of complexity finds them."""

    @staticmethod
    async def ranked(built: House, word: FreshFacts) -> list[str]:
        blind, searching = (
            deployment("a", of={"capabilities": EVERYTHING - {Capability.WEB_SEARCH}}),
            deployment("b", of={"price": price(9_000_000, 9_000_000)}),
        )
        built.snapshot = snapshot(blind, searching, fresh_facts=word)
        decision = (await built.router.Route(RouteRequest(completion=spec()))).decision
        assert decision.complexity.needs_fresh_facts is built.complexity.needs_fresh_facts
        return [one.deployment for one in decision.ranked]

    @pytest.mark.parametrize(
        ("word", "ranked"),
        [
            (FreshFacts.PREFER_SEARCH, ["b", "a"]),
            (FreshFacts.REQUIRE_SEARCH, ["b"]),
            (FreshFacts.IGNORE, ["a", "b"]),
        ],
    )
    async def test_the_policy_says_who_answers_them(self, word: FreshFacts, ranked: list[str]) -> None:
        async with house(answers("Hello")) as built:
            assert await self.ranked(built, word) == ["a", "b"]
            built.complexity = judged(needs_fresh_facts=True)
            assert await self.ranked(built, word) == ranked
