"""Policies change under load: no call fails, each sees exactly one version, and streams end on theirs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from kit.house import Door, open_door
from kit.policy_house import House, name_in, text, write
from kit.remembering import Remembered
from kit.running import RichError, router, spec
from kit.upstream import HELLO, Script, Upstream, chunk, json_script, running_upstream, sse_script
from kit.watching import SeenTelemetry
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest
from pointsman_server.adapters.stores.memory_counters import MemoryCounters
from pointsman_server.adapters.stores.memory_ledger import MemoryLedger
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.adapters.stores.sql.idempotency_store import SqlAnswers
from pointsman_server.adapters.tokenizers.tiktoken_counter import TiktokenCounter
from pointsman_server.bootstrap.identity import RandomIds, SystemClock
from pointsman_server.bootstrap.pipeline import build_pipeline
from pointsman_server.domain.control import Control
from pointsman_server.execution.governing import Governing
from pointsman_server.execution.idempotency import Idempotency
from pointsman_server.execution.limits import Limits
from pointsman_server.rpc.router import RouterServicer

RELOADS = 100
CALLS_PER_SECOND = 200
MOST_IN_FLIGHT = 64
"""Fewer than one connection takes: on a machine that is busy with other things, calls wait here and not there."""


@dataclass
class Running:
    """A server that follows a policy file and a database."""

    house: House
    door: Door
    file: Path

    @property
    def router(self) -> Any:
        return router(self.door.channel)


@asynccontextmanager
async def running(file: Path, *, shared: bool = False) -> AsyncGenerator[Running, None]:
    """`shared`: the policy is kept in the database too."""
    clock = SystemClock()
    database = Database(f"sqlite:///{file.parent}/pointsman.db")
    await database.open()
    house = House(file, database=database if shared else None)
    remembered = Remembered(clock)
    governing = Governing(Control, Limits(MemoryCounters(clock), clock, b"salt"))
    pipeline = build_pipeline(
        remembered.memory, house.adapters, SeenTelemetry(), governing, MemoryLedger(), TiktokenCounter(), clock,
        RandomIds(),
    )  # fmt: skip
    named_calls = Idempotency(SqlAnswers(database, clock), clock, RandomIds())
    servicer = RouterServicer(
        pipeline, house.keeper.choose, Control, named_calls, clock, unary_timeout_seconds=10, stream_timeout_seconds=30
    )
    async with house.open(), open_door(servicer, most_calls=500) as door:
        yield Running(house, door, file)
    await house.adapters.close()
    await house.wire.close()
    await database.close()


@pytest.fixture
async def upstream() -> AsyncGenerator[Upstream, None]:
    async with running_upstream(json_script(HELLO)) as upstream:
        yield upstream


def policy(upstream: Upstream, name: str, more: str = "") -> str:
    return text(name, int(upstream.base_url.rpartition(":")[2].partition("/")[0]), more)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_hundred_reloads_under_load_cost_no_call(tmp_path: Path, upstream: Upstream) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(policy(upstream, "n0"))
    async with running(file, shared=True) as server:
        versions = {server.house.keeper.current.version}
        server.house.keeper.subscribe(lambda snapshot: versions.add(snapshot.version))
        named: list[str] = []
        over, room = asyncio.Event(), asyncio.Semaphore(MOST_IN_FLIGHT)

        async def ask() -> None:
            async with room:
                answer = await server.router.Complete(CompleteRequest(completion=spec()), timeout=10)
            named.append(answer.decision.policy_version)

        async def load() -> None:
            asked: list[asyncio.Task[None]] = []
            began = time.monotonic()
            while not over.is_set():
                asked.append(asyncio.create_task(ask()))
                await asyncio.sleep(max(0.0, began + len(asked) / CALLS_PER_SECOND - time.monotonic()))
            await asyncio.gather(*asked)

        loading = asyncio.create_task(load())
        for number in range(1, RELOADS + 1):
            name = f"n{number}"
            if number % 2:
                write(file, policy(upstream, name))
            else:
                await server.house.desk.apply(policy(upstream, name), "key_1", "")
            assert await server.house.has(name), f"reload {number} did not come"
        over.set()
        await loading
        assert len(versions) == RELOADS + 1
        assert set(named) <= versions, "a call named a version that was never in force"
        assert len(set(named)) > RELOADS // 2, "calls did not see the changes"
        assert upstream.calls == len(named)


async def test_a_stream_ends_on_its_version_although_its_model_is_removed(tmp_path: Path) -> None:
    pieces = sse_script(chunk("Hello "), chunk("world"), chunk(finish="stop")).pieces
    slow = Script(200, {"content-type": "text/event-stream"}, [(0.4, piece) for _, piece in pieces])
    async with running_upstream(slow) as first, running_upstream(json_script(HELLO)) as second:
        file = tmp_path / "policy.yaml"
        file.write_text(policy(first, "first"))
        async with running(file) as server:
            before = server.house.keeper.current.version
            (old_provider,) = server.house.adapters.providers
            stream = server.router.StreamComplete(StreamCompleteRequest(completion=spec()))
            events = [await stream.read()]
            write(file, policy(second, "second").replace("one:", "two:").replace("{local:", "{other:").replace(
                "provider: local", "provider: other"
            ))  # fmt: skip
            changed = asyncio.Event()
            server.house.keeper.subscribe(lambda snapshot: changed.set())
            await asyncio.wait_for(changed.wait(), 5)
            assert old_provider in server.house.adapters.providers, "given up under a running stream"
            answer = await server.router.Complete(CompleteRequest(completion=spec()))
            assert answer.decision.policy_version != before
            while (event := await stream.read()) is not grpc.aio.EOF:
                events.append(event)
            completed = events[-1].completed
            assert completed.decision.policy_version == before
            assert completed.message.parts[0].text == "Hello world"
            assert (first.calls, second.calls) == (1, 1)
            for _ in range(50):
                if old_provider not in server.house.adapters.providers:
                    break
                await asyncio.sleep(0.1)
            assert old_provider not in server.house.adapters.providers
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await server.router.Route(RouteRequest(completion=spec(deployment="one")))
            assert RichError(caught.value).code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("spoil", ["half", "deleted", "folder", "link"])
async def test_a_spoilt_file_leaves_the_server_serving(tmp_path: Path, upstream: Upstream, spoil: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(policy(upstream, "first"))
    async with running(file) as server:
        _spoil(file, spoil, policy(upstream, "second"))
        await asyncio.sleep(0.5)
        assert server.house.watch.problems
        assert await server.door.health() == "SERVING"
        answer = await server.router.Complete(CompleteRequest(completion=spec()))
        assert answer.message.parts[0].text == "Hello world"
        assert name_in(server.house.keeper.current) == "first"


def _spoil(file: Path, how: str, content: str) -> None:
    if how == "half":
        write(file, content[: len(content) // 2])
        return
    file.unlink()
    if how == "folder":
        file.mkdir()
    if how == "link":
        file.symlink_to("nowhere.yaml")


async def test_a_tenant_is_told_nothing_of_what_it_may_not_use(tmp_path: Path, upstream: Upstream) -> None:
    file = tmp_path / "policy.yaml"
    two = policy(upstream, "first").replace("{one:", "{two: {provider: local, model: small, model_name: x}, one:")
    file.write_text(two + "tenant_defaults: {deny: [two]}\n")
    async with running(file) as server:
        decision = (await server.router.Route(RouteRequest(completion=spec()))).decision
        assert [one.deployment for one in decision.ranked] == ["one"]
        assert not decision.excluded
        told = []
        for name in ("two", "never-heard-of"):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await server.router.Complete(CompleteRequest(completion=spec(deployment=name)))
            error = RichError(caught.value)
            told.append((error.code, error.reason, error.message.partition(" (request ")[0]))
        assert told[0] == told[1]
        write(file, two + "tenant_defaults: {deny: [one, two]}\n")
        await asyncio.sleep(0.5)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.router.Complete(CompleteRequest(completion=spec()))
        assert RichError(caught.value).reason == "NO_ELIGIBLE_DEPLOYMENT"
