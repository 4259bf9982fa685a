from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from kit.boards import OPEN_SECONDS, SHARED_ACCOUNT, Board, half_opened, opened
from kit.catalog import deployment, provider
from kit.clock import CountingIds, FakeClock
from kit.house import ANYBODY_IS_LOCAL
from kit.properties import examples
from kit.running import RichError
from pointsman.v1 import admin_service_pb2 as pb
from pointsman.v1 import admin_service_pb2_grpc
from pointsman.v1.completion_pb2 import TIER_ADVANCED, TIER_STANDARD
from pointsman_server.domain.errors import InvalidRequest
from pointsman_server.domain.faults import FaultKind
from pointsman_server.domain.request import Tier
from pointsman_server.domain.resilience import BreakerPolicy
from pointsman_server.rpc.admin import AdminServicer
from pointsman_server.rpc.boundary import Boundary
from pointsman_server.rpc.paging import DEFAULT_PAGE_SIZE

STARTED_AT = 1_750_000_000.25


class Office:
    """An AdminService behind the real border, over a board."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.boundary = Boundary(CountingIds(), FakeClock(), 10, ANYBODY_IS_LOCAL)
        self.stub: Any = None

    @classmethod
    @asynccontextmanager
    async def open(cls, board: Board) -> AsyncGenerator[Office, None]:
        office = cls(board)
        servicer = AdminServicer(board.health, lambda: board.snapshot, office.boundary, STARTED_AT)
        server = grpc.aio.server()
        guarded: Any = office.boundary.guard(server)
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(servicer, guarded)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                office.stub = admin_service_pb2_grpc.AdminServiceStub(channel)
                yield office
        finally:
            await server.stop(0)

    async def list(self, **fields: Any) -> pb.ListDeploymentsResponse:
        answer: pb.ListDeploymentsResponse = await self.stub.ListDeployments(pb.ListDeploymentsRequest(**fields))
        return answer

    async def status_of(self, name: str) -> pb.DeploymentStatus:
        """What is listed of one deployment."""
        return next(one for one in (await self.list()).deployments if one.deployment == name)

    async def reset(self, name: str) -> pb.DeploymentStatus:
        answer = await self.stub.ResetBreaker(pb.ResetBreakerRequest(deployment=name))
        status: pb.DeploymentStatus = answer.deployment
        return status

    async def refused(self, call: Callable[[], Any]) -> RichError:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call()
        return RichError(caught.value)


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
async def office(board: Board) -> AsyncGenerator[Office, None]:
    async with Office.open(board) as opened_office:
        yield opened_office


def seconds(duration: Duration) -> float:
    return duration.ToNanoseconds() / 1e9


class TestGetStatus:
    async def test_it_says_what_runs_since_when(self, office: Office) -> None:
        status = await office.stub.GetStatus(pb.GetStatusRequest())
        assert status.server_version == version("pointsman")
        assert status.policy_version == "v1"
        assert status.start_time.ToMicroseconds() == 1_750_000_000_250_000
        assert not status.draining
        assert not status.kill_switches

    async def test_it_counts_the_calls(self, office: Office) -> None:
        before = (await office.stub.GetStatus(pb.GetStatusRequest())).active_calls
        office.boundary.active_calls += 7
        assert (await office.stub.GetStatus(pb.GetStatusRequest())).active_calls == before + 7

    async def test_it_says_when_the_server_goes_down(self, board: Board) -> None:
        boundary = Boundary(CountingIds(), FakeClock(), 10, ANYBODY_IS_LOCAL)
        boundary.draining = True
        servicer = AdminServicer(board.health, lambda: board.snapshot, boundary, STARTED_AT)
        assert (await servicer.GetStatus(pb.GetStatusRequest(), None)).draining


class TestListDeployments:
    async def test_a_healthy_one(self) -> None:
        board = Board(deployment("d", of={"tier": Tier.ADVANCED}))
        async with Office.open(board) as office:
            answer = await office.list()
            assert answer == pb.ListDeploymentsResponse(
                deployments=[
                    pb.DeploymentStatus(
                        deployment="d",
                        provider="d-provider",
                        model="d-model",
                        tier=TIER_ADVANCED,
                        breaker_state=pb.BREAKER_STATE_CLOSED,
                    )
                ]
            )

    async def test_what_was_observed(self, office: Office, board: Board) -> None:
        board.succeed(seconds=0.2, times=95)
        board.succeed(seconds=4.0, times=5)
        board.fail(4)
        board.succeed("e", times=3)
        seen, whole = await office.status_of("d"), await office.status_of("e")
        assert seen.error_rate == pytest.approx(4 / 104)
        assert seconds(seen.first_token_p50) == pytest.approx(0.2, rel=0.12)
        assert seconds(seen.first_token_p95) == pytest.approx(0.2, rel=0.12)
        assert seen.tier == TIER_STANDARD
        assert not whole.HasField("first_token_p50")
        assert not whole.HasField("first_token_p95")

    async def test_an_open_breaker(self, office: Office, board: Board) -> None:
        opened(board).clock.advance(10.5)
        status = await office.status_of("d")
        assert status.breaker_state == pb.BREAKER_STATE_OPEN
        assert seconds(status.cooldown_remaining) == OPEN_SECONDS - 10.5
        assert status.unusable_because == "its breaker is open after 5 failures in a row; next try in 20 s"
        assert status.error_rate == 1.0
        board.clock.advance(OPEN_SECONDS)
        status = await office.status_of("d")
        assert status.breaker_state == pb.BREAKER_STATE_OPEN
        assert (status.HasField("cooldown_remaining"), status.unusable_because) == (False, "")

    async def test_a_probe_under_way(self, office: Office, board: Board) -> None:
        half_opened(board)
        status = await office.status_of("d")
        assert status.breaker_state == pb.BREAKER_STATE_HALF_OPEN
        assert status.unusable_because == "its breaker is half open: one call is under way to try it"

    async def test_a_cooldown(self, office: Office, board: Board) -> None:
        board.limited(45.0)
        status = await office.status_of("d")
        assert status.breaker_state == pb.BREAKER_STATE_CLOSED
        assert seconds(status.cooldown_remaining) == 45.0
        assert status.unusable_because == "its provider wants to be left alone for another 45 s"

    async def test_a_provider_without_a_key_or_with_a_simulator(self) -> None:
        keyless = deployment("d", provider=provider("p", unusable_because="ACME_KEY is not set"))
        board = Board(keyless, deployment("e", provider=provider("q", simulated=True)))
        async with Office.open(board) as office:
            assert (await office.status_of("d")).unusable_because == "ACME_KEY is not set"
            assert (await office.status_of("e")).provider == "simulated"

    async def test_looking_changes_nothing(self, office: Office, board: Board) -> None:
        opened(board).clock.advance(OPEN_SECONDS)
        await office.list()
        assert len(board.transitions) == 1

    async def test_page_by_page(self, office: Office) -> None:
        pages, token = [], ""
        while True:
            answer = await office.list(page_size=2, page_token=token)
            pages.append([one.deployment for one in answer.deployments])
            token = answer.next_page_token
            if not token:
                break
            assert len(token) <= 256
        assert pages == [["d", "e"], ["f", "g"], ["h"]]

    async def test_the_last_page_may_be_full(self, office: Office) -> None:
        assert (await office.list(page_size=5)).next_page_token == ""

    async def test_without_a_size_the_server_chooses(self) -> None:
        board = Board(*[deployment(f"d{place:03}") for place in range(DEFAULT_PAGE_SIZE + 1)])
        async with Office.open(board) as office:
            first = await office.list()
            assert len(first.deployments) == DEFAULT_PAGE_SIZE
            rest = await office.list(page_token=first.next_page_token)
            assert [one.deployment for one in rest.deployments] == ["d100"]
            assert len((await office.list(page_size=1_000)).deployments) == DEFAULT_PAGE_SIZE + 1

    async def test_pages_fit_together_although_the_policy_changes(self, office: Office, board: Board) -> None:
        first = await office.list(page_size=2)
        board.follow(*[deployment(name) for name in "acfz"], policy=BreakerPolicy())
        second = await office.list(page_token=first.next_page_token)
        assert [one.deployment for one in second.deployments] == ["f", "z"]

    @pytest.mark.parametrize(
        "token", ["x", "////", "ZA==", "ZGVwbG95bWVudHMtYWZ0ZXI6/w==", "ZGVwbG95bWVudHMtYWZ0ZXI6_w==", "é", " "]
    )
    async def test_a_token_that_is_none(self, office: Office, token: str) -> None:
        error = await office.refused(lambda: office.list(page_token=token))
        assert (error.code, error.reason, error.fields) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_FIELD",
            ["page_token"],
        )

    @pytest.mark.parametrize(
        ("fields", "wrong"),
        [
            ({"page_size": -1}, "page_size"),
            ({"page_size": 1_001}, "page_size"),
            ({"page_token": "x" * 257}, "page_token"),
        ],
    )
    async def test_what_breaks_the_contract(self, office: Office, fields: dict[str, Any], wrong: str) -> None:
        error = await office.refused(lambda: office.list(**fields))
        assert (error.code, error.fields) == (grpc.StatusCode.INVALID_ARGUMENT, [wrong])

    @examples(200)
    @given(st.text(min_size=1, max_size=256))
    async def test_no_token_breaks_it(self, token: str) -> None:
        board = Board()
        servicer = AdminServicer(
            board.health, lambda: board.snapshot, Boundary(CountingIds(), FakeClock(), 1, ANYBODY_IS_LOCAL), 0.0
        )
        with pytest.raises(InvalidRequest) as caught:
            await servicer.ListDeployments(pb.ListDeploymentsRequest(page_token=token), None)
        assert [problem.field for problem in caught.value.problems] == ["page_token"]


class TestResetBreaker:
    async def test_it_closes_and_forgets(self, office: Office, board: Board) -> None:
        opened(board)
        with structlog.testing.capture_logs() as logs:
            status = await office.reset("d")
        assert (status.deployment, status.breaker_state) == ("d", pb.BREAKER_STATE_CLOSED)
        assert (status.unusable_because, status.HasField("cooldown_remaining")) == ("", False)
        assert board.why() is None
        assert {"event": "breaker_reset", "deployment": "d", "request_id": "req_1", "log_level": "info"} in logs

    async def test_it_ends_a_cooldown_of_the_account(self) -> None:
        board = Board(*SHARED_ACCOUNT)
        board.limited(None, FaultKind.AUTH)
        async with Office.open(board) as office:
            assert (await office.status_of("e")).unusable_because == "its provider refuses the key; next try in 30 s"
            await office.reset("d")
            assert (await office.status_of("e")).unusable_because == ""

    async def test_an_alias_names_its_deployment(self, office: Office, board: Board) -> None:
        opened(board)
        board.snapshot = type(board.snapshot)(
            version="v2",
            source="test.yaml",
            deployments=board.snapshot.deployments,
            aliases={"fast": "d"},
            tier_chains={},
        )
        assert (await office.reset("fast")).deployment == "d"
        assert board.why() is None

    async def test_a_healthy_one_stays_healthy(self, office: Office) -> None:
        assert (await office.reset("h")).breaker_state == pb.BREAKER_STATE_CLOSED

    async def test_one_that_does_not_exist(self, office: Office) -> None:
        error = await office.refused(lambda: office.reset("nobody"))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "DEPLOYMENT_NOT_FOUND")

    @pytest.mark.parametrize("name", ["", "x" * 65])
    async def test_what_breaks_the_contract(self, office: Office, name: str) -> None:
        error = await office.refused(lambda: office.reset(name))
        assert (error.code, error.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["deployment"])


SERVED = {"GetStatus", "ListDeployments", "ResetBreaker"}
METHODS = pb.DESCRIPTOR.services_by_name["AdminService"].methods


@pytest.mark.parametrize("method", [one.name for one in METHODS if one.name not in SERVED])
async def test_other_methods_are_not_served(office: Office, method: str) -> None:
    request = next(one for one in METHODS if one.name == method).input_type.name
    error = await office.refused(lambda: getattr(office.stub, method)(getattr(pb, request)()))
    assert (error.code, error.reason) == (grpc.StatusCode.UNIMPLEMENTED, "FEATURE_UNAVAILABLE")
