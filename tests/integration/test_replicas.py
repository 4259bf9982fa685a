"""Two replicas behind a real Envoy, with one PostgreSQL and one Redis: what they share, and what a dead one costs.

With `-s` it prints what it measured.
"""

from __future__ import annotations

import asyncio
import base64
import subprocess
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Generator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.envoy import envoy_binary
from kit.replicas import (
    BUDGETED_CALLS,
    CALL_COST_MICRO_USD,
    LIMITED_PER_MINUTE,
    Replica,
    Site,
    policy,
    running_site,
)
from kit.running import RichError, router, spec
from pointsman.v1 import admin_service_pb2 as pb
from pointsman.v1.admin_service_pb2_grpc import AdminServiceStub
from pointsman.v1.feedback_service_pb2 import RecordFeedbackRequest
from pointsman.v1.feedback_service_pb2_grpc import FeedbackServiceStub
from pointsman.v1.router_service_pb2 import CompleteRequest, RouteRequest, StreamCompleteRequest
from pointsman_client import AsyncClient, PointsmanError

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(300)]

EVERYWHERE_SECONDS = 5.0
"""Within so long a change must be known to all replicas."""

PRESS_SECONDS = 2.5
"""When nothing passed for so long, a limit is reached: longer than what one process leaves over stays with it, and than
a process goes without a Redis that was slow once."""

LONG_DOWN_SECONDS = 30.0


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site, None, None]:
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@dataclass
class Crowd:
    """Callers of a tenant, over connections to Envoy or, `directly`, to the replicas; what became of their calls."""

    site: Site
    tenant: str
    directly: bool = False
    answered: dict[str, int] = field(default_factory=dict)
    """Cost by request id, of the calls whose answer came."""
    policies: Counter[str] = field(default_factory=Counter)
    failures: list[grpc.aio.AioRpcError] = field(default_factory=list)
    last_answer_at: float = 0.0

    async def call(self, callers: int, go_on: Callable[[], bool], *, connections: int = 4, pause: float = 0.0) -> None:
        """Each calls again and again, and pauses after a call that failed."""
        self.last_answer_at = time.monotonic()
        async with AsyncExitStack() as stack:
            channels = [await stack.enter_async_context(self._connect(n)) for n in range(connections)]
            await asyncio.gather(*(self._calls(channels[n % connections], go_on, pause) for n in range(callers)))

    def _connect(self, number: int) -> grpc.aio.Channel:
        replicas = self.site.replicas
        return self.site.inside(replicas[number % len(replicas)].port) if self.directly else self.site.channel()

    async def _calls(self, channel: grpc.aio.Channel, go_on: Callable[[], bool], pause: float) -> None:
        stub, metadata = router(channel), self.site.bearer(self.tenant)
        while go_on():
            try:
                answer = await stub.Complete(CompleteRequest(completion=spec()), metadata=metadata, timeout=20)
            except grpc.aio.AioRpcError as error:
                self.failures.append(error)
                await asyncio.sleep(pause)
            else:
                self.answered[answer.request_id] = answer.usage.cost_micro_usd
                self.policies[answer.decision.policy_version] += 1
                self.last_answer_at = time.monotonic()

    async def have(self, answers: int) -> None:
        """Returns when so many more were answered."""
        goal = len(self.answered) + answers
        await until(lambda: len(self.answered) >= goal)


async def until(holds: Callable[[], bool], within_seconds: float = LONG_DOWN_SECONDS) -> None:
    """Waits until it holds."""
    async with asyncio.timeout(within_seconds):
        while not holds():  # noqa: ASYNC110 - what it waits for happens in another process
            await asyncio.sleep(0.02)


async def route(site: Site, channel: grpc.aio.Channel, tenant: str = "shop", **fields: Any) -> Any:
    request = RouteRequest(completion=spec(**fields))
    return (await router(channel).Route(request, metadata=site.bearer(tenant), timeout=10)).decision


async def refusal(call: Awaitable[Any]) -> RichError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return RichError(caught.value)


async def reason(call: Awaitable[Any]) -> str:
    """Why a call is refused, "" when it is not."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return RichError(error).reason
    return ""


async def soon(what: str, finds: Callable[[], Awaitable[bool]]) -> None:
    """Waits until it is so; that must be within the time allowed."""
    began = time.monotonic()
    async with asyncio.timeout(EVERYWHERE_SECONDS):
        while not await finds():  # noqa: ASYNC110 - what it waits for happens in another process
            await asyncio.sleep(0.02)
    print(f"{what}: {time.monotonic() - began:.2f} s")


class Desk:
    """AdminService and the router of one replica, without Envoy between."""

    def __init__(self, site: Site, admin: grpc.aio.Channel, calls: grpc.aio.Channel) -> None:
        self._site, self._calls = site, calls
        self._stub: Any = AdminServiceStub(admin)

    async def does(self, method: str, request: Any) -> Any:
        return await getattr(self._stub, method)(request, metadata=self._site.bearer("operators"), timeout=10)

    async def route(self, tenant: str = "shop", **fields: Any) -> Any:
        return await route(self._site, self._calls, tenant, **fields)

    async def complete(self, tenant: str = "shop") -> Any:
        request = CompleteRequest(completion=spec())
        return await router(self._calls).Complete(request, metadata=self._site.bearer(tenant), timeout=10)


@pytest.fixture
async def desks(site: Site) -> Any:
    async with AsyncExitStack() as stack:

        async def desk(replica: Replica) -> Desk:
            admin = await stack.enter_async_context(site.inside(replica.admin_port))
            return Desk(site, admin, await stack.enter_async_context(site.inside(replica.port)))

        yield [await desk(replica) for replica in site.replicas]


def test_envoy_finds_nothing_wrong_with_the_configuration(site: Site) -> None:
    command = [envoy_binary(), "--mode", "validate", "-c", str(site.file), "--disable-hot-restart"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "deprecated" not in said.lower()


class TestWhatPassesThroughEnvoy:
    async def test_errors_with_their_details_and_the_callers_request_id(self, site: Site) -> None:
        async with site.channel() as channel:
            metadata = (*site.bearer("shop"), ("x-request-id", "mine-1"))
            error = await refusal(router(channel).Route(RouteRequest(), metadata=metadata, timeout=10))
            assert (error.code, error.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["completion"])
            assert error.metadata["x-request-id"] == "mine-1"
            error = await refusal(router(channel).Route(RouteRequest(completion=spec()), timeout=10))
            assert error.code is grpc.StatusCode.UNAUTHENTICATED, "Envoy's certificate must open nothing"

    async def test_streams_piece_by_piece_and_deadlines(self, site: Site) -> None:
        async with site.channel() as channel:
            metadata = site.bearer("shop")
            request = StreamCompleteRequest(completion=spec(deployment="slow"))
            came: list[float] = []
            async for event in router(channel).StreamComplete(request, metadata=metadata, timeout=20):
                if event.WhichOneof("event") == "delta":
                    came.append(time.monotonic())
            assert event.WhichOneof("event") == "completed"
            assert len(came) > 5
            assert came[-1] - came[0] > 0.5, "Envoy must not hold pieces back"
            slow = CompleteRequest(completion=spec(deployment="slow"))
            error = await refusal(router(channel).Complete(slow, metadata=metadata, timeout=0.5))
            assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED

    async def test_health_but_no_administration(self, site: Site) -> None:
        async with site.channel() as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            admin: Any = AdminServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await admin.GetStatus(pb.GetStatusRequest(), metadata=site.bearer("operators"), timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    async def test_who_names_the_replica_comes_to_it_again(self, site: Site) -> None:
        """So that a decision can be followed where it was made, without a look into the database."""
        async with site.channel() as channel:
            stub, metadata, seen = router(channel), site.bearer("shop"), set()
            for _ in range(20):
                asked = stub.Route(RouteRequest(completion=spec()), metadata=metadata, timeout=10)
                decision_id = (await asked).decision.decision_id
                replica = str(dict(await asked.initial_metadata())["x-replica"])
                seen.add(replica)
                followed = CompleteRequest(completion=spec(), decision_id=decision_id)
                following = stub.Complete(followed, metadata=(*metadata, ("x-replica", replica)), timeout=10)
                assert (await following).decision.decision_id == decision_id
                assert "x-replica" not in dict(await following.initial_metadata()), "Envoy names another one only"
            assert len(seen) == 2

    async def test_who_does_not_is_followed_and_judged_wherever_he_comes(self, site: Site) -> None:
        async with site.channel() as channel:
            stub, metadata, seconds = router(channel), site.bearer("shop"), list[float]()
            feedback: Any = FeedbackServiceStub(channel)
            for _ in range(20):
                asked = stub.Route(RouteRequest(completion=spec()), metadata=metadata, timeout=10)
                decision_id = (await asked).decision.decision_id
                began = time.perf_counter()
                following = stub.Complete(
                    CompleteRequest(completion=spec(), decision_id=decision_id), metadata=metadata, timeout=10
                )
                answer = await following
                assert answer.decision.decision_id == decision_id
                if (
                    dict(await following.initial_metadata())["x-replica"]
                    != dict(await asked.initial_metadata())["x-replica"]
                ):
                    seconds.append(time.perf_counter() - began)
                judged = RecordFeedbackRequest(request_id=answer.request_id, score=1.0)
                await feedback.RecordFeedback(judged, metadata=metadata, timeout=10)
            assert seconds, "some came to the other one"
            print(f"a decision followed by the other replica at once: {sorted(seconds)[len(seconds) // 2]:.3f} s")

    async def test_at_little_cost(self, site: Site) -> None:
        stub_seconds: dict[str, list[float]] = {"direct": [], "through Envoy": []}
        async with site.inside(site.replicas[0].port) as direct, site.channel() as through:
            for _ in range(300):
                for name, channel in (("direct", direct), ("through Envoy", through)):
                    began = time.perf_counter()
                    await route(site, channel)
                    stub_seconds[name].append(time.perf_counter() - began)
        directly, by_envoy = (sorted(seconds)[150] for seconds in stub_seconds.values())
        print(f"Route: {directly * 1e3:.2f} ms at the median, through Envoy {by_envoy * 1e3:.2f} ms")
        assert by_envoy - directly < 0.02, "a hop on this machine, and room for a busy one"


async def spend_a_budget_for_ten(crowd: Crowd) -> None:
    """64 callers ask for four seconds, over as many connections."""
    site, ends_at = crowd.site, time.monotonic() + 4
    await crowd.call(64, lambda: time.monotonic() < ends_at, connections=64, pause=0.02)
    print(f"of a budget for {BUDGETED_CALLS} passed {len(crowd.answered)}, refused {len(crowd.failures)}")
    assert len(crowd.answered) == BUDGETED_CALLS
    assert sum(crowd.answered.values()) == BUDGETED_CALLS * CALL_COST_MICRO_USD, "to the micro-USD"
    assert len(crowd.failures) > 640
    assert {(RichError(one).code, RichError(one).reason) for one in crowd.failures} == {
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "BUDGET_EXCEEDED")
    }
    await until(lambda: site.booked("thrifty") == crowd.answered)
    assert site.verify()[0] == 0


class TestWhatReplicasShare:
    async def test_a_rate_limit_is_exact_over_both(self, site: Site) -> None:
        before = site.envoy.requests()
        crowd = Crowd(site, "limited")
        await crowd.call(32, lambda: time.monotonic() < crowd.last_answer_at + PRESS_SECONDS, pause=0.01)
        print(f"of a limit of {LIMITED_PER_MINUTE} passed {len(crowd.answered)}, refused {len(crowd.failures)}")
        assert 0.99 * LIMITED_PER_MINUTE <= len(crowd.answered) <= LIMITED_PER_MINUTE
        reasons = Counter(RichError(one).reason for one in crowd.failures)
        # On a machine that is busy beyond its means Redis may be silent for 50 ms, which is told as what it is.
        assert set(reasons) - {"STORE_UNAVAILABLE"} == {"RATE_LIMITED"}
        assert reasons["RATE_LIMITED"] > 100
        given = [count - before[port] for port, count in site.envoy.requests().items()]
        assert min(given) > 0.2 * sum(given), "both replicas had their part"

    async def test_a_budget_for_10_calls_and_64_callers(self, site: Site) -> None:
        await spend_a_budget_for_ten(Crowd(site, "thrifty"))

    async def test_a_kill_switch(self, site: Site, desks: list[Desk]) -> None:
        here, there = desks
        switch = pb.SetKillSwitchRequest(scope=pb.KILL_SWITCH_SCOPE_TENANT, target="shop", engaged=True)
        await here.does("SetKillSwitch", switch)
        assert await reason(here.route()) == "KILL_SWITCH", "at once where it was set"
        await soon("kill switch on", lambda: stopped(there))
        async with site.channel() as channel:
            for _ in range(20):
                assert await reason(route(site, channel)) == "KILL_SWITCH"
                assert await reason(route(site, channel, "counted")) == ""
        switch.engaged = False
        await there.does("SetKillSwitch", switch)
        await soon("kill switch off", lambda: runs(here))
        await there.route()

    async def test_a_flag(self, desks: list[Desk]) -> None:
        here, there = desks
        await there.does("SetFlag", pb.SetFlagRequest(name="route_only", value_json="true", tenant="shop"))
        assert await reason(there.complete()) == "KILL_SWITCH"

        async def only_routes(desk: Desk) -> bool:
            return await reason(desk.complete()) == "KILL_SWITCH"

        await soon("flag set", lambda: only_routes(here))
        await here.route()
        await here.does("SetFlag", pb.SetFlagRequest(name="route_only", value_json="null", tenant="shop"))

        async def answers(desk: Desk) -> bool:
            return not await only_routes(desk)

        await soon("flag cleared", lambda: answers(there))

    async def test_a_policy(self, site: Site, desks: list[Desk]) -> None:
        here, there = desks
        before = (await here.route()).policy_version
        applied = await here.does("ApplyPolicy", pb.ApplyPolicyRequest(yaml=policy("second"), comment="on one of two"))
        assert applied.version != before

        async def follows(desk: Desk) -> bool:
            return bool((await desk.route()).policy_version == applied.version)

        await soon("policy applied", lambda: follows(there))
        for desk in desks:
            assert (await desk.route(deployment="second")).chosen.deployment == "quick"
            shown = (await desk.does("GetPolicy", pb.GetPolicyRequest())).policy
            assert (shown.version, shown.comment, shown.author) == (
                applied.version, "on one of two", site.keys["operators"].id,
            )  # fmt: skip
        await there.does("RollbackPolicy", pb.RollbackPolicyRequest(version=before))

        async def is_back(desk: Desk) -> bool:
            return bool((await desk.route()).policy_version == before)

        await soon("policy rolled back", lambda: is_back(here))

    async def test_a_key_that_is_revoked_opens_neither(self, site: Site, desks: list[Desk]) -> None:
        await site.make_keys(["leaver"])

        async def opens(desk: Desk) -> bool:
            return await reason(desk.route("leaver")) == ""

        for desk in desks:
            await soon("key made", lambda desk=desk: opens(desk))  # type: ignore[misc]
        await site.revoke("leaver")

        async def closed(desk: Desk) -> bool:
            return await reason(desk.route("leaver")) == "UNAUTHENTICATED"

        for desk in desks:
            await soon("key revoked", lambda desk=desk: closed(desk))  # type: ignore[misc]
        async with site.channel() as channel:
            assert await reason(route(site, channel, "leaver")) == "UNAUTHENTICATED"


async def stopped(desk: Desk) -> bool:
    return await reason(desk.route()) == "KILL_SWITCH"


async def runs(desk: Desk) -> bool:
    return not await stopped(desk)


class TestWhenOneIsGone:
    async def test_killed_under_load_it_loses_no_settled_call(self, site: Site) -> None:
        crowd, over = Crowd(site, "counted"), asyncio.Event()
        callers = 32
        calling = asyncio.create_task(crowd.call(callers, lambda: not over.is_set(), connections=8))
        victim, other = site.replicas
        await crowd.have(300)
        victim.kill()
        lost = len(crowd.failures)
        before = site.envoy.requests()[other.port]
        await crowd.have(300)
        assert site.envoy.requests()[other.port] - before > 300, "the other one took all of it"
        victim.start()
        await asyncio.to_thread(victim.wait)
        await asyncio.to_thread(site.envoy.wait_for_replicas, 2)
        before = site.envoy.requests()[victim.port]
        await until(lambda: site.envoy.requests()[victim.port] > before + 100)  # it is given calls again
        over.set()
        await calling
        print(f"one killed: {len(crowd.answered)} answered, {len(crowd.failures)} failed")
        assert lost == 0
        assert {one.code() for one in crowd.failures} <= {grpc.StatusCode.UNAVAILABLE}
        assert len(crowd.failures) <= callers, "only calls that were with the dead one"

        def missing() -> set[str]:
            return crowd.answered.keys() - site.booked("counted").keys()

        with suppress(TimeoutError):
            await until(lambda: not missing())
        assert not missing(), f"of {len(crowd.answered)} calls whose answer came"
        booked = site.booked("counted")
        assert all(booked[request_id] == cost for request_id, cost in crowd.answered.items())
        await self._sums_are_right(site, booked)

    async def _sums_are_right(self, site: Site, booked: dict[str, int]) -> None:
        code, found = await asyncio.to_thread(site.verify)
        assert (code, found["problems"]) == (0, [])
        (budget,) = [one for one in found["budgets"] if one["tenant"] == "counted"]
        assert budget["settled_micro_usd"] == budget["booked_micro_usd"] + budget["lost_micro_usd"]
        assert budget["booked_micro_usd"] == sum(booked.values())
        for replica in site.replicas:
            async with site.inside(replica.admin_port) as channel:
                stub: Any = AdminServiceStub(channel)
                request = pb.GetUsageRequest(group_by=[pb.USAGE_DIMENSION_TENANT], tenant="counted")
                (row,) = (await stub.GetUsage(request, metadata=site.bearer("operators"), timeout=10)).rows
                assert (row.calls, row.usage.cost_micro_usd) == (len(booked), sum(booked.values()))

    async def test_restarted_one_after_the_other_no_caller_notices(self, site: Site) -> None:
        """Callers with our client, which tries again what was surely not begun."""
        over, answered = asyncio.Event(), 0
        failures: list[str] = []
        key = site.keys["shop"].text

        async def call() -> None:
            nonlocal answered
            credentials = grpc.ssl_channel_credentials(site.authority.certificate)
            async with AsyncClient(f"127.0.0.1:{site.port}", credentials=credentials, api_key=key) as client:
                while not over.is_set():
                    try:
                        await client.complete("Hello")
                        answered += 1
                    except PointsmanError as error:
                        failures.append(f"{type(error).__name__}: {error}")

        calling = [asyncio.create_task(call()) for _ in range(8)]
        for replica in site.replicas:
            await asyncio.sleep(0.5)
            assert await asyncio.to_thread(replica.stop) == 0
            replica.start()
            await asyncio.to_thread(replica.wait)
            await asyncio.to_thread(site.envoy.wait_for_replicas, 2)
        over.set()
        await asyncio.gather(*calling)
        print(f"both restarted: {answered} answered, {len(failures)} failed")
        assert not failures, f"{len(failures)} of {answered}: {failures[:3]}"
        assert answered > 100

    async def test_nobody_waits_for_what_is_gone(self, site: Site) -> None:
        first, second = site.replicas
        async with site.channel() as channel:
            await route(site, channel)
            first.kill()
            gone = base64.b64encode(f"127.0.0.1:{first.port}".encode()).decode()
            metadata = (*site.bearer("shop"), ("x-replica", gone))
            for _ in range(10):
                await router(channel).Route(RouteRequest(completion=spec()), metadata=metadata, timeout=10)
            second.kill()
            await asyncio.to_thread(site.envoy.wait_for_replicas, 0)
            began = time.monotonic()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await route(site, channel)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
            assert time.monotonic() - began < 1
        for replica in site.replicas:
            replica.start()
        for replica in site.replicas:
            await asyncio.to_thread(replica.wait)
        await asyncio.to_thread(site.envoy.wait_for_replicas, 2)


@pytest.fixture
def large_site(tmp_path: Path) -> Generator[Site, None, None]:
    with running_site(tmp_path, workers=4) as site:
        yield site


async def test_a_budget_for_10_calls_64_callers_and_four_workers_in_each_replica(large_site: Site) -> None:
    """Without Envoy, which has one connection to each replica: the kernel deals out connections, not calls."""
    await spend_a_budget_for_ten(Crowd(large_site, "thrifty", directly=True))
