"""Flags and kill switches over whole services: two replicas that share a database, and what calls see of changes."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from kit.running import MODEL, RichError, connected, load_for_test, router, running_service, spec
from kit.upstream import HELLO, Script, Upstream, chunk, json_script, running_upstream, sse_script
from pointsman.v1 import admin_service_pb2 as pb
from pointsman.v1 import admin_service_pb2_grpc, answer_pb2
from pointsman.v1.decision_pb2 import EXCLUSION_REASON_KILL_SWITCH
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest
from pointsman_server.adapters.stores.decision_file import read_decisions

GLOBAL, TENANT, PROVIDER = pb.KILL_SWITCH_SCOPE_GLOBAL, pb.KILL_SWITCH_SCOPE_TENANT, pb.KILL_SWITCH_SCOPE_PROVIDER
QUICK = json_script(HELLO)
ENDLESS = sse_script(chunk("Hello"), end="stall", done=False)
TENANT_NAME = "local"
"""Whom calls belong to on a server without keys."""

MACHINE_SECONDS = 1.0
"""Within so long a switch must be known in every process of a machine."""


@dataclass
class Replica:
    """A running service and its stubs."""

    router: Any
    admin: Any

    async def answer(self, **fields: Any) -> Any:
        return await self.router.Complete(CompleteRequest(completion=spec(**fields)), timeout=20)

    async def route(self, **fields: Any) -> Any:
        return (await self.router.Route(RouteRequest(completion=spec(**fields)), timeout=20)).decision

    async def stream(self, **fields: Any) -> list[Any]:
        request = StreamCompleteRequest(completion=spec(), **fields)
        return [event async for event in self.router.StreamComplete(request, timeout=20)]

    async def switch(self, scope: Any, target: str = "", *, engaged: bool = True) -> None:
        await self.admin.SetKillSwitch(pb.SetKillSwitchRequest(scope=scope, target=target, engaged=engaged))

    async def set(self, name: str, value: Any, tenant: str = "") -> None:
        await self.admin.SetFlag(pb.SetFlagRequest(name=name, value_json=json.dumps(value), tenant=tenant))


async def refused(call: Any) -> RichError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return RichError(caught.value)


def policy_over(upstreams: Mapping[str, Upstream], **more: Any) -> Any:
    """One deployment of one provider for each name; earlier ones are cheaper."""
    model = {**MODEL, "max_output_tokens": 4_000}
    return load_for_test(
        {
            "providers": {
                name: {"dialect": "openai_chat", "base_url": one.base_url} for name, one in upstreams.items()
            },
            "models": {
                f"{name}-m": {**model, "price": [{"input_usd_per_mtok": place, "output_usd_per_mtok": place}]}
                for place, name in enumerate(upstreams, start=1)
            },
            "deployments": {name: {"provider": name, "model": f"{name}-m", "model_name": "m-1"} for name in upstreams},
            **more,
        }
    )


@asynccontextmanager
async def replicas(folder: Path, policy: Any, count: int = 1) -> AsyncGenerator[list[Replica], None]:
    async with AsyncExitStack() as stack:
        found = []
        for number in range(count):
            url, state = f"sqlite:///{folder}/pointsman.db", str(folder / f"state-{number}")
            service = await stack.enter_async_context(running_service(policy, database_url=url, state_dir=state))
            channel = await stack.enter_async_context(connected(service))
            stub: Any = admin_service_pb2_grpc.AdminServiceStub(channel)
            found.append(Replica(router(channel), stub))
        yield found


class TestKillSwitch:
    @pytest.mark.parametrize(
        ("scope", "target", "subject"), [(GLOBAL, "", "service"), (TENANT, TENANT_NAME, f"tenants/{TENANT_NAME}")]
    )
    async def test_it_stops_calls_on_every_replica_and_lets_them_in_again(
        self, tmp_path: Path, scope: Any, target: str, subject: str
    ) -> None:
        async with running_upstream(QUICK) as up, replicas(tmp_path, policy_over({"up": up}), 2) as (here, there):
            await there.answer()
            began_at = time.monotonic()
            await here.switch(scope, target)
            error = await refused(here.answer())
            assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KILL_SWITCH")
            assert error.details["PreconditionFailure"].violations[0].subject == subject
            last_taken = began_at
            while time.monotonic() < began_at + 2 * MACHINE_SECONDS:
                with suppress(grpc.aio.AioRpcError):
                    await there.answer()
                    last_taken = time.monotonic()
                await asyncio.sleep(0.02)
            assert last_taken - began_at < MACHINE_SECONDS
            for call in (here.stream(), here.route(), there.route()):
                assert (await refused(call)).reason == "KILL_SWITCH"
            await there.switch(scope, target, engaged=False)
            await there.answer()

    async def test_one_for_others_stops_nobody_else(self, tmp_path: Path) -> None:
        async with running_upstream(QUICK) as up, replicas(tmp_path, policy_over({"up": up})) as (here,):
            await here.switch(TENANT, "other")
            await here.answer()

    async def test_a_stopped_provider_leaves_it_to_others_and_is_never_asked(self, tmp_path: Path) -> None:
        async with running_upstream(QUICK) as one, running_upstream(QUICK) as two:
            policy = policy_over({"one": one, "two": two})
            async with replicas(tmp_path, policy) as (here,):
                first = await here.route()
                assert first.chosen.deployment == "one"
                await here.switch(PROVIDER, "one")
                decision = await here.route()
                assert decision.chosen.deployment == "two"
                assert [out.reason for out in decision.excluded] == [EXCLUSION_REASON_KILL_SWITCH]
                await here.answer()
                followed = CompleteRequest(completion=spec(), decision_id=first.decision_id)
                assert (await here.router.Complete(followed)).decision.chosen.deployment == "two"
                await here.switch(PROVIDER, "two")
                error = await refused(here.answer())
                assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NO_ELIGIBLE_DEPLOYMENT")
                assert {one.type for one in error.details["PreconditionFailure"].violations} == {"KILL_SWITCH"}
                error = await refused(here.router.Complete(followed))
                assert error.reason == "NO_ELIGIBLE_DEPLOYMENT"
                assert (one.calls, two.calls) == (0, 2)

    async def test_a_call_that_runs_falls_back_to_nobody_who_was_stopped_meanwhile(self, tmp_path: Path) -> None:
        slow_failure = Script(500, pieces=[(1.0, b"{}")])
        async with running_upstream(slow_failure) as one, running_upstream(QUICK) as two:
            once = {"resilience": {"retries": {"attempts_per_deployment": 1}}}
            async with replicas(tmp_path, policy_over({"one": one, "two": two}, **once)) as (here,):
                running = asyncio.ensure_future(here.answer())
                await is_asked(one)
                await here.switch(PROVIDER, "two")
                assert (await refused(running)).reason == "ALL_ATTEMPTS_FAILED"
                assert two.calls == 0

    async def test_it_is_still_on_after_a_restart_and_while_the_database_is_away(self, tmp_path: Path) -> None:
        async with running_upstream(QUICK) as up:
            policy = policy_over({"up": up})
            async with replicas(tmp_path, policy) as (here,):
                await here.switch(GLOBAL)
            async with replicas(tmp_path, policy) as (here,):
                assert (await refused(here.answer())).reason == "KILL_SWITCH"
                # In a thread: the service may be in the middle of writing, and must be able to finish that.
                await asyncio.to_thread(drop_table, tmp_path / "pointsman.db", "control_revision")
                await asyncio.sleep(1.2)
                assert (await refused(here.answer())).reason == "KILL_SWITCH"
                assert (await refused(here.switch(GLOBAL, engaged=False))).reason == "STORE_UNAVAILABLE"
                assert (await refused(here.answer())).reason == "KILL_SWITCH"
            assert up.calls == 0


def drop_table(file: Path, name: str) -> None:
    with sqlite3.connect(file) as database:
        database.execute(f"DROP TABLE {name}")
    database.close()


async def is_asked(upstream: Upstream) -> None:
    """Returns when the provider has been called."""
    async with asyncio.timeout(10):
        while not upstream.calls:  # noqa: ASYNC110 - the provider counts, and tells nobody
            await asyncio.sleep(0.01)


class TestRunningStreams:
    @pytest.mark.parametrize(
        ("scope", "target"), [(GLOBAL, ""), (TENANT, TENANT_NAME), (PROVIDER, "up")], ids=["all", "tenant", "provider"]
    )
    async def test_they_end_at_once_where_the_policy_wants_that(self, tmp_path: Path, scope: Any, target: str) -> None:
        async with running_upstream(ENDLESS) as up:
            policy = policy_over({"up": up}, kill_switch_ends_streams=True)
            async with replicas(tmp_path, policy, 2) as (here, there):
                events = await begun(there)
                before = time.monotonic()
                await here.switch(scope, target)
                error = await refused(anext(events))
                assert time.monotonic() - before < MACHINE_SECONDS
                assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "KILL_SWITCH")
                await asyncio.wait_for(up.nobody_connected.wait(), 5)

    async def test_those_of_others_go_on(self, tmp_path: Path) -> None:
        async with running_upstream(ENDLESS) as up, running_upstream(ENDLESS) as other:
            policy = policy_over({"up": up, "other": other}, kill_switch_ends_streams=True)
            async with replicas(tmp_path, policy) as (here,):
                events = await begun(here)
                await here.switch(TENANT, "somebody")
                await here.switch(PROVIDER, "other")
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(events), 1.0)

    async def test_otherwise_they_finish(self, tmp_path: Path) -> None:
        slow = delayed(sse_script(chunk("Hello"), chunk(" world"), chunk(finish="stop")), 1, 1.5)
        async with running_upstream(slow) as up, replicas(tmp_path, policy_over({"up": up})) as (here,):
            events = await begun(here)
            await here.switch(GLOBAL)
            await here.switch(PROVIDER, "up")
            left = [event async for event in events]
            assert left[-1].completed.message.parts[0].text == "Hello world"
            assert (await refused(here.stream())).reason == "KILL_SWITCH"


def delayed(script: Script, place: int, seconds: float) -> Script:
    """The same, with a pause before the piece in this place."""
    pieces = [(seconds if at == place else 0.0, piece) for at, (_, piece) in enumerate(script.pieces)]
    return replace(script, pieces=pieces)


async def begun(replica: Replica) -> Any:
    """A stream whose first piece has come."""
    events = aiter(replica.router.StreamComplete(StreamCompleteRequest(completion=spec())))
    while (await anext(events)).WhichOneof("event") != "delta":
        pass
    return events


class TestFlags:
    async def test_every_replica_follows(self, tmp_path: Path) -> None:
        async with running_upstream(QUICK) as up, replicas(tmp_path, policy_over({"up": up}), 2) as (here, there):
            await here.set("route_only", True)
            assert (await refused(here.answer())).reason == "KILL_SWITCH"
            await asyncio.sleep(MACHINE_SECONDS)
            assert (await refused(there.answer())).details["PreconditionFailure"].violations[0].type == "ROUTE_ONLY"
            assert (await refused(there.stream())).reason == "KILL_SWITCH"
            assert (await there.route()).chosen.deployment == "up"
            await here.set("route_only", False, TENANT_NAME)
            await here.answer()
            assert up.calls == 1

    async def test_the_cap_reaches_the_provider_and_the_caller_is_told(self, tmp_path: Path) -> None:
        async with running_upstream(QUICK) as up, replicas(tmp_path, policy_over({"up": up})) as (here,):
            await here.set("max_output_tokens_cap", 50)
            answer = await here.answer(generation={"max_output_tokens": 1_000})
            assert "max_output_tokens_clamped" in [warning.code for warning in answer.warnings]
            await here.answer()
            await here.answer(generation={"max_output_tokens": 10})
            sent = [body.get("max_completion_tokens", body.get("max_tokens")) for body in up.bodies]
            assert sent == [50, 50, 10]

    async def test_the_dial(self, tmp_path: Path) -> None:
        async with running_upstream(QUICK) as up, replicas(tmp_path, policy_over({"up": up})) as (here,):
            await here.set("quality_bias_override", 0.75, TENANT_NAME)
            assert (await here.route(quality_bias=0.1)).quality_bias == 0.75
            await here.set("quality_bias_override", None, TENANT_NAME)
            assert (await here.route(quality_bias=0.1)).quality_bias == pytest.approx(0.1)

    async def test_decisions_are_kept_or_not(self, tmp_path: Path) -> None:
        async with running_upstream(QUICK) as up:
            async with replicas(tmp_path, policy_over({"up": up})) as (here,):
                await here.set("record_decisions", False)
                await here.answer()
                await here.set("record_decisions", True)
                wanted = (await here.route()).decision_id
            assert [one.decision_id for one in read_decisions(tmp_path / "state-0")] == [wanted]

    @pytest.mark.parametrize(
        ("flag", "asked", "texts"),
        [
            (None, {}, None),
            ("restart", {}, "again"),
            ("restart", {"failover": answer_pb2.STREAM_FAILOVER_TERMINATE}, None),
            (None, {"failover": answer_pb2.STREAM_FAILOVER_RESTART}, "again"),
        ],
    )
    async def test_what_a_broken_stream_does(
        self, tmp_path: Path, flag: str | None, asked: dict[str, Any], texts: str | None
    ) -> None:
        broken = sse_script(chunk("Hello"), end="reset", done=False)
        whole = sse_script(chunk("again"), chunk(finish="stop"))
        async with AsyncExitStack() as stack:
            one, two = [await stack.enter_async_context(running_upstream(script)) for script in (broken, whole)]
            async with replicas(tmp_path, policy_over({"one": one, "two": two})) as (here,):
                if flag is not None:
                    await here.set("stream_failover_default", flag)
                if texts is None:
                    assert (await refused(here.stream(**asked))).reason == "STREAM_INTERRUPTED"
                else:
                    events = await here.stream(**asked)
                    assert events[-1].completed.message.parts[0].text == texts

    @pytest.mark.parametrize(("flag", "calls"), [(True, 1), (False, 0)])
    async def test_hedging(self, tmp_path: Path, flag: bool, calls: int) -> None:
        quick = sse_script(chunk("Hello"), chunk(finish="stop"))
        silent = delayed(quick, 0, 1.0)
        hedging = {"resilience": {"hedging": {"quantile": 0.9, "least_answers": 5, "most_share": 1}}}
        async with AsyncExitStack() as stack:
            one = await stack.enter_async_context(running_upstream(*[quick] * 10, silent))
            two = await stack.enter_async_context(running_upstream(quick))
            async with replicas(tmp_path, policy_over({"one": one, "two": two}, **hedging)) as (here,):
                for _ in range(10):
                    await here.stream()
                assert two.calls == 0
                await here.set("hedging", flag)
                await here.stream()
                assert two.calls == calls
