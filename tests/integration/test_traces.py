"""Recorded calls through a whole service: who finds what, and what calls feel of it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kit.callers import bearer
from kit.parrot import Parrot, running_parrot
from kit.running import MODEL, RichError, connected, load_for_test, router, running_service, spec
from pointsman.v1 import admin_service_pb2 as pb
from pointsman.v1 import admin_service_pb2_grpc
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest
from pointsman_server.adapters.stores.sql.control_store import ControlStore
from pointsman_server.adapters.stores.sql.database import Database
from pointsman_server.bootstrap.identity import SystemClock
from pointsman_server.bootstrap.service import Service
from pointsman_server.domain.caller import Role
from pointsman_server.domain.control import Key
from pointsman_server.execution.keys import digest_of, make_key

SECONDS = 20
KEYS = (("caller", "shop", Role.CALL), ("other", "clinic", Role.CALL), ("reader", "ops", Role.READ))


@dataclass
class House:
    """A service with keys, over a parrot."""

    service: Service
    parrot: Parrot
    router: Any
    admin: Any
    keys: Mapping[str, str]
    file: Path

    def by(self, who: str) -> dict[str, Any]:
        """What makes it this one's call."""
        return {"metadata": bearer(self.keys[who]), "timeout": SECONDS}

    async def complete(self, text: str = "Hello", who: str = "caller", **fields: Any) -> Any:
        return await self.router.Complete(CompleteRequest(completion=spec(text, **fields)), **self.by(who))

    async def listed(self, who: str = "reader", **fields: Any) -> list[pb.TraceSummary]:
        answer = await self.admin.ListTraces(pb.ListTracesRequest(**fields), **self.by(who))
        return list(answer.traces)

    async def found(self, count: int = 1, **fields: Any) -> list[pb.TraceSummary]:
        """What is listed as soon as there is so much of it."""
        gives_up_at = time.monotonic() + SECONDS
        while (  # noqa: ASYNC110 - the writer tells nobody
            len(found := await self.listed(**fields)) < count and time.monotonic() < gives_up_at
        ):
            await asyncio.sleep(0.05)
        assert len(found) >= count, "calls are recorded soon after their end"
        return found

    async def get(self, request_id: str, who: str = "reader") -> pb.Trace:
        answer = await self.admin.GetTrace(pb.GetTraceRequest(request_id=request_id), **self.by(who))
        trace: pb.Trace = answer.trace
        return trace

    async def dropped(self) -> float:
        url = f"http://127.0.0.1:{self.service.http_port}/metrics"
        async with aiohttp.ClientSession() as session, session.get(url) as response:
            families = text_string_to_metric_families(await response.text())
        samples = [one for family in families for one in family.samples]
        (value,) = [one.value for one in samples if one.labels.get("signal") == "request_traces"]
        return float(value)


@asynccontextmanager
async def open_house(folder: Path, traces: Mapping[str, Any], **more: Any) -> AsyncGenerator[House, None]:
    file = folder / "pointsman.db"
    keys = await make_keys(file)
    async with running_parrot() as parrot:
        policy = load_for_test(
            {
                "providers": {"p": {"dialect": "openai_chat", "base_url": parrot.base_url}},
                "models": {"m": MODEL},
                "deployments": {"d": {"provider": "p", "model": "m", "model_name": "m-1"}},
                "traces": traces,
                **more,
            }
        )
        async with running_service(policy, database_url=f"sqlite:///{file}") as service, connected(service) as channel:
            admin = admin_service_pb2_grpc.AdminServiceStub(channel)
            yield House(service, parrot, router(channel), admin, keys, file)


async def make_keys(file: Path) -> dict[str, str]:
    database = Database(f"sqlite:///{file}")
    await database.open()
    store, keys = ControlStore(database, SystemClock()), {}
    for who, tenant, role in KEYS:
        new = make_key()
        await store.add_key(Key(new.id, tenant, frozenset({role}), digest_of(new.text)), "test")
        keys[who] = new.text
    await database.close()
    return keys


async def refused(call: Any) -> RichError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return RichError(caught.value)


async def test_an_answered_call_is_found_and_explained(tmp_path: Path) -> None:
    async with open_house(tmp_path, {}) as house:
        before = time.time()
        answer = await house.complete("I am ann@quarrymail.net", labels={"agent": "a"})
        (line,) = await house.found()
        assert (line.request_id, line.tenant, line.model, line.outcome) == (answer.request_id, "shop", "m", "OK")
        assert line.cost_micro_usd == answer.usage.cost_micro_usd
        assert before - 1 < line.start_time.ToMicroseconds() / 1e6 < time.time() + 1
        assert 0 < line.latency.ToMicroseconds() < SECONDS * 1e6
        trace = await house.get(answer.request_id)
        assert trace.summary == line
        assert trace.decision == answer.decision
        assert list(trace.attempts) == list(answer.attempts)
        assert dict(trace.labels) == {"agent": "a"}
        assert (trace.masked_prompt, trace.masked_answer) == ("", "")


async def test_a_stream_is_recorded_and_a_route_is_not(tmp_path: Path) -> None:
    async with open_house(tmp_path, {}) as house:
        await house.router.Route(RouteRequest(completion=spec()), **house.by("caller"))
        call = house.router.StreamComplete(StreamCompleteRequest(completion=spec()), **house.by("caller"))
        completed = [event async for event in call][-1].completed
        await house.complete()
        assert completed.request_id in [one.request_id for one in await house.found(2)]
        assert len(await house.listed()) == 2


async def test_calls_that_failed(tmp_path: Path) -> None:
    async with open_house(tmp_path, {"mode": "text"}) as house:
        house.parrot.status = 400
        refusal = await refused(house.complete("Hello"))
        (line,) = await house.found()
        assert (line.model, line.outcome) == ("m", refusal.code.name)
        trace = await house.get(line.request_id)
        assert [one.deployment for one in trace.attempts] == ["d"]
        assert (trace.masked_prompt, trace.masked_answer) == ("user: Hello", "")
        house.parrot.status = 200
        await refused(house.complete(deployment="nowhere"))
        (line,) = await house.found(outcome="NOT_FOUND")
        assert line.model == ""


async def test_a_caller_that_goes_away(tmp_path: Path) -> None:
    async with open_house(tmp_path, {}) as house:
        call = house.router.StreamComplete(StreamCompleteRequest(completion=spec("x" * 900)), **house.by("caller"))
        await call.read()
        call.cancel()
        (line,) = await house.found()
        assert line.outcome in ("CANCELLED", "OK")  # the answer may have been whole by then


async def test_who_may_look(tmp_path: Path) -> None:
    async with open_house(tmp_path, {"mode": "text"}) as house:
        answer = await house.complete("Hello", who="other")
        await house.found()
        for call in (house.listed(who="caller"), house.get(answer.request_id, who="other")):
            assert (await refused(call)).code is grpc.StatusCode.PERMISSION_DENIED
        assert (await refused(house.admin.ListTraces(pb.ListTracesRequest()))).reason == "UNAUTHENTICATED"
        assert (await house.get(answer.request_id)).masked_prompt == "user: Hello"
        error = await refused(house.get("nobody"))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "REQUEST_NOT_FOUND")


async def test_searching_and_turning_pages(tmp_path: Path) -> None:
    async with open_house(tmp_path, {}) as house:
        for number in range(5):
            await house.complete(who="other" if number == 2 else "caller", request_id=f"call-{number}")
        await house.found(5)
        assert [one.request_id for one in await house.listed(tenant="clinic")] == ["call-2"]
        assert [one.request_id for one in await house.listed(request_id="call-4")] == ["call-4"]
        assert await house.listed(model="n") == await house.listed(outcome="UNAVAILABLE") == []
        first = await house.admin.ListTraces(pb.ListTracesRequest(page_size=3), **house.by("reader"))
        rest = await house.listed(page_token=first.next_page_token)
        assert [one.request_id for one in (*first.traces, *rest)] == [f"call-{number}" for number in (4, 3, 2, 1, 0)]


async def test_each_tenant_as_its_policy_says(tmp_path: Path) -> None:
    tenants = {"shop": {"traces": {"mode": "text"}}, "clinic": {"traces": {"mode": "off"}}}
    async with open_house(tmp_path, {}, tenants=tenants, peers={"requests_per_minute": "none"}) as house:
        await house.complete("Hello", who="other")
        answer = await house.complete("Hello")
        await house.found()
        assert [one.tenant for one in await house.listed()] == ["shop"]
        trace = await house.get(answer.request_id)
        assert (trace.masked_prompt, trace.masked_answer) == ("user: Hello", "Hello")


async def test_what_a_guard_refused_leaves_no_text(tmp_path: Path) -> None:
    safety = {"sensitive_data": {"mode": "block"}}
    async with open_house(tmp_path, {"mode": "text"}, safety=safety) as house:
        await refused(house.complete("I am ann@quarrymail.net"))
        (line,) = await house.found()
        assert line.outcome == "INVALID_ARGUMENT"
        assert (await house.get(line.request_id)).masked_prompt == ""


async def test_a_rendered_template_is_what_is_shown(tmp_path: Path) -> None:
    greet = {"versions": {1: {"messages": [{"user": "Greet {{ who }}."}], "variables": {"who": {"type": "string"}}}}}
    async with open_house(tmp_path, {"mode": "text"}, templates={"greet": greet}) as house:
        completion = spec()
        del completion.messages[:]
        completion.template.name = "greet"
        completion.template.variables.update({"who": "Ottilie"})
        answer = await house.router.Complete(CompleteRequest(completion=completion), **house.by("caller"))
        await house.found()
        assert "Greet Ottilie." in (await house.get(answer.request_id)).masked_prompt


async def test_calls_do_not_feel_a_database_that_takes_no_writes(tmp_path: Path) -> None:
    async with open_house(tmp_path, {}) as house:
        await house.complete()
        await house.found()
        with closing(sqlite3.connect(house.file, isolation_level=None, check_same_thread=False)) as other:
            # Not on the event loop: the service may be in the middle of a write, which would wait for us for ever.
            await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
            began_at = time.monotonic()
            for _ in range(20):
                await house.complete()
                await asyncio.sleep(0.03)
            assert time.monotonic() - began_at < 4.0  # sooner than a write to a locked file gives up
            assert len(await house.listed()) == 1
            other.execute("ROLLBACK")
        assert len(await house.found(21)) == 21
        assert await house.dropped() == 0


async def test_what_cannot_be_written_is_counted(tmp_path: Path) -> None:
    async with open_house(tmp_path, {}) as house:
        await house.complete()
        await house.found()
        with closing(sqlite3.connect(house.file, isolation_level=None, check_same_thread=False)) as other:
            await asyncio.to_thread(other.execute, "ALTER TABLE request_traces RENAME TO gone")
        await house.complete()
        gives_up_at = time.monotonic() + SECONDS
        while await house.dropped() < 1 and time.monotonic() < gives_up_at:  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.05)
        assert await house.dropped() == 1
        error = await refused(house.listed())
        assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        await house.complete()
